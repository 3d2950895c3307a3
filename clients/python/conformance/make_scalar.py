"""Writes a scalar reward model of a few thousand parameters: ``make_scalar.py FOLDER``.

Its weights are drawn from a fixed seed, so its scores mean nothing and repeat. Its
tokenizer is the small one of this repository's tests, with the ChatML template.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

TOKENIZER = Path(__file__).resolve().parents[3] / "testdata" / "text" / "tokenizer.json"
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def save(folder: Path) -> None:
    """Model and tokenizer in Hugging Face layout."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(TOKENIZER), eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(folder)
    torch.manual_seed(11)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=2048,
        num_labels=1,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    LlamaForSequenceClassification(config).save_pretrained(folder)


if __name__ == "__main__":
    save(Path(sys.argv[1]))
