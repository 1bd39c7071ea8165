"""What a person sees of `robustness.measure`: small curves and two tables."""

import io
from typing import Any

import matplotlib.figure
from matplotlib.backends import backend_agg

from dfdetect import alterations

FILE_NAME = "robustness.png"

_COLUMNS = 3


def section(results: dict[str, Any]) -> tuple[list[str], dict[str, bytes]]:
    """What a report says about the results of `robustness.measure`.

    Returns:
        Lines of Markdown from a heading on, and the files they name.
    """
    lines = [
        "## Robustness",
        "",
        f"{results['num_crops']} crops of {results['num_groups']} groups, altered; in "
        "brackets what the strength stands for. The bands of the plot are 95 % "
        "intervals by group.",
        "",
        f"![Robustness]({FILE_NAME})",
        "",
    ]
    for figure, title in (
        ("auc", "AUC"),
        (
            "balanced_accuracy",
            f"balanced accuracy at a fake probability of {results['threshold']:g}",
        ),
    ):
        lines += [
            f"| {title} | clean | 1 | 2 | 3 | 4 | 5 |",
            "|---|---|---|---|---|---|---|",
            *(
                _row(f"{name}, {found['unit']}", found["points"], figure)
                for name, found in results["alterations"].items()
            ),
            "",
        ]
    lines += [
        f"Not measured: {name}, {why}." for name, why in results["skipped"].items()
    ]
    return lines, {FILE_NAME: plot(results)}


def plot(results: dict[str, Any]) -> bytes:
    """A PNG of small curves, one for each alteration: AUC against strength."""
    everything = results["alterations"]
    rows = max(1, -(-len(everything) // _COLUMNS))
    figure = matplotlib.figure.Figure(
        figsize=(3.4 * _COLUMNS, 2.6 * rows), layout="constrained"
    )
    grid = figure.subplots(rows, _COLUMNS, sharey=True, squeeze=False)
    clean = results["clean"]["auc"]
    for axes in grid.flat[len(everything) :]:
        axes.set_axis_off()
    for axes, (name, found) in zip(grid.flat, everything.items(), strict=False):
        points = found["points"]
        strengths = [point["strength"] for point in points]
        low, high = zip(*(point["auc_interval"] for point in points), strict=True)
        axes.fill_between(strengths, low, high, alpha=0.25, linewidth=0)
        axes.plot(strengths, [point["auc"] for point in points], marker="o")
        axes.axhline(clean, color="black", linewidth=0.8, linestyle="--")
        axes.axhline(0.5, color="grey", linewidth=0.8, linestyle=":")
        axes.set_xticks(
            range(alterations.STRENGTHS + 1),
            ["clean"]
            + [f"{point['value']:g}" for point in points[1:]]
            + [""] * (alterations.STRENGTHS + 1 - len(points)),
        )
        axes.set_xlim(-0.3, alterations.STRENGTHS + 0.3)
        axes.set(title=name, xlabel=found["unit"])
        axes.grid(alpha=0.3)
    for axes in grid[:, 0]:
        axes.set_ylabel("AUC")
    content = io.BytesIO()
    backend_agg.FigureCanvasAgg(figure).print_png(content)
    return content.getvalue()


def _row(title: str, points: list[dict[str, Any]], figure: str) -> str:
    cells = [f"{points[0][figure]:.3f}"]
    cells += [f"{point[figure]:.3f} ({point['value']:g})" for point in points[1:]]
    cells += [""] * (alterations.STRENGTHS + 1 - len(cells))
    return f"| {title} | {' | '.join(cells)} |"
