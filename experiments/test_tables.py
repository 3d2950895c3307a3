"""What is kept of runs says what the runs said, and the documentation says what is kept.

python -m unittest, in this folder.
"""

import contextlib
import io
import json
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import families_table
import ratings
import tables
from measured import Measured
from summarise import credit

EXPERIMENTS = Path(__file__).resolve().parent
KEPT = EXPERIMENTS / "measured"
RESULTS = EXPERIMENTS.parent / "docs/results.md"


def write_lines(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def make_run(folder):
    """The files of a run of three pairs: right, a tie and one without a score."""
    write_lines(folder / "metrics.jsonl", [
        {"num_tokens": 600.0, "train_tokens_per_s": 10.0}, {"num_tokens": 300.0, "train_tokens_per_s": 10.0}])
    write_lines(folder / "evaluations/trained/scores.jsonl", [
        {"id": "a", "cluster": 0, "chosen_score": 0.1 + 0.2, "rejected_score": -1.5},
        {"id": "b", "cluster": 1, "chosen_score": 2.0, "rejected_score": 2.0},
        {"id": "c", "cluster": 1, "chosen_score": None, "rejected_score": 1.0}])
    (folder / "evaluations/trained/result.json").write_text(json.dumps({
        "accuracy": {"num_pairs": 3, "fault_share": 1 / 6},
        "baselines": {"longer_wins": {"half_credit": {"value": 0.5}}},
        "calibration": None,
        "length_bias": {"correlation": 0.25, "chosen_longer": {"value": 0.5}, "chosen_shorter": None}}))


class Kept(unittest.TestCase):
    def test_a_kept_run_is_the_run(self):
        with tempfile.TemporaryDirectory() as folder:
            run, path = Path(folder) / "run", Path(folder) / "kept.jsonl"
            make_run(run)
            before = Measured.of_run(run)
            before.write(path)
            after = Measured.kept(path)
        self.assertEqual(before, after)
        self.assertEqual(after.credits(), {"a": (1.0, 0), "b": (0.5, 1), "c": (0.5, 1)})
        self.assertEqual(after.rewards(), {"a": ((0.3, -1.5), 0), "b": ((2.0, 2.0), 1)})
        self.assertEqual((after.tokens, after.minutes), (900, 1.5))
        self.assertIsNone(after.result["calibration_error"])

    def test_credits(self):
        pairs = [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (None, 1.0)]
        self.assertEqual([credit(*pair) for pair in pairs], [1.0, 0.0, 0.5, 0.5])


class Tables(unittest.TestCase):
    def test_a_seed_that_was_not_run_is_a_dash(self):
        self.assertEqual(tables.by_seed({1: {"a": (0.5, 0)}, 2: {"a": (1.0, 0)}}), "– / 50.0 / 100.0")

    def test_columns_without_anything_are_left_out(self):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            tables.table(("family", "against the first", "empty"), [["a", "–", "–"], ["b", "–", "–"]])
        self.assertEqual(printed.getvalue(), "| family | against the first |\n| --- | --- |\n| a | – |\n| b | – |\n")

    def test_ratings_and_their_thirds(self):
        run = mock.Mock()
        run.rewards.return_value = {"a": ((9.0, 1.0), 0), "b": ((6.4, 3.6), 1), "c": ((6.6, 3.4), 2)}
        found = ratings.in_zone(run, {pair: ("good", "bad") for pair in "abc"})
        self.assertEqual([found["a", side][0] for side in (0, 1)], [1.0, 1.0])
        self.assertEqual([found["b", side][0] for side in (0, 1)], [0.0, 0.0])
        self.assertEqual([found["c", side][0] for side in (0, 1)], [1.0, 1.0])


class Documentation(unittest.TestCase):
    def test_results_stand_in_the_documentation(self):
        printed = io.StringIO()
        cost = ["--cost", str(KEPT / "scoring_cost.md")]
        with contextlib.redirect_stdout(printed), mock.patch("sys.argv", ["", str(KEPT), *cost]):
            families_table.main()
        documented = set(RESULTS.read_text().splitlines())
        rows = [line for line in printed.getvalue().splitlines() if line.startswith(("| ", "**"))]
        self.assertGreater(len(rows), 20)
        self.assertEqual([row for row in rows if row not in documented], [])


if __name__ == "__main__":
    unittest.main()
