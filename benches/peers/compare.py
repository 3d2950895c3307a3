"""Runs `patarm bench` and its peers in turn, on the same shapes in the same minutes,
and prints one table of ratios.

    python benches/peers/compare.py --patarm target/release/patarm --python VENV/bin/python

Every precision of both sides is shown. Training is compared in single precision, where
the peer may choose the faster of its own; elsewhere each of ours stands against the peer's
faster one, and `quantised` (eight bits a weight and an activation) is named as such.
--rounds repeats everything and reports medians over rounds, so that a busy minute does not
decide.
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


def ours(options, arguments, precision):
    command = [options.patarm, "bench", *arguments, "--shape", "smollm2-135m", "--json"]
    command += ["--precision", precision, "--threads", str(options.threads)]
    return run([*command, "--repeats", str(options.repeats)])


def theirs(options, arguments, precision):
    command = [options.python, os.path.join(HERE, "peer.py"), *arguments, "--precision", precision]
    if arguments[0] == "grpo":
        command += ["--tokenizer-folder", options.models, "--repeats", "1"]
    else:
        command += ["--repeats", str(options.repeats)]
    return run([*command, "--threads", str(options.threads)])


def measure(options, name):
    """Medians over rounds of every precision of both sides."""
    own, peer, figure = WORK[name]
    trains = name in ("train", "grpo")
    peers = ["bf16"] if name == "grpo" else options.precisions
    runs = {}
    for _ in range(options.rounds):
        for precision in ["f32"] if trains else options.own_precisions:
            runs.setdefault(("patarm", precision), []).append(ours(options, own, precision))
        for precision in peers:
            runs.setdefault(("peer", precision), []).append(theirs(options, peer, precision))
    rates = {"patarm": {}, "peer": {}}
    memory = {"patarm": {}, "peer": {}}
    for (side, precision), found in runs.items():
        rates[side][precision] = statistics.median(one[figure] for one in found)
        memory[side][precision] = max(one["peak_memory_bytes"] for one in found) / 2**30
    best = max(rates["peer"], key=rates["peer"].get)
    return {
        "work": name,
        "figure": figure,
        "patarm": rates["patarm"],
        "peer": rates["peer"],
        "ratios": {key: rate / rates["peer"][best] for key, rate in rates["patarm"].items()},
        "memory_gib": {"patarm": memory["patarm"], "peer": memory["peer"][best]},
        "load": os.getloadavg()[0],
    }


def cells(values, form):
    return ", ".join(f"{key} {value:{form}}" for key, value in values.items())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patarm", default="target/release/patarm")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--models", default="target/models", help="folder of the packaged GGUF")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--precisions", nargs="+", default=["bf16", "f32"], help="the peer's")
    parser.add_argument("--own-precisions", nargs="+", default=["f32", "quantised"])
    parser.add_argument("--work", nargs="+", choices=list(WORK), default=list(WORK))
    options = parser.parse_args()
    print("| work | figure | patarm | peer | times the peer's faster | memory GiB, ours / peer |")
    print("|---|---|---|---|---|---|")
    for name in options.work:
        row = measure(options, name)
        memory = cells(row["memory_gib"]["patarm"], ".2f")
        print(
            f"| {name} | {row['figure']} | {cells(row['patarm'], '.4g')} | {cells(row['peer'], '.4g')} "
            f"| {cells(row['ratios'], '.2f')} | {memory} / {row['memory_gib']['peer']:.2f} |",
            flush=True,
        )
        print(json.dumps(row), file=sys.stderr)


if __name__ == "__main__":
    main()
