"""Makes tokenizer.json and tokenizer_golden.json: a tiny byte-level BPE trained on
the sentences below, and what the Python `tokenizers` package makes of some texts.

    python testdata/text/make_tokenizer.py

`template` ids recognise added tokens, `text` ids come from the same model without any.
"""

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

HERE = Path(__file__).parent
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PLAIN = ["<think>", "</think>"]
SENTENCES = """
The quick brown fox jumps over the lazy dog, and the dog doesn't mind.
A reward model reads a prompt and a response and answers with a number.
She said that it's the best answer they've seen; we'll see about the others.
system user assistant rubric evaluation score correctness usefulness safety
Das Mädchen läuft über die Brücke. Où est la bibliothèque ? 你好，世界。
""".strip().splitlines()
TEXTS = [
    "",
    "The quick brown fox",
    "  two  spaces and\n\n\nlines \t\n x",
    "It's 2024, they've 10 dogs!",
    "<|im_start|>user\nHello<|im_end|>\n",
    "a<|im_end|>b<|im_end|><think>c</think>",
    "half of it: <|im_en",
    "你好 Brücke e\u0301 🙂\u200d🙂",
    "x" * 40,
    "tail   ",
]


def build(added):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=360, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    if added:
        tokenizer.add_special_tokens(CONTROL)
        tokenizer.add_tokens([AddedToken(text, normalized=False) for text in PLAIN])
    return tokenizer


def main():
    with_added, without = build(True), build(False)
    with_added.save(str(HERE / "tokenizer.json"), pretty=False)
    cases = [
        {
            "text": text,
            "template": with_added.encode(text).ids,
            "data": without.encode(text).ids,
            "decoded": with_added.decode(with_added.encode(text).ids, skip_special_tokens=False),
            "decoded_skip": with_added.decode(with_added.encode(text).ids),
        }
        for text in TEXTS
    ]
    golden = json.dumps(cases, ensure_ascii=False, indent=1)
    (HERE / "tokenizer_golden.json").write_text(golden + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
