#!/usr/bin/env python3
"""Do the judgements kept from a teacher agree with the label, without exception?

usage: check_teacher.py LABELS.jsonl COLD_START.jsonl…
"""

import json
import re
import sys
from collections import defaultdict


def rows(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def main():
    chosen = {row["prompt"]: row["chosen"] for row in rows(sys.argv[1])}
    for path in sys.argv[2:]:
        scores = defaultdict(lambda: {True: [], False: []})
        kept = rows(path)
        for record in kept:
            parts = record["item"]["prompt"]["messages"][-1]["content"]
            prompt = "".join(part["text"] for part in parts)
            is_chosen = record["item"]["response"] == chosen[prompt]
            score = int(re.findall(r"<score>(\d+)</score>", record["judgement"])[-1])
            scores[prompt][is_chosen].append(score)
        mean = lambda values: sum(values) / len(values)
        wrong = [prompt for prompt, sides in scores.items()
                 if not (sides[True] and sides[False] and mean(sides[True]) > mean(sides[False]))]
        print(f"{path}: {len(kept)} judgements of {len(scores)} of {len(chosen)} prompts kept, "
              f"{len(wrong)} prompts disagree with the label")
        if wrong:
            sys.exit(1)


if __name__ == "__main__":
    main()
