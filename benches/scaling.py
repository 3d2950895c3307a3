#!/usr/bin/env python3
"""How cost grows: `patarm bench` over branches, prompt lengths and batches, and what
sharing prompts saves over rows.

    python benches/scaling.py --patarm target/release/patarm --out OUT

Every point is one run of the program on random weights: a warm-up, then the median of
--repeats. OUT gets points.jsonl as they come (points that are there already are not run
again), and at the end scaling.svg; tables go to standard output. --curves picks some of
them, --largest leaves out points with more tokens than that. Needs the standard library.
"""

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

COLOURS = ["#1b6ca8", "#b03a2e", "#1e8449", "#7d3c98"]
BRANCHES = [2, 4, 8, 16, 32]
# The shape of SmolLM2 has 8,192 positions, for a prompt and what follows it.
PROMPTS = [128, 256, 512, 1024, 2048, 4096, 8000]
BATCHES = [1, 2, 4, 8, 16, 32]


def decoded(found):
    return found["decode_tokens_per_s"]


def rate(found):
    return found["tokens_per_s"]


def prefilled(found, prompt):
    return prompt / found["phases"]["prefill"]


def per_second(work):
    """How often the work of a point is done in a second, whatever was computed for it."""
    return lambda found: work / found["seconds"]


def curves():
    """Title, x axis, y axis, and lines: each a name and points of (x, arguments of
    `patarm bench`, tokens it computes, figure)."""
    yield "Decoding, prompt 256", "sequences", "tokens/s", [
        ("decoding", [(n, ["rollout", "--rows", n, "--length", 32], n * 288, decoded) for n in BATCHES])]
    yield "Training, rows of 512", "rows", "tokens/s", [
        ("forward, backward, update", [(n, ["train", "--rows", n], n * 512, rate) for n in BATCHES[:4]])]
    yield "Prompt length, one sequence", "prompt tokens", "tokens/s", [
        ("prompt", [(n, one_prompt(n), n, lambda found, n=n: prefilled(found, n)) for n in PROMPTS]),
        ("decoding after it", [(n, one_prompt(n), n, decoded) for n in PROMPTS])]
    yield "Scoring n responses of 150 below a prompt of 400", "n", "responses/s", tree_and_rows(
        BRANCHES, lambda n: (["score", "--rows", 1, "--prompt", 400, "--length", 150, "--branches", n],
                             n, 400 + 150 * n, 550 * n))
    yield "Scoring 8 responses of 150 below a prompt", "prompt tokens", "responses/s", tree_and_rows(
        PROMPTS, lambda n: (["score", "--rows", 1, "--prompt", n, "--length", 150, "--branches", 8],
                            8, n + 1200, 8 * (n + 150)))
    yield "Drawing and learning n judgements a response", "n", "judgements/s", tree_and_rows(
        BRANCHES, lambda n: (["grpo", "--rows", 1, "--branches", n], 2 * n, 800 + 128 * n, 1328 * n))


def one_prompt(tokens):
    return ["rollout", "--rows", 1, "--prompt", tokens, "--length", 32]


def tree_and_rows(values, point):
    """The same work with shared prompts and without."""
    tree, rows = [], []
    for n in values:
        arguments, work, shared, unshared = point(n)
        tree.append((n, arguments, shared, per_second(work)))
        rows.append((n, [*arguments, "--unshared"], unshared, per_second(work)))
    return [("tree", tree), ("rows", rows)]


