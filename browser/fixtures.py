"""Results to be reported: real evaluations of drawn scores by the real program, and a
training run as the trainer leaves it."""

import json
import math
import os
import pathlib
import random
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
SUBSETS = ["off_topic", "truncated", "shuffled", "a_subset_with_quite_a_long_name_to_test_wrapping"]
HOSTILE = "</pre><script>document.title='broken'</script><img src=x onerror=\"document.title='broken'\">"


def patarm(*arguments):
    """Runs the program."""
    program = os.environ.get("PATARM_BIN", str(ROOT / "target" / "debug" / "patarm"))
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"patarm {' '.join(map(str, arguments))}: {done.stderr}")
    return done.stdout


def write_rows(path, rows):
    """JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def comparisons(count=240):
    """Pairs whose right side is a little longer on average."""
    draw = random.Random(1)
    rows = []
    for index in range(count):
        chosen = "a good answer " * draw.randint(2, 9)
        rejected = "an off-topic answer " * draw.randint(1, 7)
        row = {"id": f"pair-{index}", "prompt": f"question {index} {HOSTILE}"}
        rows.append(row | {"chosen": chosen, "rejected": rejected, "subset": SUBSETS[index % 4]})
    return rows


def pair_scores(rows, lift, seed):
    """Scores of a judge that is right more often, the larger its lift."""
    draw = random.Random(seed)
    for row in rows:
        for response, sign in ((0, 1), (1, -1)):
            score = min(10, max(1, round(5.5 + sign * lift + draw.gauss(0, 2))))
            score = None if draw.random() < 0.02 else score
            yield {"item": row["id"], "response": response, "score": score}


def prm_rows(count=60):
    """Solutions in steps with planted errors."""
    draw = random.Random(2)
    classes = [
        "redundency", "circular", "counterfactual", "step_contradiction", "domain_inconsistency",
        "confidence", "missing_condition", "deception", "multi_solutions",
    ]
    rows = []
    for index in range(count):
        kind = classes[index % 9]
        steps = [f"{number}. step of solution {index}" for number in range(draw.randint(3, 12))]
        wrong = [] if kind == "multi_solutions" else [draw.randint(1, len(steps))]
        rows.append({
            "idx": f"p{index // 9}", "classification": kind, "modified_question": f"p{index // 9}",
            "modified_process": steps, "error_steps": wrong,
        })
    return rows


def step_scores(rows, skill, seed):
    """A probability a step."""
    draw = random.Random(seed)
    for row in rows:
        values = []
        for number in range(1, len(row["modified_process"]) + 1):
            sign = -1 if number in row["error_steps"] else 1
            values.append(1 / (1 + math.exp(-(1 + sign * skill + draw.gauss(0, 1)))))
        yield {"item": f"{row['classification']}_{row['idx']}", "steps": values}


def training_run(folder):
    """A run directory."""
    folder.mkdir(parents=True)
    draw = random.Random(3)
    rows = []
    for step in range(60):
        rows.append({"step": step, "phase": "sft", "loss": 2.3 * math.exp(-step / 15) + 0.3})
    for step in range(80):
        rise = 1 / (1 + math.exp(-(step - 30) / 9))
        rows.append({
            "step": step, "phase": "grpo", "pair_accuracy": 0.5 + 0.3 * rise + draw.gauss(0, 0.04),
            "reward_mean": 0.4 + 0.5 * rise, "kl": 0.02 * rise, "entropy": 1.4 - 0.3 * rise,
            "fault_missing_tag": 0.02 * draw.random(), "rollout_tokens_per_s": 640 + draw.gauss(0, 9),
        })
    write_rows(folder / "metrics.jsonl", rows)
    (folder / "recipe.toml").write_text("seed = 1\n[grpo]\nsteps = 80\n")


def results(folder):
    """Folders to be reported, by name."""
    rows = comparisons()
    write_rows(folder / "pairs.jsonl", rows)
    write_rows(folder / "base.jsonl", pair_scores(rows, 0.1, 4))
    solutions = prm_rows()
    write_rows(folder / "prm.jsonl", solutions)
    made = {}
    for name, lift in (("cold", 0.4), ("trained", 1.6)):
        write_rows(folder / f"{name}.jsonl", pair_scores(rows, lift, 5))
        made[name] = folder / f"pairs-{name}"
        patarm(
            "eval", "pairs", "--data", folder / "pairs.jsonl", "--scores", folder / f"{name}.jsonl",
            "--base-scores", folder / "base.jsonl", "--out", made[name],
        )
    write_rows(folder / "steps.jsonl", step_scores(solutions, 1.2, 6))
    made["steps"] = folder / "prmbench"
    patarm(
        "eval", "prmbench", "--data", folder / "prm.jsonl", "--scores", folder / "steps.jsonl",
        "--out", made["steps"],
    )
    made["run"] = folder / "run"
    training_run(made["run"])
    return made
