"""The lines that `dfdetect detect` prints: JSON for each file, or rows of a table."""

import json
import math
from typing import Any

import numpy as np

from dfdetect.media import image_status
from dfdetect.metrics import calibration

Result = dict[str, Any]

CSV_COLUMNS = (
    *("path", "kind", "status", "width", "height"),
    *("head", "ymin", "xmin", "ymax", "xmax", "score", "head_fake_probability"),
    *("fake_probability", "verdict"),
    # Of clips, which have a row for each track: the head is its most suspicious one.
    *("track", "first_time", "last_time", "num_heads", "track_fake_probability"),
    "matters",
)
LOOKUP_COLUMNS = (
    *("nearest_real", "nearest_real_similarity"),
    *("nearest_fake", "nearest_fake_similarity"),
    *("familiarity", "unfamiliar"),
)

_DIGITS = 6  # what is sure of a float32


def result_line(
    path: str, row: dict[str, np.ndarray], thresholds: calibration.Thresholds
) -> Result:
    """What is said of one image.

    Args:
        path: Of the image.
        row: Its outputs of the graph and its upright `width` and `height`; empty when
            the file could not be read.
        thresholds: See `calibration.decide_verdict`.
    """
    status = image_status.STATUS_NAMES[
        row["status"] if row else image_status.UNREADABLE
    ]
    # A header may promise a size for an image that cannot be decoded.
    size_known = bool(row) and status != "unreadable"
    probability = float(row["fake_probability"]) if row else math.nan
    return {
        "path": path,
        "kind": "image",
        "status": status,
        "width": int(row["width"]) if size_known else None,
        "height": int(row["height"]) if size_known else None,
        "heads": [
            {
                "box": [_number(x) for x in row["boxes"][i]],
                "score": _number(row["head_scores"][i]),
                "fake_probability": _number(row["fake_probabilities"][i]),
            }
            for i in range(row["num_heads"] if row else 0)
        ],
        "fake_probability": _number(probability),
        "verdict": calibration.decide_verdict(probability, thresholds),
    }


def describe_image(result: Result) -> str:
    """What was found in an image that could be read, in one sentence for a person.

    Args:
        result: Its result line.
    """
    num_heads, probability = len(result["heads"]), result["fake_probability"]
    if not num_heads:
        return "no head was found, so there is no verdict"
    heads = "1 head" if num_heads == 1 else f"{num_heads} heads"
    if probability is None:
        return f"{heads}, too small to be judged, so there is no verdict"
    whose = "" if num_heads == 1 else "the most suspicious with "
    return (
        f"{heads}, {whose}fake probability {probability:.2f}: {result['verdict']} "
        "(for research only)"
    )


def json_line(result: Result) -> str:
    """The result on one line, readable where UTF-8 can say it."""
    line = json.dumps(result, ensure_ascii=False, allow_nan=False)
    try:
        line.encode()
    except UnicodeEncodeError:  # a file name that is no UTF-8
        return json.dumps(result, allow_nan=False)
    return line


def csv_rows(result: Result, looked_up: bool = False) -> list[list[Any]]:
    """One row of `CSV_COLUMNS` for each head, and one without when there is none.

    Of a clip, one for each track.

    Args:
        result: The result line.
        looked_up: Whether `LOOKUP_COLUMNS` follow.
    """
    before = [result[key] for key in CSV_COLUMNS[:5]]
    after = [result["fake_probability"], result["verdict"]]
    heads = [
        [i, *head["box"], head["score"], head["fake_probability"]]
        for i, head in enumerate(result["heads"])
    ]
    tracks = [
        [track[key] for key in ("track", "first_time", "last_time", "num_heads")]
        # A line of an earlier version, taken from --resume, does not say it.
        + [track["fake_probability"], track.get("matters")]
        for track in result.get("tracks", ())
    ] or [[None] * 6] * max(len(heads), 1)
    rows = [
        before + head + after + track
        for head, track in zip(heads or [[None] * 7], tracks, strict=True)
    ]
    if not looked_up:
        return rows
    known = [_known_columns(head) for head in result["heads"]]
    empty = [None] * len(LOOKUP_COLUMNS)
    return [row + more for row, more in zip(rows, known or [empty], strict=True)]


def _known_columns(head: Result) -> list[Any]:
    columns = []
    for name in ("nearest_real", "nearest_fake"):
        nearest = head.get(name) or {}
        columns += [nearest.get("id"), nearest.get("similarity")]
    return [*columns, head.get("familiarity"), head.get("unfamiliar")]


def _number(value: float) -> float | None:
    value = round(float(value), _DIGITS)
    return None if math.isnan(value) else value
