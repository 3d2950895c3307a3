#!/usr/bin/env python3
"""The tables of families.sh.

usage: families_table.py OUT [--keep KEPT] [--cost COST] [--figures FOLDER]

One table a set: held-out accuracy by seed and over seeds (the interval resamples
prompts, see summarise.py), the gain over the first family of the set on the same items,
calibration error, bias towards length, faults, training tokens and time of the updates.
Sets of steps: the area under the curve of right against wrong steps. OUT holds runs, or what
was kept of them: KEPT gets one small file a run, without any text (measured.py). COST is what
scoring_cost.sh printed: a column of the set it was measured on. Runs with swapped labels
stand once more in a table by their share (label_noise.py), drawn to FOLDER/label_noise.svg.
Ordinal models are also measured against labels of quality (ratings.py). Ensembles are formed
of the stored rewards as `patarm_reward::combinators` forms them. Needs the standard library
only.
"""

import argparse
import bisect
import re
import statistics
from collections import defaultdict
from pathlib import Path

import ratings
from label_noise import noise, noise_figure
from measured import Measured
from summarise import bootstrap, differences, interval, mean, over_seeds, percent
from tables import against, by_seed, heading, share, shown, table

TITLES = {
    "hh": "Harmlessness (hh-rlhf)",
    "shortcut": "Harmlessness (hh-rlhf) with a planted word",
    "ultrafeedback": "UltraFeedback",
    "qrm": "GSM8K and MATH solutions, right against wrong",
    "flagged": "GSM8K, flagged solutions",
    "prmbench": "PRMBench",
    "bigbench_mistake": "BIG-Bench-Mistake",
}
NAME = re.compile(rf"({'|'.join(TITLES)})-(.+)-f([0-9.]+)-s(\d+)$")
# What people or models prefer, without a planted word.
PREFERENCES = ("hh", "ultrafeedback")
SETS_OF_STEPS = ("bigbench_mistake", "prmbench")
# Where scores were timed, and where labels were swapped.
COSTED_SET = NOISY_SET = "hh"
# How a run is read: the mark beside its directory when it is done, or what was kept of it.
READ = {".seconds": lambda mark: Measured.of_run(mark.with_suffix("")), ".jsonl": Measured.kept}
FAMILIES = ["bradley_terry", "ebrm", "ebrm_more", "ebrm_raw", "ebrm_gate", "soli_reward", "ties", "wins", "oprm",
            "rgft_some", "rgft", "q_rm", "process_reward", "patarm", "patarm_faster"]


def finished(out):
    """Finished runs: by (set, share of swapped labels), then family, then seed."""
    found = defaultdict(lambda: defaultdict(dict))
    for path in sorted(out.iterdir()):
        match = NAME.match(path.stem)
        if match and path.suffix in READ:
            set_, family, flip, seed = match.groups()
            found[set_, float(flip)][family][int(seed)] = READ[path.suffix](path)
    return found


def keep(found, qualities, folder):
    folder.mkdir(parents=True, exist_ok=True)
    ratings.keep_quality_labels(qualities, folder)
    for (set_, flip), families in found.items():
        for family, seeds in families.items():
            for seed, run in seeds.items():
                run.write(folder / f"{set_}-{family}-f{flip:g}-s{seed}.jsonl")


def pair_row(family, seeds, first, cost):
    runs = [run for _, run in sorted(seeds.items())]
    measured = {seed: run.credits() for seed, run in sorted(seeds.items())}
    results = [run.result for run in runs]
    plain = [run.credits("plain") for run in runs]
    without = interval(bootstrap(over_seeds(plain))) if all(plain) else "–"
    part = lambda name: [one[name] for one in results]
    return measured, [
        family, by_seed(measured), interval(bootstrap(over_seeds(list(measured.values())))),
        against(first, measured),
        shown(part("calibration_error")), shown(part("length_correlation"), 2),
        f"{share(part('chosen_longer'))} / {share(part('chosen_shorter'))}",
        percent(mean(part("fault_share"))), without,
        f"{mean(run.tokens for run in runs):.0f}", shown([run.minutes for run in runs], 1), cost]


