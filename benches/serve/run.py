"""The load table of docs/performance.md: a scalar reward model under every workload, each
answer checked. Needs a release build; nothing else should run on the machine.

    benches/serve/run.sh MODEL --out target/serve-bench [--python PYTHON]

Writes results.json and table.md to the folder. Ends with code 1 when a request was lost,
an answer had another's id, a score depended on the load, a status was not foreseen, memory
grew, or a server did not stop with code 0. Ratios are reported, not judged.

The sizes that are not given fit into ten minutes on two cores; --full takes 10,000 short
requests, 1,000 mixed ones and 100 groups, which is about half an hour. --python names an
interpreter with torch and transformers for the row of one forward a request as trainers'
own servers do it.
"""

import argparse
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SIZES = {"load": 3_000, "mixed": 200, "groups": 30, "rows": 48, "alone": 40}
FULL = {"load": 10_000, "mixed": 1_000, "groups": 100, "rows": 256, "alone": 100}
START_TIMEOUT_S = 300


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="folder of a scalar reward model")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "target/serve-bench")
    parser.add_argument("--patarm", default=str(ROOT / "target/release/patarm"))
    parser.add_argument("--python", help="interpreter with torch and transformers")
    parser.add_argument("--shape", default="smollm2-135m", help="the model's shape, by name")
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--full", action="store_true", help="the sizes of the requirement")
    parser.add_argument("--load", type=int, help="short requests, some damaged or abandoned")
    parser.add_argument("--mixed", type=int, help="requests of 20 to 1,000 tokens")
    parser.add_argument("--groups", type=int, help="prompts with eight responses")
    parser.add_argument("--rows", type=int, help="texts of the offline benchmark")
    parser.add_argument("--alone", type=int, help="requests asked one at a time")
    options = parser.parse_args()
    for name, size in (FULL if options.full else SIZES).items():
        if getattr(options, name) is None:
            setattr(options, name, size)
    return options


@contextlib.contextmanager
def server(command, name, out, faults):
    """A server while the block runs: its address and process. Anything but a clean end
    is a fault."""
    log, address = out / f"{name}.log", out / f"{name}.address"
    with log.open("w") as errors, address.open("w") as listening:
        process = subprocess.Popen(command, stdout=listening, stderr=errors)
    try:
        yield wait_for(address, process, log), process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            code = "none: it had to be killed"
        if code != 0:
            faults.append(f"{name}: the server ended with code {code}")


def wait_for(address, process, log):
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end:
        line = address.read_text()
        if line.endswith("\n"):
            return line.split()[-1]
        if process.poll() is not None:
            sys.exit(f"the server did not start: {log.read_text().strip()[-500:]}")
        time.sleep(0.1)
    process.kill()
    sys.exit("the server did not start in time")


