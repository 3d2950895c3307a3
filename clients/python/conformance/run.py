"""Runs every check that its environment allows: ``run.py BINARY [--model M]``.

Starts `patarm serve` on free ports: one with cohorts alone, one with a small scalar model
made here, and one with the model M, which writes judgements. Prints what held and, last, a table for
docs/conformance.md. A check whose packages or models are missing is named as not run.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Iterator

HERE = Path(__file__).resolve().parent
TIMEOUT_S = 1800


@contextlib.contextmanager
def served(binary: str, *arguments: str) -> Iterator[str]:
    """The address of a server."""
    command = [binary, "serve", "--port", "0", "--log-level", "warn", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line.startswith("listening on "):
            raise RuntimeError(f"patarm serve said {line!r}")
        yield line.removeprefix("listening on ").strip()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def run(script: str, *arguments: str) -> dict:
    """The row of a check."""
    command = [sys.executable, str(HERE / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    lines = done.stdout.splitlines()
    print("\n".join(line for line in lines if line.startswith(("ok  ", "FAIL", "     "))))
    rows = [line.removeprefix("ROW ") for line in lines if line.startswith("ROW ")]
    if not rows:
        print(done.stderr[-4000:])
        return {"client": script, "versions": {}, "checks": 0, "failed": ["it did not finish"]}
    return json.loads(rows[-1])


def plan(par: str, judge: str | None, scalar: str, folder: str):
    """Script, packages it needs, and arguments (None = a model is missing)."""
    yield "check_trl.py", ["trl"], [scalar]
    yield "check_verl.py", ["verl", "ray"], [par, scalar, folder]
    yield "check_openai.py", ["openai"], [judge] if judge else None
    yield "check_hub.py", ["huggingface_hub"], [scalar]
    yield "check_openrlhf.py", ["torch"], [scalar]


def scalar_model(stack: contextlib.ExitStack) -> str:
    """The folder of a small scalar model."""
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    subprocess.run([sys.executable, str(HERE / "make_scalar.py"), folder], check=True)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary")
    parser.add_argument("--model", help="a model that writes judgements")
    options = parser.parse_args()
    rows = []
    with contextlib.ExitStack() as stack:
        start = lambda *arguments: stack.enter_context(served(options.binary, *arguments))
        par = start("--par-only")
        limits = ("--max-tokens", "48", "--template", "patarm-short", "--fault-score", "0")
        judge = start("--model", options.model, *limits) if options.model else None
        folder = scalar_model(stack)
        scalar = start("--model", folder)
        for script, packages, arguments in plan(par, judge, scalar, folder):
            missing = [name for name in packages if importlib.util.find_spec(name) is None]
            if missing or arguments is None:
                why = f"without {', '.join(missing)}" if missing else "without its model"
                print(f"not run: {script}, {why}")
                continue
            rows.append(run(script, *arguments))
    print("\n| client | versions | checks | failed |\n|---|---|---|---|")
    for row in rows:
        versions = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
        print(f"| {row['client']} | {versions} | {row['checks']} | {'; '.join(row['failed']) or 'none'} |")
    sys.exit(1 if any(row["failed"] for row in rows) else 0)


if __name__ == "__main__":
    main()
