#!/usr/bin/env python3
"""Tables and curves from the run directories of an experiment.

usage: summarise.py estimators OUT | summarise.py planted OUT | summarise.py stages OUT
       summarise.py judges OUT

Accuracy compares expected scores on held-out pairs; ties and pairs without a score
count one half. Over several seeds a pair's credit is its mean over the seeds, and the
95 % interval is a percentile bootstrap over prompts of that mean: it speaks of other
prompts, not of other seeds, whose results stand beside it one by one.
Needs the standard library only.
"""

import json
import random
import re
import sys
from collections import defaultdict
from pathlib import Path

RESAMPLES = 4000
# Two-sided 95 % points of Student's t, by degrees of freedom.
T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 19: 2.093}
SEED_OF_RUN = re.compile(r"(.+)-s(\d+)$")
COLOURS = ["#1b6ca8", "#7fb3d5", "#b03a2e", "#e6b0aa", "#1e8449", "#a9dfbf"]


def rows(path):
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def credit(chosen, rejected):
    """One for the right order, one half for a tie and where a score is absent."""
    if chosen is None or rejected is None or chosen == rejected:
        return 0.5
    return float(chosen > rejected)


def credits(folder):
    """Credit and prompt of every pair of a result folder, by the pair's id."""
    return {row["id"]: (credit(row.get("chosen_score"), row.get("rejected_score")), row["cluster"])
            for row in rows(folder / "scores.jsonl")}


def mean(values):
    values = list(values)
    return sum(values) / len(values) if values else float("nan")


def defined_mean(values):
    """The mean of the numbers that are there: a batch in which no pair has two scores has none."""
    return mean(value for value in values if value == value)


def bootstrap(values):
    """Mean and 95 % interval of {id: (value, cluster)}, resampling clusters."""
    clusters = defaultdict(lambda: [0.0, 0])
    for value, cluster in values.values():
        clusters[cluster][0] += value
        clusters[cluster][1] += 1
    groups, draws = list(clusters.values()), random.Random(0)
    if not groups:
        return float("nan"), float("nan"), float("nan")
    means = []
    for _ in range(RESAMPLES):
        sample = draws.choices(groups, k=len(groups))
        means.append(sum(total for total, _ in sample) / sum(count for _, count in sample))
    means.sort()
    return (mean(value for value, _ in values.values()),
            means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES) - 1])


def over_seeds(per_seed):
    """The mean over seeds of every pair that all seeds measured."""
    shared = set.intersection(*(set(one) for one in per_seed))
    return {pair: (mean(one[pair][0] for one in per_seed), per_seed[0][pair][1]) for pair in sorted(shared)}


def differences(before, after):
    return {pair: (after[pair][0] - before[pair][0], after[pair][1]) for pair in sorted(before.keys() & after.keys())}


def runs(out):
    """Run directories by name and seed."""
    found = defaultdict(dict)
    for folder in sorted(out.iterdir()):
        match = SEED_OF_RUN.match(folder.name)
        if match and (folder / "metrics.jsonl").exists():
            found[match[1]][int(match[2])] = folder
    return found


def percent(value):
    return f"{100 * value:.1f}"


def interval(triple, sign=""):
    value, low, high = triple
    return f"{100 * value:{sign}.1f} [{percent(low)}, {percent(high)}]"


def reinforcement(folder):
    return [row for row in rows(folder / "metrics.jsonl") if row["phase"] == "grpo" and "pair_accuracy" in row]


