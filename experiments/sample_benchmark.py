#!/usr/bin/env python3
"""A small sample of a large benchmark file: the same number of short rows of each part.

usage: sample_benchmark.py FILE FIELD ROWS CHARACTERS >SAMPLE

Of every value of FIELD (`subset`, `domain`) the first ROWS rows, in the order of a hash of
their ids, whose prompt and longest response have at most CHARACTERS characters together.
For measurements on a machine that cannot do all of it; such figures speak of short rows
only. Needs the standard library only.
"""

import gzip
import hashlib
import json
import sys
from collections import defaultdict


def responses(row):
    sides = [row["chosen"], row["rejected"]]
    return [text for side in sides for text in (side if isinstance(side, list) else [side])]


def main():
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    path, field, count, limit = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    opened = gzip.open if path.endswith(".gz") else open
    parts = defaultdict(list)
    with opened(path, "rt", encoding="utf-8") as file:
        for line in filter(str.strip, file):
            row = json.loads(line)
            if len(row["prompt"]) + max(map(len, responses(row))) <= limit:
                place = hashlib.sha256(f"{row[field]}/{row['id']}".encode()).digest()
                parts[row[field]].append((place, line))
    for part in sorted(parts):
        for _, line in sorted(parts[part])[:count]:
            print(line, end="")


if __name__ == "__main__":
    main()
