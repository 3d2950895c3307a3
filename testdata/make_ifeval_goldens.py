#!/usr/bin/env python3
"""Makes testdata/ifeval: what the reference code of IFEval says of adversarial responses.

    pip install nltk==3.9.1 langdetect==1.0.9 immutabledict absl-py packaging
    python testdata/make_ifeval_goldens.py --prompts ifeval_input_data.jsonl --reference DIR --punkt DIR

DIR of --reference holds lm_eval/tasks/ifeval (lm-evaluation-harness 0.4.13, which carries the code of
google-research/instruction_following_eval); DIR of --punkt is NLTK's punkt_tab/english. Both are run
here and never copied. For each of the 541 prompts several responses are built from a seed: to pass, to
fail by one, to pass only loosely, and to be odd. Written are

    prompts.jsonl.gz    key, instruction ids and arguments of google/IFEval (Apache-2.0)
    responses.jsonl.gz  [key, response, strict, loose] and, where NLTK's parameters decide otherwise
                        than our own, the two strings of bits again with those

The bits are one for each instruction. langdetect is seeded with 0 (the reference does not seed it), and
the letters `!` and `#` of keywords:letter_frequency are counted as they stand (the reference draws a
random letter for what is no letter).
"""

import argparse
import gzip
import io
import json
import os
import random
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
VARIANTS = 8