COLUMNS = ("family", "by seed", "mean, 95 %", "against the first", "calibration error", "score and length",
           "right where the better one is longer / shorter", "faults, %", "without the planted word",
           "training tokens", "minutes", "ms a score")


def pairs(title, families, costs):
    example = next(iter(next(iter(families.values())).values())).result
    heading(f"{title}: {example['num_pairs']} held-out pairs; "
            f"the longer answer wins {percent(example['longer_wins'])} %")
    first, lines = {}, []
    for family in sorted(families, key=FAMILIES.index):
        measured, cells = pair_row(family, families[family], first, costs.get(family, "–"))
        first = first or measured
        lines.append(cells)
    table(COLUMNS, lines)


def quantiles(member):
    """Every reward replaced by its place among all rewards of the member."""
    known = sorted(value for sides, _ in member.values() for value in sides)
    place = lambda value: (bisect.bisect_left(known, value) + bisect.bisect_right(known, value)) / (2 * len(known))
    return {pair: (tuple(map(place, sides)), cluster) for pair, (sides, cluster) in member.items()}


def combined(members, combine):
    """Credits of pairs under members as one; pairs that a member cannot score count one half."""
    found = {}
    for pair in sorted(set.union(*(set(member) for member in members))):
        scored = [member[pair] for member in members if pair in member]
        chosen, rejected = (combine([sides[side] for sides, _ in scored]) for side in (0, 1))
        credit = float(chosen > rejected) if len(scored) == len(members) and chosen != rejected else 0.5
        found[pair] = (credit, scored[0][1])
    return found


COMBINE = {
    "mean": statistics.mean,
    "minimum": min,
    "mean − ½ variance": lambda values: statistics.mean(values) - 0.5 * statistics.pvariance(values),
}


def ensembles(title, families):
    """Several seeds of one family, and several families of each seed by quantiles."""
    lines = []
    for family in [name for name in FAMILIES if len(families.get(name, {})) > 1]:
        members = [run.rewards() for run in families[family].values()]
        single = over_seeds([run.credits() for run in families[family].values()])
        for name, combine in COMBINE.items():
            lines.append(ensemble(f"{family}, {len(members)} seeds: {name}", combined(members, combine), single))
    trio = ("bradley_terry", "oprm", "q_rm")
    common = set.intersection(*(set(families.get(name, {})) for name in trio))
    if common:
        trios = [combined([quantiles(families[name][seed].rewards()) for name in trio], statistics.mean)
                 for seed in sorted(common)]
        best = over_seeds([families["q_rm"][seed].credits() for seed in sorted(common)])
        seeds = "one seed" if len(common) == 1 else f"{len(common)} seeds"
        lines.append(ensemble(f"{', '.join(trio)} by quantiles: mean, {seeds} against q_rm", over_seeds(trios), best))
    if lines:
        heading(f"{title}: ensembles")
        table(("members", "accuracy, 95 %", "against its members one by one"), lines)


def ensemble(name, together, single):
    return [name, interval(bootstrap(together)), interval(bootstrap(differences(single, together)), "+")]


def steps(title, by_share):
    """Right against wrong steps, a row a run: by the share of swapped labels, then by seed."""
    heading(f"{title}: steps of held-out solutions")
    columns = ("labels swapped, %", "seed", "area under the curve, 95 %", "within a solution", "right at ½, %",
               "more frequent label, %", "calibration error", "training tokens", "minutes")
    table(columns, [step_row(flip, seed, run) for flip, families in sorted(by_share.items())
                    for seed, run in sorted(families["process_reward"].items())])


