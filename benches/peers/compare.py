"""Runs `patarm bench` and its peers in turn, on the same shapes in the same minutes,
and prints one table of ratios.

    python benches/peers/compare.py --patarm target/release/patarm --python VENV/bin/python

The peer's faster precision counts; both are shown. --rounds repeats everything and
reports medians over rounds, so that a busy minute does not decide.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
# name, arguments of `patarm bench`, arguments of the peer, what is compared
WORK = {
    "train": (["train"], ["train"], "tokens_per_s"),
    "decode 1": (["rollout", "--rows", "1"], ["rollout", "--rows", "1"], "decode_tokens_per_s"),
    "decode 8": (["rollout", "--rows", "8"], ["rollout", "--rows", "8"], "decode_tokens_per_s"),
    "decode 32": (["rollout", "--rows", "32"], ["rollout", "--rows", "32"], "decode_tokens_per_s"),
    "score texts": (["score"], ["score"], "tokens_per_s"),
    "score 32 x 8": (
        ["score", "--rows", "32", "--prompt", "400", "--length", "150"],
        ["score", "--rows", "32", "--prompt", "400", "--length", "150"],
        "steps_per_s",
    ),
    "grpo": (["grpo"], ["grpo"], "steps_per_s"),
}


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    found["steps_per_s"] = 1 / found["seconds"]
    return found


def ours(options, arguments):
    command = [options.patarm, "bench", *arguments, "--shape", "smollm2-135m", "--json"]
    return run([*command, "--threads", str(options.threads), "--repeats", str(options.repeats)])


def theirs(options, arguments, precision):
    command = [options.python, os.path.join(HERE, "peer.py"), *arguments, "--precision", precision]
    if arguments[0] == "grpo":
        command += ["--tokenizer-folder", options.models, "--repeats", "1"]
    else:
        command += ["--repeats", str(options.repeats)]
    return run([*command, "--threads", str(options.threads)])


def measure(options, name):
    """Medians over rounds: ours, and the peer in each precision."""
    own, peer, figure = WORK[name]
    precisions = ["bf16"] if name == "grpo" else options.precisions
    runs = {"patarm": []} | {precision: [] for precision in precisions}
    for _ in range(options.rounds):
        runs["patarm"].append(ours(options, own))
        for precision in precisions:
            runs[precision].append(theirs(options, peer, precision))
    rate = lambda side: statistics.median(found[figure] for found in runs[side])
    memory = lambda side: max(found["peak_memory_bytes"] for found in runs[side]) / 2**30
    best = max(precisions, key=rate)
    return {
        "work": name,
        "figure": figure,
        "patarm": rate("patarm"),
        "peer": {precision: rate(precision) for precision in precisions},
        "ratio": rate("patarm") / rate(best),
        "memory_gib": {"patarm": memory("patarm"), best: memory(best)},
        "load": os.getloadavg()[0],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patarm", default="target/release/patarm")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--models", default="target/models", help="folder of the packaged GGUF")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--precisions", nargs="+", default=["bf16", "f32"])
    parser.add_argument("--work", nargs="+", choices=list(WORK), default=list(WORK))
    options = parser.parse_args()
    print("| work | figure | patarm | peer | ratio | memory GiB, ours / peer |\n|---|---|---|---|---|---|")
    for name in options.work:
        row = measure(options, name)
        peer = ", ".join(f"{key} {value:.3g}" for key, value in row["peer"].items())
        memory = " / ".join(f"{value:.2f}" for value in row["memory_gib"].values())
        print(
            f"| {name} | {row['figure']} | {row['patarm']:.4g} | {peer} | {row['ratio']:.2f} | {memory} |",
            flush=True,
        )
        print(json.dumps(row), file=sys.stderr)


if __name__ == "__main__":
    main()