class Bench:
    """Runs benchmarks and keeps their results and faults."""

    def __init__(self, options):
        self.options = options
        self.faults = []

    def patarm(self, *args):
        common = ["--precision", self.options.precision, "--threads", str(self.options.threads)]
        return [self.options.patarm, *args, *common]

    def run(self, name, command):
        print(f"{name} …", flush=True)
        done = subprocess.run([*command, "--json"], capture_output=True, text=True)
        if done.returncode != 0:
            self.faults.append(f"{name}: {done.stderr.strip() or done.returncode}")
        try:
            result = json.loads(done.stdout)
        except json.JSONDecodeError:
            sys.exit(f"{name}: no result: {done.stderr.strip()[-500:]}")
        # A run that is stopped later leaves what it had.
        (self.options.out / f"{name}.json").write_text(done.stdout)
        return result

    def load(self, name, url, workload, requests, *more, pid):
        command = [self.options.patarm, "bench", "serve", "--url", url, "--workload", workload]
        command += ["--requests", str(requests), "--server-pid", str(pid), *more]
        return self.run(name, command)

    def served(self):
        """Every workload on a server of its own, so that memory starts anew."""
        o = self.options
        many = ["--connections", str(o.connections)]
        clean = ["--damaged", "0", "--cancelled", "0"]
        alone = min(o.alone, o.mixed)
        groups = ["--pool", str(o.groups), "--alone", str(max(1, o.alone // 8))]
        spread = ["--pool", str(8 * o.groups), "--alone", str(o.alone)]
        plans = {
            "short": ("short", o.load, ["--alone", str(o.alone), "--damaged", "0.05", "--cancelled", "0.05", *many]),
            "mixed": ("mixed", o.mixed, ["--pool", str(o.mixed), "--alone", str(alone), *clean, *many]),
            "shared": ("shared", o.groups, [*groups, *clean, *many]),
            "spread": ("spread", 8 * o.groups, [*spread, *clean, *many]),
        }
        results = {}
        for name, (workload, requests, more) in plans.items():
            command = self.patarm("serve", "--model", o.model, "--port", "0", "--log-level", "warn")
            with server(command, name, o.out, self.faults) as (url, process):
                results[name] = self.load(name, url, workload, requests, *more, pid=process.pid)
        return results

    def offline(self):
        sizes = ["--rows", str(self.options.rows), "--length", "1000", "--repeats", "1"]
        # `bench score` runs random weights: what it costs follows from the shape alone.
        shape = ["--shape", self.options.shape]
        return self.run("offline", self.patarm("bench", "score", *shape, *sizes))

    def peer(self):
        """The mixed texts, one forward a request, in PyTorch."""
        o = self.options
        if o.python is None:
            return None
        command = [o.python, "-B", str(HERE / "one_by_one.py"), o.model, "--threads", str(o.threads)]
        count = min(o.alone, o.mixed)
        more = ["--pool", str(o.mixed), "--alone", "0", "--connections", "1"]
        more += ["--damaged", "0", "--cancelled", "0"]
        with server(command, "peer", o.out, self.faults) as (url, process):
            return self.load("peer", url, "mixed", count, *more, pid=process.pid)


def ratios(results):
    """Name, ratio, and what it must reach."""
    mixed = results["mixed"]
    rows = [
        ("mixed against the offline benchmark", rate(mixed) / rate(results["offline"]), 0.9),
        ("mixed against this server, one request at a time", mixed["speedup"], None),
    ]
    if results["peer"]:
        peer = rate(results["peer"])
        rows.append(("mixed against one forward a request in PyTorch", rate(mixed) / peer, 1.4))
    rows += [
        ("eight responses in a request, against one at a time", results["shared"]["speedup"], 3.0),
        ("eight responses in requests of their own, against one at a time", results["spread"]["speedup"], 3.0),
    ]
    return rows


def rate(result):
    return result["tokens_per_s"]


def table(results, faults):
    lines = [
        "| load | answered | damaged, refused | abandoned | 429, 503 | answers/s | tokens/s | p50 ms | p99 ms | memory MiB, first to last (most) |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in ["short", "mixed", "shared", "spread"]:
        result, memory = results[name], results[name]["server_memory_bytes"]
        mib = [size >> 20 for size in memory] or [0]
        latency, deliberate = result["latency_ms"], sum(result["refused"].values())
        lines.append(
            f"| {name}, {result['requests']:,} requests | {result['answered']:,} | "
            f"{result['damage_refused']:,} | {result['cancelled']:,} | {deliberate:,} | "
            f"{result['answers_per_s']:.1f} | {rate(result):,.0f} | {latency['p50']:,.0f} | "
            f"{latency['p99']:,.0f} | {mib[0]:,} to {mib[-1]:,} ({max(mib):,}) |"
        )
    lines += ["", "| ratio of tokens/s | measured | wanted |", "|---|---|---|"]
    for name, ratio, wanted in ratios(results):
        lines.append(f"| {name} | {ratio:.2f} | {f'at least {wanted}' if wanted else ''} |")
    single = [f"offline {rate(results['offline']):,.0f} tokens/s"]
    single += [f"PyTorch {rate(results['peer']):,.0f}"] if results["peer"] else []
    single += [f"faults: {'; '.join(faults)}" if faults else "no faults"]
    return "\n".join(lines) + "\n\n" + ", ".join(single) + ".\n"


def main():
    options = arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    bench, start = Bench(options), time.monotonic()
    before = os.getloadavg()
    results = bench.served() | {"offline": bench.offline(), "peer": bench.peer()}
    text = table(results, bench.faults)
    results |= {
        "version": 1,
        "faults": bench.faults,
        "ratios": {name: ratio for name, ratio, _ in ratios(results)},
        "seconds": time.monotonic() - start,
        "load_average": {"before": before, "after": os.getloadavg()},
        "precision": options.precision,
        "threads": options.threads,
    }
    (options.out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    (options.out / "table.md").write_text(text)
    print(text)
    sys.exit(1 if bench.faults else 0)


if __name__ == "__main__":
    main()
