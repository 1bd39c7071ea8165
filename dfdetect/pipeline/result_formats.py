"""Result lines as text: a line of JSON, rows of a table, a sentence for a person."""

import json
from collections.abc import Sequence
from typing import Any

from dfdetect.pipeline import result_lines

CSV_COLUMNS = (
    "path",
    "kind",
    "status",
    "width",
    "height",
    "head",
    "ymin",
    "xmin",
    "ymax",
    "xmax",
    "score",
    "head_fake_probability",
    "fake_probability",
    "verdict",
    # Filled for clips, which have a row for each track: the head is its most
    # suspicious one.
    "track",
    "first_time",
    "last_time",
    "num_heads",
    "track_fake_probability",
    "matters",
)
LOOKUP_COLUMNS = (
    "nearest_real",
    "nearest_real_similarity",
    "nearest_fake",
    "nearest_fake_similarity",
    "familiarity",
    "unfamiliar",
)


def describe_image(result: result_lines.ResultLine) -> str:
    """Says in one sentence, for a person, what was found in an image that was read.

    Args:
        result: The line of the image.
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


def json_line(result: Any) -> str:
    """Formats a result on one line of JSON, in readable UTF-8 where it can be encoded.

    Args:
        result: A `result_lines.ResultLine`, or another dictionary that JSON can hold.
    """
    line = json.dumps(result, ensure_ascii=False, allow_nan=False)
    try:
        line.encode()
    except UnicodeEncodeError:  # A file name that is not UTF-8.
        return json.dumps(result, allow_nan=False)
    return line


def csv_rows(
    result: result_lines.ResultLine, looked_up: bool = False
) -> list[list[Any]]:
    """Formats a result as rows of `CSV_COLUMNS`.

    An image has a row for each head, a clip one for each track; where there is none,
    one row without a head.

    Args:
        result: The result line.
        looked_up: Whether `LOOKUP_COLUMNS` follow.
    """
    before: list[Any] = [
        result["path"],
        result["kind"],
        result["status"],
        result["width"],
        result["height"],
    ]
    after: list[Any] = [result["fake_probability"], result["verdict"]]
    heads: list[list[Any]] = [
        [i, *head["box"], head["score"], head["fake_probability"]]
        for i, head in enumerate(result["heads"])
    ]
    tracks: Sequence[list[Any]] = [
        [
            track["track"],
            track["first_time"],
            track["last_time"],
            track["num_heads"],
            track["fake_probability"],
            # Lines of earlier versions, taken from --resume, lack it.
            track.get("matters"),
        ]
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


def _known_columns(head: result_lines.Head) -> list[Any]:
    columns: list[Any] = []
    for nearest in (head.get("nearest_real"), head.get("nearest_fake")):
        columns += [nearest["id"], nearest["similarity"]] if nearest else [None, None]
    return [*columns, head.get("familiarity"), head.get("unfamiliar")]