def step_row(flip, seed, run):
    measured = run.steps
    error = measured.get("calibration_error", measured.get("expected_calibration_error"))
    return [f"{100 * flip:.0f}", str(seed), figure(measured["auc"]), figure(measured["auc_within"]),
            figure(measured["accuracy"]), figure(measured["majority"]), shown([error]), str(run.tokens),
            shown([run.minutes], 1)]


def together(title, sets):
    """The differences to the first family over the pairs of several sets, of families that all
    of them have, with the seeds that all of them have."""
    base, *others = [name for name in FAMILIES if all(name in families for families in sets.values())] or [None]
    lines = []
    for family in others:
        seeds = set.intersection(*(set(families[name]) for families in sets.values() for name in (base, family)))
        if seeds:
            before, after = ({seed: joined(sets, name, seed) for seed in seeds} for name in (base, family))
            lines.append([family, str(len(seeds)), str(len(before[min(seeds)])), against(before, after)])
    if lines:
        heading(f"{title}: difference to {base}")
        table(("family", "seeds", "pairs", "difference, 95 %"), lines)


def joined(sets, family, seed):
    """Credits of the pairs of all sets."""
    return {(set_, pair): (credit, (set_, prompt)) for set_, families in sets.items()
            for pair, (credit, prompt) in families[family][seed].credits().items()}


def figure(part):
    if isinstance(part, dict):
        bounds = part.get("interval") or {}
        return interval((part["value"], bounds.get("low", float("nan")), bounds.get("high", float("nan"))))
    return "–" if part is None else percent(part)


def scoring_costs(path):
    """Milliseconds a response by family, of the table that scoring_cost.sh printed."""
    if path is None:
        return {}
    cells = [[cell.strip() for cell in line.strip("| \n").split("|")] for line in path.read_text().splitlines()]
    costs = {row[0]: row[1] for row in cells if len(row) == 2 and row[0] in FAMILIES}
    # The same network on the same base; the plain head, whatever it was trained with.
    alike = {"ebrm_more": "ebrm", "ebrm_raw": "ebrm", "ebrm_gate": "ebrm", "ties": "bradley_terry",
             "wins": "bradley_terry", "rgft": "oprm", "rgft_some": "oprm", "patarm_faster": "patarm"}
    return costs | {name: costs[like] for name, like in alike.items() if like in costs}


def shares_of(found, wanted):
    return {flip: families for (set_, flip), families in found.items() if set_ == wanted}


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n")[2].removeprefix("usage: "))
    parser.add_argument("out", type=Path)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--cost", type=Path)
    parser.add_argument("--figures", type=Path)
    options = parser.parse_args()
    costs = scoring_costs(options.cost)
    found = finished(options.out)
    qualities = ratings.quality_labels(options.out)
    if options.keep:
        keep(found, qualities, options.keep)
    for (set_, flip), families in sorted(found.items()):
        swapped = f", {100 * flip:.0f} % of the training labels swapped" if flip else ""
        title = TITLES[set_] + swapped
        if set_ not in SETS_OF_STEPS:
            pairs(title, families, costs if (set_, flip) == (COSTED_SET, 0) else {})
            if flip == 0:
                ensembles(title, families)
    ratings.zones(TITLES[ratings.SET], found.get((ratings.SET, 0.0), {}), qualities)
    preferences = {set_: found[set_, 0.0] for set_ in PREFERENCES if (set_, 0.0) in found}
    if len(preferences) > 1:
        together(" and ".join(TITLES[set_] for set_ in preferences) + " together", preferences)
    for set_ in SETS_OF_STEPS:
        by_share = shares_of(found, set_)
        if by_share:
            steps(TITLES[set_], by_share)
    by_share = shares_of(found, NOISY_SET)
    if len(by_share) > 1:
        lines = noise(TITLES[NOISY_SET], by_share, FAMILIES)
        if options.figures and lines:
            (options.figures / "label_noise.svg").write_text(noise_figure(lines))


if __name__ == "__main__":
    main()