ENGLISH = [
    "The river runs past the old mill.", "Dr. Adams said it would rain, but it did not.",
    "Is this the right way?", "What a day!", "We paid $3.50 for it at 5 p.m. on Friday.",
    "She asked, \"Why now?\" and left.", "It works (most of the time).", "Wait... there is more.",
    "Version 2.0 came out in Jan. 2020.", "J. K. Smith wrote it.", "The U.S. team won.", "No. 5 is best.",
    "I can't, won't and shouldn't go.", "He cannot say 'no'.", "Use e.g. a hammer, a saw, etc. to do it.",
    "That is all . . . or is it?", "Really?! Yes!!", "A well-known, first-rate idea.", "See example.com for it.",
    "It's Mary's and the dogs' house.", "“Curly quotes,” he said.", "An em dash — like this — is fine.",
    "Nothing ends here", "The end.", "Gonna go, wanna come?", "All of them agreed on this point.",
    "Peace is the story of the war.", "There is a right schedule for the future.",
]
OTHER = {
    "ar": "هذا نص قصير باللغة العربية عن الطقس اليوم.", "bg": "Това е кратък текст на български език за времето днес.",
    "bn": "এটি আজকের আবহাওয়া সম্পর্কে একটি ছোট বাংলা লেখা।", "de": "Das ist ein kurzer deutscher Text über das Wetter von heute.",
    "fa": "این یک متن کوتاه فارسی درباره آب و هوای امروز است.", "fi": "Tämä on lyhyt suomenkielinen teksti tämän päivän säästä.",
    "gu": "આ આજના હવામાન વિશે ટૂંકું ગુજરાતી લખાણ છે.", "hi": "यह आज के मौसम के बारे में एक छोटा हिन्दी पाठ है।",
    "it": "Questo è un breve testo in italiano sul tempo di oggi.", "kn": "ಇದು ಇಂದಿನ ಹವಾಮಾನದ ಬಗ್ಗೆ ಒಂದು ಚಿಕ್ಕ ಕನ್ನಡ ಬರಹ.",
    "ko": "이것은 오늘 날씨에 관한 짧은 한국어 글입니다.", "mr": "हा आजच्या हवामानाबद्दल एक छोटा मराठी मजकूर आहे.",
    "ne": "यो आजको मौसमको बारेमा एउटा छोटो नेपाली पाठ हो।", "pa": "ਇਹ ਅੱਜ ਦੇ ਮੌਸਮ ਬਾਰੇ ਇੱਕ ਛੋਟੀ ਪੰਜਾਬੀ ਲਿਖਤ ਹੈ।",
    "pt": "Este é um pequeno texto em português sobre o tempo de hoje.", "ru": "Это короткий русский текст о сегодняшней погоде.",
    "sw": "Haya ni maandishi mafupi ya Kiswahili kuhusu hali ya hewa ya leo.", "ta": "இது இன்றைய வானிலை பற்றிய ஒரு சிறிய தமிழ் உரை.",
    "te": "ఇది ఈరోజు వాతావరణం గురించి ఒక చిన్న తెలుగు వచనం.", "th": "นี่คือข้อความภาษาไทยสั้น ๆ เกี่ยวกับสภาพอากาศวันนี้",
    "ur": "یہ آج کے موسم کے بارے میں ایک مختصر اردو تحریر ہے۔", "vi": "Đây là một đoạn văn ngắn bằng tiếng Việt về thời tiết hôm nay.",
    "zh": "这是一段关于今天天气的中文短文。", "fr": "Ceci est un court texte en français sur le temps d'aujourd'hui.",
}
ODD = [
    "", " ", "\n\n", "\u3000\u00a0", "\x1c\x1f", "*", "***", "******", "\"", "\"\"", "\"a\"", "“a”", "{}", "[]", "NaN", "```json\n{}\n```",
    "```\n[1, 2,]\n```", "```JSON{\"a\": Infinity}```", "{\"a\": 1, \"a\": 2}", "{'a': 1}", "\ufeff{}", "\"\\ud800\"", "<<>>", "<< >>",
    "<<a\nb>>", "<<<title>>>", "P.S. one", "p. p. s two", "p.\u00a0p.\u2003s", "P. S.", "PS: no", "My answer is yes.", "MY ANSWER IS NO.",
    "12 34 !?", "ALL CAPITALS HERE, FRIENDS.", "no capitals here at all.", "ǅ Ⅷ ª", "ẞ ß İ ı K ſ", "a\u0301 e\u0301", "½ ² ①", "हिन्दी",
    "a\r\nb\r\n\r\nc", "a\u2028b\u0085c", "one\x0btwo\x0cthree", "[a] [b\nc] [] [[d]]", "*a* **b** ***c*** * * ** **", "*a**b*",
    "* one\n* two\n- three\n  - four\n*five\n**six**\n--\n-\n\n\n* seven", "1. one\n2. two\n3. three", "Section 1 Section2SECTION 3 section 4 Day 1\nDay\n2",
    "PARAGRAPH 1\nPARAGRAPH\t2 Audience 1", "a***b ***\n*** c", "***a***b***", "a\n\nb\n\n\n\nc", "\n\na\n\nb", "'\"weekend\" here\n\nSend. it", "a******b",
    "a******a", "******a******b******", "a************b", "Any other questions?", "in India.\"", "CANNOT GIMME GONNA 'TIS WANNA D'YE", "A.B.C. U.S.A. I.",
    "DON'T YOU'LL 'A 'B' ''C'' ``D''", "A,B A:B 1,2 1:2", "(A) [B] {C} <D>", "A--B A—B A–B", "A. . . B . . . . C", "A.) B.\" C.' D.”", "e.g. A i.e. B etc. C",
    "#!#! ##", "1. A 2. B\n3.", "a!!! b??? c?!", "?! .) .\" (.", "x.y.z", "x. y. z.", "\x00a\x00", "😀 A😀B 👩‍👩‍👧", "a\u200bb c\u200dd", "🇩🇪.", "…", "a…b… C",
]
WORDS = "time year people way day man thing woman life child world school state family student group country problem hand part".split()


def sentence(rng):
    return rng.choice(ENGLISH) if rng.random() < 0.8 else " ".join(rng.choices(WORDS, k=rng.randint(1, 12))).capitalize() + rng.choice(".?!")


def prose(rng, sentences):
    return rng.choice([" ", " ", "  ", "\n"]).join(sentence(rng) for _ in range(sentences))


