"""Accuracy against the share of swapped training labels: a table and a figure."""

from summarise import bootstrap, interval, over_seeds
from tables import heading, table

COLOURS = ["#1b6ca8", "#b03a2e", "#1e8449", "#7d3c98", "#b9770e", "#34495e", "#0e8f8f", "#c2185b", "#6d4c41"]


def noise(title, by_share, names):
    """A table of families by the share of swapped labels, of the seeds that have them all;
    returns what it shows."""
    shares = sorted(by_share)
    lines = {}
    for family in [name for name in names if all(name in by_share[share] for share in shares)]:
        seeds = sorted(set.intersection(*(set(by_share[share][family]) for share in shares)))
        if seeds:
            lines[family] = [(share, bootstrap(over_seeds(
                [by_share[share][family][seed].credits() for seed in seeds]))) for share in shares]
    if not lines:
        return lines
    heading(f"{title}, swapped training labels: held-out accuracy")
    table(["family", *(f"{100 * share:.0f} %" for share in shares)],
          [[family, *(interval(measured) for _, measured in line)] for family, line in lines.items()])
    return lines


def noise_figure(lines):
    """Accuracy against the share of swapped labels, one line a family, as SVG."""
    left, top, width, height = 50, 20, 420, 260
    values = [part for line in lines.values() for _, measured in line for part in measured]
    low, high = 0.1 * int(10 * min(values)), 0.1 * int(10 * max(values) + 1)
    most = max(share for line in lines.values() for share, _ in line)
    at = lambda share, value: (left + 20 + share / most * (width - 40), top + (high - value) / (high - low) * height)
    parts = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 330" font-family="sans-serif" font-size="11">',
             '<rect width="100%" height="100%" fill="white"/>',
             f'<text x="{left + width}" y="{top + height + 34}" text-anchor="end">training labels swapped, %</text>',
             f'<text x="{left - 40}" y="{top - 6}" fill="#666">held-out accuracy, %</text>']
    for step in range(round(10 * low), round(10 * high) + 1):
        y = at(0, step / 10)[1]
        colour = "#888" if step == 5 else "#eee"
        parts.append(f'<line x1="{left}" y1="{y:.1f}" x2="{left + width}" y2="{y:.1f}" stroke="{colour}"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#666">{10 * step}</text>')
    for share in sorted({share for line in lines.values() for share, _ in line}):
        parts.append(f'<text x="{at(share, 0)[0]:.1f}" y="{top + height + 16}" text-anchor="middle" '
                     f'fill="#666">{100 * share:.0f}</text>')
    for number, ((family, line), colour) in enumerate(zip(lines.items(), COLOURS)):
        aside = 5 * (number - (len(lines) - 1) / 2)
        parts += noise_line([(share, *measured) for share, measured in line], at, aside, colour)
        parts.append(f'<text x="{left + width + 20}" y="{top + 16 + 18 * number}" fill="{colour}">● {family}</text>')
    return "\n".join([*parts, "</svg>", ""])


def noise_line(points, at, aside, colour):
    """A line with its intervals, moved aside so that they do not cover each other."""
    places = [(at(share, value), at(share, low), at(share, high)) for share, value, low, high in points]
    path = " ".join(f"{x + aside:.1f},{y:.1f}" for (x, y), _, _ in places)
    parts = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>']
    for (x, y), (_, low), (_, high) in places:
        x += aside
        parts.append(f'<line x1="{x:.1f}" y1="{low:.1f}" x2="{x:.1f}" y2="{high:.1f}" stroke="{colour}"/>')
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
    return parts
