"""Fills fuzz/corpus with what the repository has of valid input, so that fuzzing does not
begin with nothing.

    python3 fuzz/seeds.py
"""

import json
import pathlib
import shutil
import struct

FUZZ = pathlib.Path(__file__).resolve().parent
TESTDATA = FUZZ.parent / "testdata"
# How the formats are numbered by the target `datasets`; this one is found from the file.
ANY_FORMAT = 10
MAX_SEED_BYTES = 64 << 10


def put(target, name, data):
    folder = FUZZ / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    if len(data) <= MAX_SEED_BYTES:
        (folder / name).write_bytes(data)


def bodies():
    for file in sorted((TESTDATA / "serve").glob("*.json")):
        for number, exchange in enumerate(json.loads(file.read_text())["exchanges"]):
            body = exchange.get("request")
            if body is not None:
                text = f"{exchange['path']}\n{json.dumps(body)}"
                put("bodies", f"{file.stem}-{number}", text.encode())


def datasets():
    for file in sorted((TESTDATA / "text/datasets").rglob("*")):
        if file.is_file() and not file.name.endswith(".expected.json"):
            put("datasets", file.name, bytes([ANY_FORMAT]) + file.read_bytes())


def gguf():
    def text(value):
        return struct.pack("<Q", len(value)) + value.encode()

    metadata = text("general.architecture") + struct.pack("<I", 8) + text("llama")
    metadata += text("llama.block_count") + struct.pack("<II", 4, 1)
    tensor = text("token_embd.weight") + struct.pack("<IQQIQ", 2, 4, 2, 0, 0)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 2) + metadata + tensor
    head += bytes(-len(head) % 32)
    put("gguf", "small", head + struct.pack("<8f", *range(8)))


def safetensors():
    header = {"__metadata__": {"format": "pt"}}
    for place, dtype in enumerate(["F32", "F16", "BF16"]):
        size = 4 if dtype == "F32" else 2
        offsets = [16 * place, 16 * place + 4 * size]
        header[f"t{place}"] = {"dtype": dtype, "shape": [2, 2], "data_offsets": offsets}
    header["t1"]["data_offsets"], header["t2"]["data_offsets"] = [16, 24], [24, 32]
    text = json.dumps(header).encode()
    put("safetensors", "small", struct.pack("<Q", len(text)) + text + bytes(32))


def templates():
    for file in sorted((TESTDATA / "templates").glob("*.jinja")):
        put("template", file.stem, file.read_bytes() + b"\0hello <|im_end|>")


def verdicts():
    for number, text in enumerate(
        [
            "<think>a</think><rubrics>\n1. Clarity (0.5): is it clear\n</rubrics>"
            "<eval>fine</eval><score>7</score>",
            "<verdict>A</verdict>",
            "<answer>[[B]]</answer>",
            "<rule>- one: two</rule><score>7.5</score><score>",
        ]
    ):
        put("verdict", str(number), text.encode())


def recipes():
    for file in sorted((FUZZ.parent / "recipes").glob("*.toml")):
        put("recipe", file.stem, file.read_bytes() + b"\0seed=1")


def scores():
    rows = [
        {"id": "a", "scores": [1.0, 0.5]},
        {"id": "b", "score": 1, "response": 0},
        {"id": "c", "verdict": "first"},
        {"item": "d", "steps": [0.5, None]},
        {"item": "e", "first_wrong": 2},
    ]
    put("scores", "rows", "\n".join(map(json.dumps, rows)).encode())


def main():
    shutil.rmtree(FUZZ / "corpus", ignore_errors=True)
    for fill in [bodies, datasets, gguf, safetensors, templates, verdicts, recipes, scores]:
        fill()


if __name__ == "__main__":
    main()
