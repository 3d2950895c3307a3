"""Tables in Markdown."""

from summarise import bootstrap, defined_mean, differences, interval, mean, over_seeds, percent


def shown(values, digits=3):
    value = defined_mean(float("nan") if value is None else value for value in values)
    return f"{value:.{digits}f}" if value == value else "–"


def share(values):
    return percent(mean(value for value in values if value is not None))


def by_seed(measured):
    """Means of {seed: {id: (value, cluster)}}, with a dash for a seed that is not there."""
    return " / ".join(percent(mean(value for value, _ in measured[seed].values())) if seed in measured else "–"
                      for seed in range(max(measured) + 1))


def against(first, measured):
    """The gain over `first` with the seeds that both have, paired; a dash where there are none."""
    common = sorted(first.keys() & measured.keys())
    if not common:
        return "–"
    return interval(bootstrap(over_seeds([differences(first[seed], measured[seed]) for seed in common])), "+")


def heading(text):
    print(f"\n**{text}.**\n")


def table(columns, lines):
    """Prints lines of cells, without columns in which nothing stands but of the gains."""
    lines = list(lines)
    used = [at for at, name in enumerate(columns)
            if name == "against the first" or any(line[at] != "–" for line in lines)]
    for line in [columns, ["---"] * len(columns), *lines]:
        print("| " + " | ".join(line[at] for at in used) + " |")
