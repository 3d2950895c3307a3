"""Ordinal reward models against labels of quality: what a rating says by itself."""

import json
from collections import defaultdict

from summarise import bootstrap, interval, mean, over_seeds, percent, rows
from tables import against, by_seed, heading, table

# The set with labels of quality, the families that rate from 1 to 9, and their zones there.
SET, FAMILIES = "ultrafeedback", ("oprm", "rgft_some", "rgft")
ZONES = ("bad", "normal", "good")


def zones(title, families, qualities):
    """Ratings against labels: in which third of 1 to 9 the expected rating lies."""
    rating = [name for name in FAMILIES if name in families]
    if not rating or not qualities:
        return
    heading(f"{title}: ratings and the quality of single held-out responses; always saying the "
            f"most frequent one, {percent(most_frequent(qualities))} %")
    columns = ("family", "by seed", "in the right third, 95 %", "against the first",
               *(f"mean rating, {zone}" for zone in ZONES))
    table(columns, zone_rows(rating, families, qualities))


def most_frequent(qualities):
    labels = [label for sides in qualities.values() for label in sides]
    return max(labels.count(zone) for zone in ZONES) / len(labels)


def zone_rows(rating, families, qualities):
    first = {}
    for family in rating:
        placed = {seed: in_zone(run, qualities) for seed, run in sorted(families[family].items())}
        ratings = rated(families[family].values(), qualities)
        yield [family, by_seed(placed), interval(bootstrap(over_seeds(list(placed.values())))),
               against(first, placed), *(f"{mean(ratings[zone]):.2f}" for zone in ZONES)]
        first = first or placed


def in_zone(run, qualities):
    """Whether a response's expected rating lies in the third of its label, by pair and side."""
    return {(pair, side): (float(ZONES[min(2, max(0, int((rating - 0.5) // 3)))] == qualities[pair][side]), prompt)
            for pair, (ratings, prompt) in run.rewards().items() if pair in qualities
            for side, rating in enumerate(ratings)}


def rated(runs, qualities):
    """Expected ratings by label."""
    found = defaultdict(list)
    for run in runs:
        for pair, (ratings, _) in run.rewards().items():
            for rating, label in zip(ratings, qualities.get(pair, ())):
                found[label].append(rating)
    return found


def quality_labels(out):
    """Labels of held-out responses by pair, where the samples or what is kept have them."""
    for path in (out / f"samples/{SET}/held_out.quality.jsonl", out / f"{SET}.quality.jsonl"):
        if path.exists():
            return {row["id"]: (row["first"], row["second"]) for row in rows(path)}
    return {}


def keep_quality_labels(qualities, folder):
    lines = [{"id": pair, "first": first, "second": second} for pair, (first, second) in qualities.items()]
    (folder / f"{SET}.quality.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
