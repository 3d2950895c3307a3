"""Makes the compressed and columnar fixtures here. Needs `pyarrow`.

    python testdata/text/datasets/make_binary.py
"""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent


def message(role, content):
    return {"role": role, "content": content}


ROWS = [
    {
        "prompt": [message("user", "Hi é")],
        "chosen": [message("assistant", "Hello")],
        "rejected": [message("assistant", "No")],
        "score_chosen": 4.5,
        "score_rejected": 1.0,
        "subset": None,
        "num_turns": 1,
    },
    {
        "prompt": [message("system", "S"), message("user", "Q")],
        "chosen": [message("assistant", "")],
        "rejected": [message("assistant", "b")],
        "score_chosen": None,
        "score_rejected": None,
        "subset": "math-prm",
        "num_turns": 2,
    },
]
STRINGS = [{"prompt": f"p{i}", "chosen": f"c{i}", "rejected": f"r{i}"} for i in range(5)]


def main():
    pq.write_table(pa.Table.from_pylist(ROWS), HERE / "messages.parquet", compression="snappy")
    table = pa.Table.from_pylist(STRINGS)
    pq.write_table(table, HERE / "strings.parquet", compression="zstd", row_group_size=2)
    whole = (HERE / "strings.parquet").read_bytes()
    (HERE / "truncated.parquet").write_bytes(whole[: len(whole) // 2])
    text = "".join(json.dumps(row) + "\n" for row in STRINGS).encode()
    packed = gzip.compress(text[:60], mtime=0) + gzip.compress(text[60:], mtime=0)
    (HERE / "two_members.jsonl.gz").write_bytes(packed)
    (HERE / "truncated.jsonl.gz").write_bytes(gzip.compress(text, mtime=0)[:-20])
    (HERE / "array.json.gz").write_bytes(gzip.compress(json.dumps(STRINGS).encode(), mtime=0))


if __name__ == "__main__":
    main()
