"""Builds an RM-Bench-shaped set from solutions that are known to be right or wrong.

    python testdata/make_style_matrix.py example_model_solutions.jsonl humanevalpack/python/data.jsonl > matrix.jsonl

Two kinds of files are understood, by the fields of their rows:

* GSM8K's `example_model_solutions.jsonl` (MIT, openai/grade-school-math): of every
  question with a right and a wrong solution one of each, domain `math`;
* HumanEvalPack (MIT, bigcode-project/octopack): canonical against buggy solution,
  domain `code`.

Each solution is written in three styles: concise (the final answer, or the bare code),
detailed plain (the whole solution as text) and detailed Markdown (the same under
headings, with a list or a fenced block). What is said does not change between styles
beyond that. The set is a stand-in for RM-Bench: its numbers are not comparable with
the leaderboard.
"""

import gzip
import json
import re
import sys


def rows(path):
    opened = gzip.open if path.endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8") as file:
        for line in file:
            if line.strip():
                yield json.loads(line)


def clean(solution):
    """A solution without calculator marks and with its final answer in words."""
    text = re.sub(r"<<[^<>]*>>", "", solution).strip()
    return re.sub(r"\n?####\s*(.*)$", r"\nThe answer is \1.", text).strip()


def math_styles(solution):
    text = clean(solution)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    concise = lines[-1] if lines else ""
    steps = "\n".join(f"- {line}" for line in lines[:-1])
    markdown = f"## Solution\n\n{steps}\n\n**{concise}**"
    return [concise, text, markdown]


def math_items(row, index):
    tries = [row[name] for name in sorted(row) if isinstance(row[name], dict)]
    right = [t["solution"] for t in tries if t.get("is_correct") and t.get("solution")]
    wrong = [t["solution"] for t in tries if not t.get("is_correct") and t.get("solution")]
    if right and wrong:
        chosen, rejected = math_styles(right[0]), math_styles(wrong[0])
        if all(chosen) and all(rejected) and chosen[0] != rejected[0]:
            yield {"id": f"gsm8k-{index}", "prompt": row["question"], "chosen": chosen,
                   "rejected": rejected, "domain": "math"}


def code_styles(row, body):
    code = (row["declaration"] + body).rstrip()
    doc = row.get("docstring", "").strip()
    plain = f"{doc}\n\nThis is a solution:\n\n{code}\n\nIt follows the description above."
    markdown = f"## Task\n\n> {doc}\n\n## Solution\n\n```\n{code}\n```\n\nIt **follows the description** above."
    return [code, plain, markdown]


def code_items(row, index):
    chosen = code_styles(row, row["canonical_solution"])
    rejected = code_styles(row, row["buggy_solution"])
    yield {"id": f"{row['task_id']}-{index}", "prompt": row["instruction"], "chosen": chosen,
           "rejected": rejected, "domain": "code"}


def main(paths):
    for path in paths:
        for index, row in enumerate(rows(path)):
            make = code_items if "buggy_solution" in row else math_items
            for item in make(row, index):
                print(json.dumps(item, ensure_ascii=False))


if __name__ == "__main__":
    main(sys.argv[1:])
