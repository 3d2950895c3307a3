"""TRL's GRPOTrainer against a running server: ``check_trl.py URL FOLDER``.

Trains a tiny judge on preference pairs with the preference-aware reward, and takes steps
with the pointwise and the group reward where the server has a model.
"""

from __future__ import annotations

import math
import sys
import tempfile
from pathlib import Path

import torch
from _report import Report
from _tiny import WORDS, judgements, save
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from patarm_client import Client, PatarmError
from patarm_client.trl import group_reward, par_reward, score_reward

GENERATIONS = 8
STEPS = 30


def pairs(count: int) -> Dataset:
    """Two rows a pair, side by side; the fine response is preferred, on either side."""
    rows = []
    for i in range(count):
        preferred = i % 2
        for side in (0, 1):
            word = WORDS[0] if side == preferred else WORDS[1]
            rows.append({"prompt": word, "pair_id": f"p{i}", "side": side, "preferred_side": preferred})
    return Dataset.from_list(rows)


def trainer(model: Path, reward, data: Dataset, out: str, steps: int) -> GRPOTrainer:
    settings = GRPOConfig(
        output_dir=out,
        per_device_train_batch_size=4 * GENERATIONS,
        num_generations=GENERATIONS,
        max_completion_length=1,
        max_steps=steps,
        learning_rate=2e-2,
        lr_scheduler_type="constant",
        beta=0.0,
        shuffle_dataset=False,
        use_cpu=True,
        bf16=False,
        report_to=[],
        logging_steps=1,
        save_strategy="no",
        disable_tqdm=True,
        seed=5,
    )
    made = GRPOTrainer(model=str(model), reward_funcs=reward, args=settings, train_dataset=data)
    made.remove_callback(PrinterCallback)
    return made


def expected_score(model, tokenizer, word: str) -> float:
    """The mean score of the model's judgements of a word, over judgements that have one."""
    texts = judgements()[:10]
    ids = torch.tensor(tokenizer(word)["input_ids"]).unsqueeze(0)
    with torch.no_grad():
        logits = model(ids).logits[0, -1]
    places = torch.tensor([tokenizer.convert_tokens_to_ids(text) for text in texts])
    weights = torch.softmax(logits[places], 0)
    return float((weights * torch.arange(1, 11)).sum())


def train_a_judge(report: Report, url: str, model: Path, out: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model)
    before = AutoModelForCausalLM.from_pretrained(model)
    reward = par_reward(url, num_generations=GENERATIONS, run_id="conformance")
    run = trainer(model, reward, pairs(2 * STEPS), out, STEPS)
    run.train()
    after = run.model.eval()
    margins = [
        expected_score(one, tokenizer, WORDS[0]) - expected_score(one, tokenizer, WORDS[1])
        for one in (before, after)
    ]
    logs = [entry for entry in run.state.log_history if "reward" in entry]
    report.check("GRPOTrainer takes its steps with par_reward", len(logs) == STEPS, len(logs))
    key = "rewards/patarm_par/mean"
    rewards = [entry[key] for entry in logs]
    report.check("rewards are those of the rule", all(-1.5 <= r <= 1.4 for r in rewards), rewards)
    refused = [entry.get("patarm/refused", -1) for entry in logs]
    report.check("no rollout is refused", set(refused) == {0.0}, set(refused))
    first, last = sum(rewards[:5]) / 5, sum(rewards[-5:]) / 5
    report.check("the mean reward rises", last > first + 0.2, (first, last))
    report.check("the preferred response ends up with the higher score", margins[1] > 1.0, margins)
    report.note(f"mean reward {first:.2f} -> {last:.2f}, score margin {margins[0]:.2f} -> {margins[1]:.2f}")


def has_model(url: str) -> bool:
    try:
        Client(url, retries=0).score([{"prompt": "2 + 2?", "response": "4"}])
    except PatarmError as error:
        if error.code == "model_not_found":
            return False
        raise
    return True


def step_with(report: Report, name: str, reward, model: Path, out: str) -> None:
    # Four different prompts: what fills one generation batch.
    first, second = WORDS
    prompts = [first, second, f"{first} {second}", f"{second} {first}"]
    run = trainer(model, reward, Dataset.from_list([{"prompt": p} for p in prompts]), out, 1)
    run.train()
    logs = [entry for entry in run.state.log_history if f"rewards/{name}/mean" in entry]
    values = [entry[f"rewards/{name}/mean"] for entry in logs]
    is_number = bool(values) and values[0] is not None and math.isfinite(values[0])
    report.check(f"a step with {name}", is_number, logs)
    missing = [entry.get(f"{name}/missing") for entry in logs]
    report.note(f"{name}: mean {values}, share without a score {missing}")


def main() -> None:
    url = sys.argv[1]
    report = Report("TRL GRPOTrainer", "trl", "transformers", "torch")
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        save(model)
        train_a_judge(report, url, model, folder)
        if has_model(url):
            step_with(report, "patarm_score", score_reward(url), model, folder)
            grouped = group_reward(url, num_generations=GENERATIONS)
            step_with(report, "patarm_group", grouped, model, folder)
        else:
            report.note("the server has no model: pointwise and group rewards not tried")
    report.finish()


if __name__ == "__main__":
    main()
