"""Checks that a checkpoint means the same to transformers (and peft) as to us.

Loads a model folder in Hugging Face layout, and an adapter folder in PEFT
layout if one is given, without any conversion, and compares the
log-probability of every token with those that our own tool wrote:

    patarm model logprobs CHECKPOINT --input ids.jsonl > ours.jsonl
    python testdata/check_checkpoints.py CHECKPOINT ours.jsonl
    python testdata/check_checkpoints.py BASE ours.jsonl --adapter ADAPTER

Every line of the file is {"ids": [...], "logprobs": [null, ...]}, where
logprobs[i] is ln p(ids[i] | ids[..i]). Lines are run one by one in float32 on
the CPU, whatever type the weights are stored in. Prints one line for each
sequence and `ok` or `FAIL`; the exit status is 0 or 1, and 2 for bad input.

Scalar reward models are compared by their scores, from the text on: the chat
template and the tokenizer are those of transformers too.

    patarm score --model CHECKPOINT --input items.jsonl --out scores.jsonl
    python testdata/check_checkpoints.py CHECKPOINT scores.jsonl --items items.jsonl

where every item is {"id": ..., "prompt": text or messages, "response": ...}.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
import transformers


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="model folder in Hugging Face layout")
    parser.add_argument("rows", type=Path, help="JSONL of ids and log-probabilities")
    parser.add_argument("--items", type=Path,
                        help="JSONL of items: the model is a scalar reward model, ROWS its scores")
    parser.add_argument("--adapter", type=Path, help="adapter folder in PEFT layout")
    parser.add_argument("--tolerance", type=float, default=1e-3,
                        help="largest absolute difference of a log-probability (default 1e-3)")
    return parser.parse_args()


def read_rows(path):
    """The rows of the file; anything that is not a row as documented ends the program."""
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line.strip():
            continue
        row = json.loads(line)
        ids, logprobs = row.get("ids"), row.get("logprobs")
        if not ids or logprobs is None or len(ids) != len(logprobs) or logprobs[0] is not None:
            bad_input(f"{path}: line {number}: ids and logprobs of one length, the first null, expected")
        if any(value is None for value in logprobs[1:]):
            bad_input(f"{path}: line {number}: only the first log-probability may be null")
        rows.append((ids, logprobs))
    if not any(len(ids) > 1 for ids, _ in rows):
        bad_input(f"{path}: there is nothing to compare")
    return rows


def bad_input(sentence):
    print(sentence, file=sys.stderr)
    sys.exit(2)


def load(model_folder, adapter_folder, is_scalar):
    """The model, strictly: a missing, unexpected or mis-shaped weight is an error."""
    kind, options = transformers.AutoModelForCausalLM, {}
    allowed = set()
    if is_scalar:
        kind = transformers.AutoModelForSequenceClassification
    if is_scalar and adapter_folder is not None:
        # The head comes with the adapter; the base may be a model that writes text.
        options, allowed = {"num_labels": 1}, {"score.weight", "lm_head.weight"}
    model, info = kind.from_pretrained(
        model_folder, dtype=torch.float32, local_files_only=True, output_loading_info=True, **options
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        wrong = {str(key) for key in info.get(kind) or ()} - allowed
        if wrong:
            print(f"FAIL {kind}: {sorted(wrong)[:5]}")
            sys.exit(1)
    if adapter_folder is None:
        return model.eval()
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors.torch import load_file

    model = PeftModel.from_pretrained(model, adapter_folder).float().eval()
    loaded = get_peft_model_state_dict(model)
    stored = load_file(adapter_folder / "adapter_model.safetensors")
    # peft only warns about adapter weights that it cannot place.
    if set(loaded) != set(stored):
        print(f"FAIL adapter keys differ: {sorted(set(loaded) ^ set(stored))[:5]}")
        sys.exit(1)
    return model


def reference_logprobs(model, ids):
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].float()
    logprobs = torch.log_softmax(logits[:-1], -1)
    return logprobs[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]


def read_jsonl(path):
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def check_scores(arguments, model):
    """The largest difference of a score, every item alone and all of them padded."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        arguments.adapter or arguments.model, local_files_only=True
    )
    items = {str(item["id"]): item for item in read_jsonl(arguments.items)}
    texts, ours = [], []
    for row in read_jsonl(arguments.rows):
        if row["score"] is None:
            bad_input(f"item {row['item']} has no score: {row['fault']}")
        item = items[str(row["item"])]
        prompt = item["prompt"]
        messages = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
        messages = messages + [{"role": "assistant", "content": item["response"]}]
        texts.append(tokenizer.apply_chat_template(messages, tokenize=False))
        ours.append(row["score"])
    if not texts:
        bad_input("there is nothing to compare")
    encoded = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    pad = model.config.pad_token_id
    longest = max(map(len, encoded))
    padded = torch.tensor([ids + [pad] * (longest - len(ids)) for ids in encoded])
    mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in encoded])
    with torch.no_grad():
        alone = [model(torch.tensor([ids])).logits[0, 0].item() for ids in encoded]
        together = model(padded, attention_mask=mask).logits[:, 0].tolist()
    worst = 0.0
    for number, (own, one, row) in enumerate(zip(ours, alone, together), start=1):
        difference = max(abs(own - one), abs(own - row))
        print(f"item {number}: {own:.6f}, alone {one:.6f}, padded {row:.6f}")
        worst = max(worst, difference if difference == difference else float("inf"))
    return worst


def finish(worst, tolerance):
    passed = worst <= tolerance
    print(f"{'ok' if passed else 'FAIL'}: largest difference {worst:.2e}, allowed {tolerance:.0e}")
    sys.exit(0 if passed else 1)


def main():
    arguments = parse_arguments()
    model = load(arguments.model, arguments.adapter, arguments.items is not None)
    if arguments.items is not None:
        finish(check_scores(arguments, model), arguments.tolerance)
    rows = read_rows(arguments.rows)
    worst = 0.0
    for number, (ids, logprobs) in enumerate(rows, start=1):
        if len(ids) < 2:
            continue
        ours = torch.tensor(logprobs[1:], dtype=torch.float32)
        # A NaN compares false with everything, so it is turned into a difference that fails.
        difference = (ours - reference_logprobs(model, ids)).abs().nan_to_num(nan=float("inf"))
        print(f"row {number}: {len(ids)} tokens, largest difference {difference.max():.2e}")
        worst = max(worst, difference.max().item())
    finish(worst, arguments.tolerance)


if __name__ == "__main__":
    main()