def count_for(relation, bound, rng, aim):
    """A count that keeps the relation (aim > 0), misses it by one (aim == 0) or is anything."""
    if relation == "less than":
        return max(0, bound - 1 if aim > 0 else bound)
    return bound if aim > 0 else max(0, bound - 1)


def case_mix(rng, text):
    return rng.choice([str, str.lower, str.upper, str.title, str.swapcase])(text)


def build(rng, ids, arguments, aim):
    """A response that tries to follow (aim 1), to miss by one (aim 0)."""
    by_id = dict(zip(ids, arguments))
    body = prose(rng, rng.randint(1, 4))
    if "language:response_language" in by_id:
        code = by_id["language:response_language"]["language"] if aim else rng.choice(sorted(OTHER))
        body = " ".join([OTHER.get(code, body)] * rng.randint(1, 3))
    for id_, a in by_id.items():
        body = one(rng, id_, a, aim, body)
    if "change_case:english_capital" in by_id:
        body = body.upper() if aim else body.upper()[:-1] + "x"
    if "change_case:english_lowercase" in by_id:
        body = body.lower() if aim else body.lower() + "X"
    if "punctuation:no_comma" in by_id and aim:
        body = body.replace(",", "")
    if "startend:end_checker" in by_id:
        phrase = by_id["startend:end_checker"]["end_phrase"]
        body += "\n" + (case_mix(rng, phrase) if aim else phrase[:-1]) + rng.choice(["", "\"", " ", "\n"])
    if "startend:quotation" in by_id:
        body = f'"{body}"' if aim else f'"{body}'
    if "detectable_format:json_format" in by_id:
        inner = json.dumps({"text": body}, ensure_ascii=rng.random() < 0.5)
        body = rng.choice(["{}", "```json\n{}\n```", "```{}```", " {} \n"]).replace("{}", inner if aim else inner[:-1])
    return body