def late(metrics, name):
    """Mean over the last quarter of the updates."""
    values = [row[name] for row in metrics[-max(1, len(metrics) // 4):] if row.get(name) is not None]
    return mean(values)


def tokens(metrics):
    """Tokens computed for training and tokens written by the judge."""
    trained = sum(row["num_tokens"] for row in metrics)
    written = sum(row["rollout_tokens_per_s"] * row["rollout_seconds"] for row in metrics)
    return trained, written


def estimators(out):
    found = runs(out)
    cold = {seed: credits(folder / "evaluations/cold_start") for seed, folder in found.pop("cold").items()}
    print(f"cold start, by seed: " + ", ".join(percent(mean(c for c, _ in one.values())) for one in cold.values()))
    print("\n| arm | held out by seed | mean, 95 % | gain over the cold start, paired | last quarter of the "
          "batches | format faults | groups without signal | training tokens | written |")
    print("|---|---|---|---|---|---|---|---|---|")
    curves = {}
    for arm, seeds in found.items():
        measured = {seed: credits(folder / "evaluations/trained") for seed, folder in seeds.items()}
        measured = {seed: one for seed, one in measured.items() if one}
        if not measured:
            continue
        gains = over_seeds([differences(cold[seed], one) for seed, one in measured.items()])
        metrics = {seed: reinforcement(seeds[seed]) for seed in measured}
        by_seed = " / ".join(percent(mean(c for c, _ in one.values())) for one in measured.values())
        trained, written = (mean(part) for part in zip(*(tokens(one) for one in metrics.values())))
        cells = [arm, by_seed, interval(bootstrap(over_seeds(list(measured.values())))),
                 interval(bootstrap(gains), "+"),
                 percent(mean(late(one, "pair_accuracy") for one in metrics.values())),
                 percent(mean(late(one, "format_fault_rate") for one in metrics.values())),
                 percent(mean(mean(row["zero_variance_share"] for row in one) for one in metrics.values())),
                 f"{trained:.0f}", f"{written:.0f}"]
        print("| " + " | ".join(cells) + " |")
        curves[arm] = [[row["pair_accuracy"] for row in one] for one in metrics.values()]
    (out / "curves.svg").write_text(svg(curves))
    print(f"\ncurves: {out / 'curves.svg'}")


def smoothed(curve, window=4):
    values = [0.5 if value is None else value for value in curve]
    return [mean(values[max(0, at - window + 1):at + 1]) for at in range(len(values))]


def svg(curves):
    """Pair accuracy of the training batches (each pair seen for the first time): the mean
    over seeds of a running mean over four updates, in a band from the lowest to the highest."""
    width, height, left, top = 640, 360, 56, 16
    right, bottom = 190, 44
    steps = max((len(one) for curve in curves.values() for one in curve), default=2)
    x = lambda step: left + (width - left - right) * step / max(1, steps - 1)
    y = lambda value: top + (height - top - bottom) * (1 - (max(value, 0.3) - 0.3) / 0.7)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
             'font-family="sans-serif" font-size="12">',
             f'<rect width="{width}" height="{height}" fill="white"/>']
    for tick in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        parts.append(f'<line x1="{left}" x2="{width - right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" '
                     f'stroke="{"#888" if tick == 0.5 else "#ddd"}"/>')
        parts.append(f'<text x="{left - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.1f}</text>')
    for step in range(0, steps, max(1, steps // 8)):
        parts.append(f'<text x="{x(step):.1f}" y="{height - bottom + 18}" text-anchor="middle">{step + 1}</text>')
    parts.append(f'<text x="{(left + width - right) / 2}" y="{height - 8}" text-anchor="middle">update</text>')
    for index, (arm, curve) in enumerate(curves.items()):
        colour = COLOURS[index % len(COLOURS)]
        smooth = [smoothed(one) for one in curve]
        columns = list(zip(*smooth))
        low = " ".join(f"{x(at):.1f},{y(min(column)):.1f}" for at, column in enumerate(columns))
        high = " ".join(f"{x(at):.1f},{y(max(column)):.1f}" for at, column in reversed(list(enumerate(columns))))
        middle = " ".join(f"{x(at):.1f},{y(mean(column)):.1f}" for at, column in enumerate(columns))
        parts.append(f'<polygon points="{low} {high}" fill="{colour}" opacity="0.12"/>')
        parts.append(f'<polyline points="{middle}" fill="none" stroke="{colour}" stroke-width="2"/>')
        at = top + 14 + 20 * index
        parts.append(f'<line x1="{width - right + 12}" x2="{width - right + 32}" y1="{at - 4}" y2="{at - 4}" '
                     f'stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{width - right + 38}" y="{at}">{arm}</text>')
    return "\n".join(parts + ["</svg>", ""])


def spread(values):
    """Mean and 95 % interval over independent seeds, by Student's t."""
    count, centre = len(values), mean(values)
    if count < 2:
        return centre, float("nan"), float("nan")
    deviation = (sum((value - centre) ** 2 for value in values) / (count - 1)) ** 0.5
    half = T_95.get(count - 1, 1.96) * deviation / count ** 0.5
    return centre, centre - half, centre + half


def planted(out):
    """Runs of the planted preference, compared with `sampled-std` or `rl` by seed."""
    found = runs(out)
    held_out = {arm: {seed: json.loads((folder / "held_out.json").read_text()) for seed, folder in seeds.items()}
                for arm, seeds in found.items()}
    base = "sampled-std" if "sampled-std" in held_out else "rl"
    print(f"| run | held out, 95 % over seeds | lowest seed | against {base}, paired by seed | one sampled score "
          "a response | margin | last quarter of the batches | format faults | groups without signal | "
          "training tokens | written |")
    print("|" + "---|" * 11)
    curves = {}
    for arm, seeds in held_out.items():
        expected = {seed: one["expected"] for seed, one in seeds.items()}
        against = [value - held_out[base][seed]["expected"] for seed, value in expected.items()]
        centre, low, high = spread(list(expected.values()))
        cells = [f"{arm} ({len(seeds)} seeds)", interval((centre, max(low, 0.0), min(high, 1.0))),
                 percent(min(expected.values())), "–" if arm == base else interval(spread(against), "+"),
                 percent(mean(one["sampled"] for one in seeds.values())),
                 f"{mean(one['margin'] for one in seeds.values()):+.2f}"]
        metrics = [reinforcement(folder) for folder in found[arm].values()]
        if all(metrics):
            trained, written = (mean(part) for part in zip(*(tokens(one) for one in metrics)))
            cells += [percent(defined_mean(late(one, "pair_accuracy") for one in metrics)),
                      percent(mean(late(one, "format_fault_rate") for one in metrics)),
                      percent(mean(mean(row["zero_variance_share"] for row in one) for one in metrics)),
                      f"{trained:.0f}", f"{written:.0f}"]
            curves[arm] = [[row["pair_accuracy"] for row in one] for one in metrics]
        else:
            cells += ["–"] * 5
        print("| " + " | ".join(cells) + " |")
    (out / "curves.svg").write_text(svg(curves))
    print(f"\ncurves: {out / 'curves.svg'}")


def stages(out):
    print("| run | seeds | pairs | before reinforcement | after | gain, paired | faults, last quarter |")
    print("|---|---|---|---|---|---|---|")
    for name, seeds in runs(out).items():
        read = lambda stage: [one for one in (credits(folder / "evaluations" / stage) for folder in seeds.values()) if one]
        before, after = read("cold_start"), read("trained")
        if not before:
            continue
        shown = lambda per_seed: (" / ".join(percent(mean(c for c, _ in one.values())) for one in per_seed)
                                  + "; " + interval(bootstrap(over_seeds(per_seed)))) if per_seed else "–"
        gain = "–"
        if len(before) == len(after):
            gain = interval(bootstrap(over_seeds([differences(b, a) for b, a in zip(before, after)])), "+")
        metrics = [reinforcement(folder) for folder in seeds.values()]
        fault = percent(mean(late(one, "format_fault_rate") for one in metrics if one))
        cells = [name, ", ".join(map(str, seeds)), str(len(before[0])), shown(before), shown(after), gain, fault]
        print("| " + " | ".join(cells) + " |")


def figure(metrics, name):
    """Value and interval of a figure of a summary, in per cent."""
    metric = metrics.get(name) or {}
    if metric.get("value") is None:
        return "–"
    low, high = metric.get("ci95") or (float("nan"), float("nan"))
    return interval((metric["value"], low, high))


def judges(out):
    """One row a judge and benchmark; every figure counts ties and faults one half."""
    columns = [("expected", "accuracy.half_credit")]
    columns += [(f"sampled, {k} votes", f"voting.sampled.{k}.accuracy.half_credit") for k in (1, 2, 4, 8, 16)]
    columns += [(f"expected, {k} votes", f"voting.expected.{k}.accuracy.half_credit") for k in (1, 4, 16)]
    columns += [("both orders right", "accuracy.both_orders"), ("consistent", "position.consistency"),
                ("first preferred", "position.first_rate"), ("length-controlled", "length.controlled_accuracy"),
                ("easy", "difficulty.easy_by_samples.half_credit"),
                ("normal", "difficulty.normal_by_samples.half_credit"),
                ("hard", "difficulty.hard_by_samples.half_credit"), ("faults", "accuracy.fault_rate")]
    lines = defaultdict(list)
    for path in sorted(out.glob("*/summary.json")):
        name, benchmark = path.parent.name.rsplit(".", 1)
        summary = json.loads(path.read_text())
        lines[benchmark].append((name, summary["counts"]["items"], summary["metrics"]))
        if not any(row[0] == "longer wins" for row in lines[benchmark]) and not benchmark.endswith("pairwise"):
            lines[benchmark].append(("longer wins", summary["counts"]["items"], summary["baselines"]["longer_wins"]))
    for benchmark, found in lines.items():
        cells = lambda metrics: [figure(metrics, name) for _, name in columns]
        table = [(name, items, cells(metrics)) for name, items, metrics in found]
        shown = [at for at in range(len(columns)) if any(row[2][at] != "–" for row in table)]
        print(f"\n{benchmark}\n\n| judge | items | " + " | ".join(columns[at][0] for at in shown) + " |")
        print("|" + "---|" * (len(shown) + 2))
        for name, items, row in table:
            print(f"| {name} | {items} | " + " | ".join(row[at] for at in shown) + " |")


def main():
    summaries = {"estimators": estimators, "planted": planted, "stages": stages, "judges": judges}
    if len(sys.argv) != 3 or sys.argv[1] not in summaries:
        sys.exit(__doc__)
    summaries[sys.argv[1]](Path(sys.argv[2]))


if __name__ == "__main__":
    main()
