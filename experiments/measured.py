"""What a table needs of a run: read from its directory, or from the small file that is kept.

Runs are large and their weights are thrown away; `write` keeps their held-out scores, without
any text, in one file of a few kilobytes, from which every table can be made again.
"""

import json
import math
import statistics
from dataclasses import asdict, dataclass

from summarise import credit, rows

# A 32-bit reward survives nine digits, so that what was a tie stays one and nothing becomes one.
DIGITS = 9


@dataclass
class Measured:
    """One finished run.

    `pairs` are rows of id, prompt, chosen and rejected score (null where there is none) of the
    held-out pairs; `plain` the same pairs without a planted word. `steps` is the result of a
    model of steps. `minutes` is the time of the updates.
    """

    tokens: int
    minutes: float | None
    pairs: list
    plain: list
    result: dict | None
    steps: dict | None

    @staticmethod
    def of_run(folder):
        """The run that a folder holds."""
        evaluations = folder / "evaluations"
        updates = rows(folder / "metrics.jsonl")
        return Measured(
            tokens=round(sum(row.get("num_tokens") or 0 for row in updates)),
            minutes=minutes(updates),
            pairs=scored_pairs(evaluations / "trained"),
            plain=scored_pairs(evaluations / "plain"),
            result=summary(evaluations / "trained/result.json"),
            steps=read_json(folder / "held_out_steps.json"))

    @staticmethod
    def kept(path):
        """The run that a kept file describes."""
        whole, *lines = rows(path)
        parts = {"pairs": [], "plain": []}
        for part, *row in lines:
            parts[part].append(row)
        return Measured(**whole, **parts)

    def write(self, path):
        """Keeps it, a pair a line, so that two files can be compared."""
        whole = asdict(self)
        lines = [[part, *row] for part in ("pairs", "plain") for row in whole.pop(part)]
        path.write_text("".join(json.dumps(line) + "\n" for line in [whole, *lines]))

    def credits(self, part="pairs"):
        """Credit and prompt of every pair by its id: one half for ties and what has no score."""
        return {pair: (credit(chosen, rejected), prompt) for pair, prompt, chosen, rejected in getattr(self, part)}

    def rewards(self):
        """Rewards of both sides of every pair that has both, with its prompt, by its id."""
        return {pair: ((chosen, rejected), prompt) for pair, prompt, chosen, rejected in self.pairs
                if None not in (chosen, rejected)}


def read_json(path):
    return json.loads(path.read_text()) if path.exists() else None


def minutes(updates):
    """Time of the updates: that of the median one for all, so that a pause counts little."""
    seconds = [(row.get("num_tokens") or 0) / row["train_tokens_per_s"] + (row.get("rollout_seconds") or 0)
               for row in updates if row.get("train_tokens_per_s")]
    return rounded(len(seconds) * statistics.median(seconds) / 60) if seconds else None


def rounded(value):
    return value if value is None or not math.isfinite(value) else float(f"{value:.{DIGITS}g}")


def scored_pairs(folder):
    return [[row["id"], row["cluster"], rounded(row.get("chosen_score")), rounded(row.get("rejected_score"))]
            for row in rows(folder / "scores.jsonl")]


def summary(path):
    """The parts of a result that scores alone do not tell."""
    result = read_json(path)
    if result is None:
        return None
    bias = result["length_bias"]
    return {
        "num_pairs": result["accuracy"]["num_pairs"],
        "fault_share": result["accuracy"]["fault_share"],
        "longer_wins": result["baselines"]["longer_wins"]["half_credit"]["value"],
        "calibration_error": rounded((result.get("calibration") or {}).get("expected_calibration_error")),
        "length_correlation": rounded(bias["correlation"]),
        "chosen_longer": value(bias["chosen_longer"]),
        "chosen_shorter": value(bias["chosen_shorter"]),
    }


def value(part):
    return part["value"] if part else None