def one(rng, id_, a, aim, body):
    n = lambda name: a[name] if aim else max(0, a[name] - 1)
    lines = body.split("\n")
    kind = id_.split(":")[1]
    if kind == "number_words":
        target = count_for(a["relation"], a["num_words"], rng, aim)
        have = len(re.findall(r"\w+", body))
        return body + " " + " ".join(rng.choices(WORDS, k=max(0, target - have))) + rng.choice([".", ""])
    if kind == "number_sentences":
        target = count_for(a["relation"], a["num_sentences"], rng, aim)
        return " ".join(rng.choice(ENGLISH) for _ in range(target)) or body
    if kind == "number_paragraphs":
        joint = rng.choice(["\n***\n", " *** ", "***", "\n\n***\n\n"])
        return joint.join(prose(rng, 1) for _ in range(n("num_paragraphs"))) + rng.choice(["", "\n***", "***\n"])
    if kind == "nth_paragraph_first_word":
        parts = [prose(rng, 1) for _ in range(n("num_paragraphs"))]
        if parts:
            nth = min(a["nth_paragraph"], len(parts)) - 1
            parts[nth] = rng.choice(["", "\"", "'", " "]) + case_mix(rng, a["first_word"]) + rng.choice(["", ",", ".x", "'s", "-x"]) + " " + parts[nth]
        return rng.choice(["\n\n", "\n\n", "\n\n\n"]).join(parts)
    if kind == "number_placeholders":
        return body + " " + " ".join(rng.choice(["[name]", "[]", "[a b]", "[[x]]"]) for _ in range(n("num_placeholders")))
    if kind == "postscript":
        marks = {"P.S.": ["P.S. x", "p. s. x", "P.S.x", "P.\nS."], "P.P.S": ["P.P.S. x", "p. p. s", "P.P. S x"]}[a["postscript_marker"]]
        return body + "\n" + (rng.choice(marks) if aim else rng.choice(["PS x", "P S.", "P.P.T", "P..S."]))
    if kind == "number_bullet_lists":
        return body + "\n" + "\n".join(rng.choice(["* ", "- ", "  * ", "\t- ", "*", "-", "\n* "]) + rng.choice(WORDS) for _ in range(n("num_bullets")))
    if kind == "constrained_response":
        return rng.choice(["My answer is yes.", "My answer is no.", " My answer is maybe. "]) if aim else rng.choice(["My answer is yes", "my answer is no.", "Maybe."])
    if kind == "number_highlighted_sections":
        return body + " " + " ".join(rng.choice(["*a b*", "**c**", "*d*", "* *", "***e***"]) for _ in range(n("num_highlights")))
    if kind == "multiple_sections":
        name = a["section_spliter"]
        return "\n".join(name + rng.choice([" ", "", "\n", "\u00a0"]) + str(i + 1) + rng.choice([" ", "\n", ":"]) + prose(rng, 1) for i in range(n("num_sections")))
    if kind == "title":
        return rng.choice(["<<a title>>", "<<<x>>>", "x <<y>> <<z>>"]) + "\n" + body if aim else rng.choice(["<<>>", "<<a\nb>>", "<a>", "<< >>"]) + body
    if kind == "two_responses":
        return body + rng.choice(["******", "\n******\n"]) + (prose(rng, 2) + "!" if aim else body)
    if kind == "repeat_prompt":
        prompt = a["prompt_to_repeat"]
        return (case_mix(rng, prompt) if aim else prompt[1:]) + "\n" + body
    if kind == "existence":
        words = [case_mix(rng, w) for w in a["keywords"]]
        return body + " " + rng.choice([" ", "", "x", "."]).join(words if aim else words[1:])
    if kind == "forbidden_words":
        word = rng.choice(a["forbidden_words"])
        return body + " " + (rng.choice(["x{}", "{}x", "_{}", "{}1"]) if aim else rng.choice([" {} ", "'{}'", "-{}-", "{}"])).replace("{}", case_mix(rng, word))
    if kind == "frequency":
        target = count_for(a["relation"], a["frequency"], rng, aim)
        return body + " " + rng.choice([" ", "", ". "]).join(case_mix(rng, a["keyword"]) for _ in range(target))
    if kind == "letter_frequency":
        target = count_for(a["let_relation"], a["let_frequency"], rng, aim)
        have = body.lower().count(a["letter"].lower())
        return body + " " + rng.choice([a["letter"].lower(), a["letter"].upper()]) * max(0, target - have)
    if kind == "capital_word_frequency":
        target = count_for(a["capital_relation"], a["capital_frequency"], rng, aim)
        return body.lower() + " " + " ".join(rng.choice(["ABC", "DON'T", "A.B.", "X-Y", "CANNOT", "É", "N1", "(OK)"]) for _ in range(target))
    return "\n".join(lines)


def mash(rng):
    parts = []
    for _ in range(rng.randint(1, 7)):
        parts.append(rng.choice([lambda: rng.choice(ODD), lambda: prose(rng, 2), lambda: rng.choice(list(OTHER.values())), lambda: case_mix(rng, sentence(rng))])())
    return rng.choice(["\n", "\n\n", " ", "", "\r\n"]).join(parts)


def responses(key, ids, arguments):
    rng = random.Random(f"patarm ifeval {key}")
    good, near = build(rng, ids, arguments, 1), build(rng, ids, arguments, 0)
    starred = good.replace("\n", "*\n*")
    wrapped = rng.choice(["Sure, here it is:\n", "Of course!\n\n", "Here, X:\n"]) + good + rng.choice(["\nHope this helps, X!", "\n***", "\n\n"])
    long = build(rng, ids, arguments, 1) + "\n" + prose(rng, rng.randint(5, 30))
    return [good, near, wrapped, starred, long, mash(rng), mash(rng), rng.choice(ODD)][:VARIANTS]