class Points:
    """Measured points by their command, kept in a file."""

    def __init__(self, options):
        self.options = options
        self.file = options.out / "points.jsonl"
        self.known = {}
        if self.file.exists():
            for line in self.file.read_text().splitlines():
                row = json.loads(line)
                self.known[tuple(row["arguments"])] = row["found"]

    def has(self, arguments):
        return tuple(map(str, arguments)) in self.known

    def measure(self, arguments):
        key = tuple(map(str, arguments))
        if key not in self.known:
            options = self.options
            command = [options.patarm, "bench", *key, "--shape", options.shape, "--json", "--precision",
                       options.precision, "--threads", str(options.threads), "--repeats", str(options.repeats)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
            self.known[key] = json.loads(done.stdout)
            with self.file.open("a") as file:
                file.write(json.dumps({"arguments": key, "found": self.known[key]}) + "\n")
            print(f"{' '.join(key)}: {self.known[key]['seconds']:.2f} s", file=sys.stderr, flush=True)
        return self.known[key]


def table(title, axis, unit, lines):
    names = [name for name, _ in lines]
    compared = names == ["tree", "rows"]
    print(f"\n**{title}** ({unit})\n")
    print("| " + " | ".join([axis, *names] + (["tree over rows"] if compared else [])) + " |")
    print("|" + "---|" * (1 + len(names) + compared))
    by_name = [dict(points) for _, points in lines]
    for x in sorted(set().union(*by_name)):
        values = [points.get(x) for points in by_name]
        cells = ["–" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}" for value in values]
        if compared:
            cells.append("–" if None in values else f"{values[0] / values[1]:.2f}")
        print("| " + " | ".join([str(x), *cells]) + " |")


def panel(place, title, axis, unit, lines):
    """One plot with logarithmic axes."""
    left, top, width, height = *place, 330, 190
    points = [point for _, line in lines for point in line]
    (x0, x1), (y0, y1) = bounds([x for x, _ in points]), bounds([y for _, y in points])

    def at(x, y):
        across = (math.log2(x) - x0) / ((x1 - x0) or 1)
        up = (math.log2(y) - y0) / ((y1 - y0) or 1)
        return left + across * width, top + height - up * height

    parts = [f'<text x="{left}" y="{top - 12}" font-weight="bold">{title}</text>',
             f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="#ccc"/>',
             f'<text x="{left + width}" y="{top + height + 32}" text-anchor="end">{axis}</text>',
             f'<text x="{left - 36}" y="{top - 1}" fill="#666">{unit}</text>']
    for x in sorted({x for x, _ in points}):
        parts.append(f'<text x="{at(x, 2 ** y0)[0]:.1f}" y="{top + height + 16}" text-anchor="middle" fill="#666">{x}</text>')
    for power in range(math.ceil(y0), math.floor(y1) + 1):
        y = at(2 ** x0, 2 ** power)[1]
        parts.append(f'<line x1="{left}" y1="{y:.1f}" x2="{left + width}" y2="{y:.1f}" stroke="#eee"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#666">{2 ** power:g}</text>')
    for (name, line), colour in zip(lines, COLOURS):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in line))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in (at(*point) for point in line)]
    legend = " ".join(f'<tspan fill="{colour}" dx="10">● {name}</tspan>' for (name, _), colour in zip(lines, COLOURS))
    parts.append(f'<text x="{left - 10}" y="{top + height + 32}">{legend}</text>')
    return parts


def bounds(values):
    """Logarithms to base two, with room at both ends."""
    low, high = math.log2(min(values)), math.log2(max(values))
    room = max(0.15, 0.06 * (high - low))
    return low - room, high + room


def svg(all_curves):
    rows = (len(all_curves) + 1) // 2
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 840 {rows * 270 + 20}" '
             'font-family="sans-serif" font-size="11">', '<rect width="100%" height="100%" fill="white"/>']
    for n, curve in enumerate(all_curves):
        parts += panel((60 + n % 2 * 420, 40 + n // 2 * 270), *curve)
    return "\n".join([*parts, "</svg>", ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patarm", default="target/release/patarm")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shape", default="smollm2-135m")
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--largest", type=int, default=100_000, help="most tokens of a point that is not there yet")
    parser.add_argument("--curves", nargs="+", type=int, help="numbers of the curves, from 1")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    points, measured = Points(options), []
    for number, (title, axis, unit, lines) in enumerate(curves(), start=1):
        if options.curves and number not in options.curves:
            continue
        found = [(name, [(x, figure(points.measure(arguments)))
                         for x, arguments, tokens, figure in line
                         if tokens <= options.largest or points.has(arguments)])
                 for name, line in lines]
        found = [(name, line) for name, line in found if line]
        measured.append((title, axis, unit, found))
        table(title, axis, unit, found)
    (options.out / "scaling.svg").write_text(svg(measured))


if __name__ == "__main__":
    main()
