"""Report of a detector's evaluation: tables, a curve and the worst images."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import matplotlib.figure
import numpy as np

from dfdetect import files
from dfdetect.media import drawing
from dfdetect.metrics import detection, detection_protocol

_NUM_WORST = 12
_COLUMNS = 3
_TILE = (480, 640)  # Height and width of an image's place on the sheet, in pixels.
_CAPTION = 20  # Height of the line below it.
_DIFFICULT = (0, 130, 0)

# What the figures mean; those of COCO have a prefix.
_MEANINGS = {
    "ap": "all-point average precision, IoU .5, boxes from edge to edge",
    "voc_ap": "the same with VOC's pixels, each side longer by 1 "
    "(HollywoodHeads' official protocol)",
    "recall": "share of the heads found at any score",
    "f1": "highest F1",
    "f1_score_threshold": "score at the highest F1",
    "num_true": "heads to find, without difficult ones",
    "num_images": "images",
    "coco ap": "COCO, IoU .50:.95",
    "coco ap50": "COCO, IoU .50",
    "coco ap75": "COCO, IoU .75",
    "coco ap_small": "COCO, IoU .50:.95, heads below 32 x 32 px",
    "coco ap_medium": "COCO, IoU .50:.95, heads of 32 x 32 to 96 x 96 px",
    "coco ap_large": "COCO, IoU .50:.95, heads above 96 x 96 px",
    "coco ar100": "COCO, recall of 100 detections an image, IoU .50:.95",
}

Images = Mapping[int, tuple[str, np.ndarray]]


def write_report(
    folder: str,
    figures: dict[str, Any],
    found: detection_protocol.Pairs,
    truth: detection_protocol.Pairs,
    *,
    extents: np.ndarray,
    images: Callable[[Sequence[int]], Images],
) -> None:
    """Writes `report.md`, `precision_recall.png` and `worst_images.jpg`.

    Args:
        folder: Folder to write to; created if absent.
        figures: `model`, `split`, `where`, `data` (of `prepared.describe_dataset`), and
            `metrics`: those of `detection_protocol.compute_metrics` and, as `coco`, of
            `coco.compute_metrics`.
        found: Boxes and scores of each image, see `detection_protocol.compute_metrics`.
        truth: True boxes of each image, and whether each is difficult.
        extents: `[num_images, 2]`, heights and widths of the originals in pixels.
        images: Maps places to names and images, see `detector_input.read_images`.
    """
    matches = detection_protocol.match_images(found, truth, extents)
    threshold = figures["metrics"]["f1_score_threshold"]
    missed, wrong, scores = count_errors(matches, threshold)
    # A missed head weighs as much as a false one that the detector is sure of.
    badness = missed + scores
    worst = [int(i) for i in np.argsort(-badness, kind="stable") if badness[i] > 0]
    worst = worst[:_NUM_WORST]
    shown = images(worst)
    lines = format_tables(figures)
    lines += [f"| {shown[i][0]} | {missed[i]} | {wrong[i]} |" for i in worst]
    tiles = [
        _draw_tile(
            shown[i][1],
            f"{shown[i][0]}: {missed[i]} missed, {wrong[i]} false",
            found[i],
            truth[i],
            threshold,
        )
        for i in worst
    ]
    files.write(os.path.join(folder, "report.md"), "\n".join([*lines, ""]).encode())
    curve = draw_precision_recall(matches)
    files.write(os.path.join(folder, "precision_recall.png"), curve)
    sheet = drawing.encode_image(arrange_tiles(tiles), ".jpg")
    files.write(os.path.join(folder, "worst_images.jpg"), sheet)


def count_errors(
    matches: detection_protocol.Matches, score_threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts the errors of each image among detections from a score on.

    Returns:
        Missed heads, int `[num_images]`; false positives, int `[num_images]`; sums of
        the scores of false positives.
    """

    def per_image(images: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        return np.bincount(images, weights, matches.num_images)

    counted = matches.scores >= score_threshold
    right, wrong = counted & matches.correct, counted & ~matches.correct
    missed = per_image(matches.true_images) - per_image(matches.images[right])
    false_images = matches.images[wrong]
    return (
        missed,
        per_image(false_images),
        per_image(false_images, matches.scores[wrong]),
    )


def format_tables(figures: dict[str, Any]) -> list[str]:
    """Formats the report in Markdown up to the head of the last table, a line each."""
    data, metrics = figures["data"], figures["metrics"]
    named = data["name"], data["config"], data["version"]
    threshold = metrics["f1_score_threshold"]
    chosen = " and ".join(figures["where"]).replace("|", r"\|")
    return [
        f"# Detection on {data['name']}, {figures['split']}",
        "",
        "| | |",
        "|---|---|",
        f"| model | {figures['model']} |",
        f"| data | {' '.join(filter(None, named))} |",
        f"| split | {figures['split']} |",
        f"| chosen | {chosen or 'all records'} |",
        f"| fingerprint | {data['fingerprint']} |",
        "",
        *_figure_rows(metrics),
        "",
        "| false positives an image | recall |",
        "|---|---|",
        *(f"| {k} | {_format(v)} |" for k, v in metrics["recall_at_fppi"].items()),
        "",
        "Sizes are roots of the area, in pixels of the original images.",
        "",
        "| size | heads | ap | recall |",
        "|---|---|---|---|",
        *(
            f"| {k} | {v['num_true']} | {_format(v['ap'])} | {_format(v['recall'])} |"
            for k, v in metrics["by_size"].items()
        ),
        "",
        "![Precision and recall](precision_recall.png)",
        "",
        f"The worst images where heads count from a score of {_format(threshold)} on: "
        "those with the most missed heads and false ones of high scores. True boxes "
        "are green, dark where difficult, predicted ones orange.",
        "",
        "![Worst images](worst_images.jpg)",
        "",
        "| image | missed | false |",
        "|---|---|---|",
    ]


def draw_precision_recall(matches: detection_protocol.Matches) -> bytes:
    """Draws the curve whose area is the average precision as PNG."""
    figure = matplotlib.figure.Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    num_true = len(matches.true_sizes)
    if num_true:
        recall, precision = detection.precision_recall_curve(matches.correct, num_true)
        recall = np.concatenate([[0], recall, [recall.max(initial=0)]])
        precision = np.concatenate([[precision.max(initial=0)], precision, [0]])
        axes.step(recall, precision, where="pre")
    average = detection_protocol.average_precision(matches)
    axes.set(xlabel="recall", ylabel="precision", title=f"AP {_format(average)}")
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    return drawing.encode_figure(figure)


def arrange_tiles(tiles: Sequence[np.ndarray]) -> np.ndarray:
    """Arranges tiles of one size in rows and columns; without any, an empty one."""
    height, width = _TILE
    rows = max(1, math.ceil(len(tiles) / _COLUMNS))
    sheet = np.zeros((rows, _COLUMNS, height + _CAPTION, width, 3), np.uint8)
    for place, tile in enumerate(tiles):
        sheet[divmod(place, _COLUMNS)] = tile
    # [R, C, H, W, 3] -> [R*H, C*W, 3]
    return sheet.swapaxes(1, 2).reshape(rows * (height + _CAPTION), -1, 3)


def _figure_rows(metrics: dict[str, Any]) -> list[str]:
    """Formats the table of single figures and what they mean."""
    coco = {f"coco {name}": value for name, value in metrics["coco"].items()}
    everything = {**metrics, **coco}
    lines = ["| figure | value | 95 % interval | |", "|---|---|---|---|"]
    for name, meaning in _MEANINGS.items():
        ends = everything.get(f"{name}_interval", ())
        interval = " to ".join(map(_format, ends))
        lines.append(
            f"| {name} | {_format(everything[name])} | {interval} | {meaning} |"
        )
    return lines


def _draw_tile(
    image: np.ndarray,
    caption: str,
    found: tuple[np.ndarray, np.ndarray],
    truth: tuple[np.ndarray, np.ndarray],
    threshold: float,
) -> np.ndarray:
    """Draws an image with its boxes at the upper left of its tile, and a line below."""
    scale = min(_TILE[0] / image.shape[0], _TILE[1] / image.shape[1])
    height, width = (max(1, int(side * scale)) for side in image.shape[:2])
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = cv2.resize(image, (width, height), interpolation=kind)
    pixels = np.array([height, width, height, width])
    # Two pixels wide: a JPEG takes the color out of finer lines.
    for box, difficult in zip(*truth, strict=True):
        color = _DIFFICULT if difficult else drawing.TRUE
        drawing.draw_box(small, box * pixels, color, line=2)
    for box, score in zip(*found, strict=True):
        if score >= threshold:
            drawing.draw_box(
                small, box * pixels, drawing.PREDICTED, text=f"{score:.2f}", line=2
            )
    tile = np.zeros((_TILE[0] + _CAPTION, _TILE[1], 3), np.uint8)
    tile[:height, :width] = small
    place = (4, _TILE[0] + 14)
    caption = drawing.make_drawable(caption)
    cv2.putText(tile, caption, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1)
    return tile


def _format(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4f}"