class Reference:
    """The reference code; `check` gives bits for every instruction."""

    def __init__(self, folder):
        sys.path.insert(0, folder)
        import langdetect
        from lm_eval.tasks.ifeval import instructions, instructions_registry, utils

        langdetect.DetectorFactory.seed = 0
        self.detector = langdetect.DetectorFactory
        self.utils = utils
        self.util = instructions.instructions_util
        build_description = instructions.LetterFrequencyChecker.build_description

        def as_it_stands(checker, *, letter=None, let_frequency=None, let_relation=None):
            build_description(checker, letter="a", let_frequency=let_frequency, let_relation=let_relation)
            checker._letter = letter.lower()

        instructions.LetterFrequencyChecker.build_description = as_it_stands

    def use(self, parameters):
        """Sentence parameters for both the sentence count and the word tokenizer."""
        import nltk.tokenize
        from nltk.tokenize.punkt import PunktSentenceTokenizer

        tokenizer = PunktSentenceTokenizer(parameters)
        self.util._get_sentence_tokenizer = lambda: tokenizer
        nltk.tokenize._get_punkt_tokenizer = lambda language="english": tokenizer

    def check(self, ids, arguments, prompt, response):
        example = self.utils.InputExample(key=0, instruction_id_list=ids, prompt=prompt, kwargs=arguments)
        bits = []
        for test in (self.utils.test_instruction_following_strict, self.utils.test_instruction_following_loose):
            result = test(example, response)
            bits.append("".join("01"[bool(followed)] for followed in result.follow_instruction_list))
        return bits


def own_parameters():
    from nltk.tokenize.punkt import PunktParameters

    parameters, section = PunktParameters(), ""
    path = HERE.parent / "crates/patarm-eval/src/nltk/english.txt"
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            continue
        if line.startswith("[") and line.endswith("]"):
            section = line
        elif section == "[abbreviations]":
            parameters.abbrev_types.add(line)
        elif section == "[starters]":
            parameters.sent_starters.add(line)
        else:
            word, flags = line.split("\t")
            parameters.ortho_context[word] = int(flags)
    return parameters


def write(path, rows):
    raw = io.BytesIO()
    with gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=9, mtime=0) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode("utf-8") + b"\n")
    path.write_bytes(raw.getvalue())


def main():
    parser = argparse.ArgumentParser()
    for name in ("--prompts", "--reference", "--punkt"):
        parser.add_argument(name, required=True)
    options = parser.parse_args()
    os.environ.setdefault("NLTK_DATA", str(Path(options.punkt).resolve().parents[2]))
    reference = Reference(options.reference)
    from nltk.tokenize.punkt import load_punkt_params

    published = load_punkt_params(options.punkt)
    with open(options.prompts, encoding="utf-8") as file:
        prompts = [json.loads(line) for line in file]
    rows = []
    for p in prompts:
        for response in responses(p["key"], p["instruction_id_list"], p["kwargs"]):
            rows.append([p, response])
    results = []
    for parameters in (own_parameters(), published):
        reference.use(parameters)
        results.append([reference.check(p["instruction_id_list"], p["kwargs"], p["prompt"], r) for p, r in rows])
    own, theirs = results
    out = []
    for (p, response), a, b in zip(rows, own, theirs):
        out.append([p["key"], response, *a, *(b if b != a else [])])
    write(HERE / "ifeval/prompts.jsonl.gz", [[p["key"], p["instruction_id_list"], p["kwargs"]] for p in prompts])
    write(HERE / "ifeval/responses.jsonl.gz", out)
    verdicts = sum(len(a[0]) for a in own)
    strict = sum(a[0].count("1") for a in own)
    loose = sum(a[1].count("1") for a in own)
    differ = sum(x != y for a, b in zip(own, theirs) for s, t in zip(a, b) for x, y in zip(s, t))
    print(f"{len(out)} responses, {verdicts} verdicts, {strict} strict, {loose} loose; {differ} of {2 * verdicts} differ by parameters")


if __name__ == "__main__":
    main()
