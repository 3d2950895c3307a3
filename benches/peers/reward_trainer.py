"""Bradley-Terry training against TRL's RewardTrainer: the same pairs in the same order
from the same weights, f32, no dropout. Prints the speed of both, the difference of
their losses in means over windows, and writes the curves.

    python benches/peers/reward_trainer.py PAIRS GGUF --out OUT --steps 50

PAIRS has rows {"prompt", "chosen", "rejected"}; GGUF is the base model. A scalar
checkpoint with a head of zeros is made from it first, from which both begin. The pairs
are cut to `--tokens` a side here, so that both trainers read the same text.

The peer runs as its users run it: padded batches, the chat template of the tokenizer,
no gradient checkpointing (its default trades speed for memory). A token is one of a
padded-free row: prompt and response of one side, whatever either trainer computes.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path


def start(options):
    """The checkpoint both begin from."""
    import torch
    import transformers

    folder = options.out / "start"
    if (folder / "model.safetensors").exists():
        return folder
    place = {"gguf_file": options.gguf.name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.gguf.parent, **place)
    body = transformers.AutoModelForCausalLM.from_pretrained(options.gguf.parent, dtype=torch.float32, **place)
    # The weights are single precision now.
    if hasattr(body.config, "quantization_config"):
        del body.config.quantization_config
    body.config.pad_token_id = tokenizer.pad_token_id
    body.config.num_labels = 1
    model = transformers.AutoModelForSequenceClassification.from_config(body.config)
    model.model.load_state_dict(body.model.state_dict())
    torch.nn.init.zeros_(model.score.weight)
    model.float().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def pairs(options, tokenizer):
    """Pairs whose sides have at most so many tokens, longest first cut at the end."""
    made = []
    for line in options.pairs.read_text().splitlines():
        row = json.loads(line)
        cut = {name: first_tokens(row[name], tokenizer, options.tokens // 2) for name in ("prompt", "chosen", "rejected")}
        if cut["chosen"] != cut["rejected"]:
            made.append(cut)
    wanted = options.steps * options.batch
    if len(made) < wanted:
        sys.exit(f"{options.pairs}: {len(made)} pairs, {wanted} are needed")
    (options.out / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made[:wanted]))
    return made[:wanted]


def first_tokens(text, tokenizer, count):
    return tokenizer.decode(tokenizer(text)["input_ids"][:count], skip_special_tokens=True)


def theirs(options, folder, rows):
    import datasets
    import torch
    import transformers
    import trl

    torch.set_num_threads(options.threads)
    marks, losses, tokens = [], [], []

    class Clock(transformers.TrainerCallback):
        def on_step_begin(self, *_, **__):
            marks.append([time.perf_counter()])

        def on_step_end(self, *_, **__):
            marks[-1].append(time.perf_counter())

        def on_log(self, *_, logs=None, **__):
            if "loss" in logs:
                losses.append(logs["loss"])

    def turn(role, content):
        return {"role": role, "content": content}

    data = datasets.Dataset.from_list([
        {"chosen": [turn("user", row["prompt"]), turn("assistant", row["chosen"])],
         "rejected": [turn("user", row["prompt"]), turn("assistant", row["rejected"])]} for row in rows])
    arguments = trl.RewardConfig(
        output_dir=str(options.out / "trl"), per_device_train_batch_size=options.batch, max_steps=options.steps,
        learning_rate=options.learning_rate, lr_scheduler_type="constant", warmup_steps=0, max_grad_norm=1.0,
        weight_decay=0.0, train_sampling_strategy="sequential", gradient_checkpointing=False, bf16=False,
        use_cpu=True, logging_steps=1, save_strategy="no", report_to=[], disable_tqdm=True, max_length=None)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    trainer = trl.RewardTrainer(
        model=model, args=arguments, train_dataset=data, processing_class=tokenizer, callbacks=[Clock()])
    for batch in trainer.get_train_dataloader():
        tokens.append(int(batch["attention_mask"].sum()))
    trainer.train()
    return {"losses": losses, "seconds": [end - begin for begin, end in marks], "tokens": tokens[:options.steps]}


def ours(options, folder):
    run = options.out / "patarm"
    changes = {
        "model": f'"{folder}"', "data.train": f'"{options.out / "pairs.jsonl"}"', "data.held_out_share": "0.0",
        "data.max_prompt_tokens": "4096", "data.max_response_tokens": "4096", "parameters.freeze_below": "0",
        "bradley_terry.loss.centring": "0.0", "bradley_terry.schedule.order": '"as_given"',
        "bradley_terry.schedule.batch": str(options.batch), "bradley_terry.schedule.steps": str(options.steps),
        "bradley_terry.optimizer": "{ learning_rate = %g, warmup_steps = 0, final_share = 1.0, beta2 = 0.999, "
                                   "eps = 1e-8, weight_decay = 0.0, max_norm = 1.0 }" % options.learning_rate,
        "evaluation.every": "0", "evaluation.pairs": "0", "evaluation.stage_pairs": "0", "checkpoint.every": "100000"}
    command = [options.patarm, "--precision", "f32", "--threads", str(options.threads), "train",
               "recipes/bradley_terry.toml", "--out", str(run)]
    for key, value in changes.items():
        command += ["--set", f"{key}={value}"]
    subprocess.run(command, check=True)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "loss" in row]
    return {"losses": [row["loss"] for row in rows], "computed": [row["num_tokens"] for row in rows],
            "tokens": [row["num_row_tokens"] for row in rows],
            "seconds": [row["num_tokens"] / row["train_tokens_per_s"] for row in rows]}


def as_run(folder, result):
    """The peer's curve as a run directory: `patarm report OUT/patarm OUT/trl` overlays both."""
    folder.mkdir(exist_ok=True)
    rows = [{"phase": "bradley_terry", "step": step, "loss": loss}
            for step, loss in enumerate(result["losses"], start=1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def speed(result, count):
    """Median tokens a second over the steps after the first two: on a shared machine the
    slow minutes of one side must not decide."""
    steps = zip(result["tokens"][2:count], result["seconds"][2:count])
    return statistics.median(tokens / seconds for tokens, seconds in steps)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=200, help="most tokens of a side's text")
    parser.add_argument("--window", type=int, default=50, help="updates whose mean loss is compared")
    parser.add_argument("--learning-rate", type=float, default=1e-5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--patarm", default="target/release/patarm")
    return parser.parse_args()


def main():
    import transformers

    options = arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    options.out = options.out.resolve()
    folder = start(options)
    rows = pairs(options, transformers.AutoTokenizer.from_pretrained(folder))
    results = {"patarm": ours(options, folder), "trl": theirs(options, folder, rows)}
    (options.out / "result.json").write_text(json.dumps(results))
    as_run(options.out / "trl", results["trl"])
    mine, other = results["patarm"], results["trl"]
    count = min(len(mine["losses"]), len(other["losses"]))
    same = mine["tokens"][:count] == other["tokens"][:count]
    windows = [statistics.mean(mine["losses"][at:at + options.window])
               - statistics.mean(other["losses"][at:at + options.window])
               for at in range(0, count, options.window)]
    largest = max(abs(a - b) for a, b in zip(mine["losses"], other["losses"]))
    print(json.dumps({
        "steps": count, "pairs": options.batch * count, "same_tokens": same, "tokens": sum(mine["tokens"][:count]),
        "patarm_tokens_per_s": speed(mine, count), "trl_tokens_per_s": speed(other, count),
        "ratio": speed(mine, count) / speed(other, count),
        "largest_difference_of_window_means": max(map(abs, windows)), "largest_difference": largest}))


if __name__ == "__main__":
    main()
