"""A judge of a few thousand parameters whose tokens are whole judgements.

One generated token is one judgement, so that a model that small can be trained by the
preference-aware reward within seconds, and everything around it is the real thing.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

#: Prompts: what is to be judged is named by one word.
WORDS = ["fine", "poor"]


def judgement(score: str) -> str:
    """A judgement in the form of the template ``patarm``."""
    return (
        "<rubrics>\nUse (100%): is it of use\n</rubrics>\n"
        f"<evaluation>\nIt is.\n</evaluation>\n<score>{score}</score>"
    )


def judgements() -> list[str]:
    """Ten judgements with a score, and two with a fault."""
    broken = "<score>9</score> no other tags"
    return [judgement(str(score)) for score in range(1, 11)] + [judgement("eleven"), broken]


def save(folder: Path) -> None:
    """Writes the model and its tokenizer."""
    vocabulary = ["<pad>", "<eos>", "<unk>", *WORDS, *judgements()]
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )
    fast.save_pretrained(folder)
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
