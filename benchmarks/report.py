"""How what was measured is shown: numbers, Markdown tables, JSON, a picture."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Times = Mapping[str, Sequence[float]]  # by title, one number of each round
UNITS = {"s": 1.0, "ms": 1e-3, "µs": 1e-6}


def show_seconds(value: float) -> str:
    """Three digits and a unit."""
    unit = next((unit for unit, size in UNITS.items() if value >= size), "µs")
    return f"{show_number(value / UNITS[unit])} {unit}"


def show_number(value: float) -> str:
    """Three digits, never with an exponent for what people read."""
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def show_megabytes(value: float) -> str:
    """Bytes as megabytes."""
    return f"{value / 1e6:.1f} MB"


def show_range(values: Sequence[float]) -> str:
    """The fastest and the slowest, in the unit of the slowest."""
    unit = show_seconds(max(values)).split()[1]
    return f"{show_number(min(values) / UNITS[unit])} to {show_number(max(values) / UNITS[unit])} {unit}"


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; its first column needs no name."""
    return "\n".join(markdown_row(line) for line in [columns, ["---"] * len(columns), *rows])


def markdown_row(cells: Sequence[str]) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |"


def print_facts(facts: Mapping[str, Any]) -> None:
    """The list above the tables."""
    for name, value in facts.items():
        print(f"* {name}: {f'{value:.4g}' if isinstance(value, float) else value}")
    print(flush=True)


def ratios(times: Times) -> dict[str, float]:
    """The median of each over that of the first."""
    medians = {title: statistics.median(values) for title, values in times.items()}
    first = next(iter(medians.values()), 1.0)
    return {title: value / first for title, value in medians.items()}


def fastest(found: Mapping[str, float], families: Mapping[str, str]) -> str:
    """A sentence that names the fastest of each family; the first peer is the one that others are compared with."""
    parts = []
    base, *others = found
    for family in dict.fromkeys(families.values()):
        if members := [title for title in others if families.get(title) == family]:
            best = min(members, key=lambda title: found[title])
            parts.append(f"fastest {family}: {best}, {found[best]:.2f} of the time of {base}")
    sentence = "; ".join(parts)
    return f"{sentence[:1].upper()}{sentence[1:]}." if sentence else ""


def write_json(file: Path | None, content: Any) -> None:
    """Write it where a file is wanted."""
    if file:
        file.write_text(json.dumps(content, indent=1) + "\n")


def plot(file: Path | None, panels: Mapping[str, Times], highlighted: str) -> None:
    """Draw a panel of horizontal bars for each workload: medians, with a line from the fastest to the slowest round."""
    panels = {name: times for name, times in panels.items() if times}
    if not file or not panels:
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    tallest = max(len(times) for times in panels.values())
    figure, axes = pyplot.subplots(
        lines, columns, figsize=(6.4 * columns, lines * (0.9 + 0.28 * tallest)), squeeze=False, layout="constrained"
    )
    for ax, (name, times) in zip(axes.flat, panels.items()):
        _bars(ax, name, times, highlighted)
        ax.set_ylim(tallest - 0.5, -0.5)  # from above, every bar as thick as those of the fullest panel
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    figure.savefig(file, dpi=150)
    pyplot.close(figure)


def _bars(ax: Any, name: str, times: Times, highlighted: str) -> None:
    medians = [statistics.median(values) * 1e3 for values in times.values()]
    reach = [
        [middle - min(values) * 1e3 for middle, values in zip(medians, times.values())],
        [max(values) * 1e3 - middle for middle, values in zip(medians, times.values())],
    ]
    colors = ["#d1495b" if title == highlighted else "#8fa3b0" for title in times]
    ax.barh(list(times), medians, xerr=reach, color=colors, height=0.72, error_kw={"ecolor": "#333333", "lw": 1})
    right = max(max(values) for values in times.values()) * 1e3
    for row, (middle, values) in enumerate(zip(medians, times.values())):
        ax.text(max(values) * 1e3 + 0.015 * right, row, show_seconds(middle / 1e3), va="center", fontsize=8)
    ax.set_xlim(0, right * 1.18)
    ax.set_title(name, loc="left", fontweight="bold")
    ax.set_xlabel("ms, less is better")
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    for label in ax.get_yticklabels():
        label.set_fontweight("bold" if label.get_text() == highlighted else "normal")
