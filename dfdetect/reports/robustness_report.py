"""Small curves and two tables of the results of `robustness.measure_robustness`."""

from typing import Any

import matplotlib.figure

from dfdetect.evaluation import corruptions
from dfdetect.media import drawing
from dfdetect.reports import document

FILE_NAME = "robustness.png"

_COLUMNS = 3


def build_blocks(results: dict[str, Any], prefix: str = "") -> list[document.Block]:
    """Builds the blocks of a report from `robustness.measure_robustness`.

    Args:
        results: Results of `robustness.measure_robustness`, or the `reason` why there
            are none.
        prefix: Prefix of the name of the plot's file.
    """
    if "reason" in results:
        return [document.Text(f"Robustness: not measured. {results['reason']}")]
    threshold = f"{results['threshold']:g}"
    found: list[document.Block] = [
        document.Text(
            f"Robustness: {results['num_crops']} crops of {results['num_groups']} "
            "groups, altered; what each strength means is in brackets. The bands of "
            "the plot are 95 % intervals by group."
        ),
        document.Image(
            prefix + FILE_NAME, draw_curves(results), "AUC against strength"
        ),
    ]
    for figure, title in (
        ("auc", "AUC of altered crops"),
        (
            "balanced_accuracy",
            f"Balanced accuracy at a fake probability of {threshold}",
        ),
    ):
        rows = [
            _row(f"{name}, {alteration['unit']}", alteration["points"], figure)
            for name, alteration in results["alterations"].items()
        ]
        strengths = [str(i) for i in range(1, corruptions.STRENGTHS + 1)]
        columns = ["alteration", "clean", *strengths]
        found.append(document.Table(columns, rows, title))
    found += [
        document.Text(f"Not measured: {name}, {why}.")
        for name, why in results["skipped"].items()
    ]
    return found


def draw_curves(results: dict[str, Any]) -> bytes:
    """Draws AUC against strength of each corruption as a PNG of small curves."""
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
        axes.axhline(0.5, color="gray", linewidth=0.8, linestyle=":")
        axes.set_xticks(
            range(corruptions.STRENGTHS + 1),
            ["clean"]
            + [f"{point['value']:g}" for point in points[1:]]
            + [""] * (corruptions.STRENGTHS + 1 - len(points)),
        )
        axes.set_xlim(-0.3, corruptions.STRENGTHS + 0.3)
        axes.set(title=name, xlabel=found["unit"])
        axes.grid(alpha=0.3)
    for axes in grid[:, 0]:
        axes.set_ylabel("AUC")
    return drawing.encode_figure(figure)


def _row(title: str, points: list[dict[str, Any]], figure: str) -> list[str]:
    cells = [_cell(points[0], figure)]
    cells += [f"{_cell(point, figure)} ({point['value']:g})" for point in points[1:]]
    cells += [""] * (corruptions.STRENGTHS + 1 - len(cells))
    return [title, *cells]


def _cell(point: dict[str, Any], figure: str) -> str:
    low, high = point[f"{figure}_interval"]
    return f"{point[figure]:.3f} [{low:.3f}, {high:.3f}]"
