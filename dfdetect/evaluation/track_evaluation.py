"""Measures whether the tracks that decide a clip are the people who count in it."""

import collections
import csv
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dfdetect import boxes as box_format
from dfdetect.evaluation.composed_clips import Truth
from dfdetect.pipeline import deciding_tracks

# A head that is found is one that is there from this overlap on; a twin around the same
# head has more.
_LEAST_IOU = 0.35


@dataclasses.dataclass(frozen=True)
class Case:
    """A judged clip whose people are known.

    Attributes:
        source: Name under which it is counted, such as that of a scene.
        name: Name of the clip.
        line: Its result line.
        truths: Heads in a frame, by the index of the frame. A frame that is not
            among them takes those of the nearest that is.
    """

    source: str
    name: str
    line: Mapping[str, Any]
    truths: Mapping[int, Sequence[Truth]]

    @functools.cached_property
    def parts(self) -> dict[int, Truth | None]:
        """See `assign_parts`; made once for all rules."""
        return assign_parts(self)


def read_heads(path: str) -> dict[str, dict[int, list[Truth]]]:
    """Reads the boxes of those who count: clip,frame,ymin,xmin,ymax,xmax[,...].

    Args:
        path: Path of a CSV file; boxes are shares of the image.

    Returns:
        Heads by clip and frame; the heads of a frame are its parts, in order.

    Raises:
        ValueError: A column is missing, or a value is not a number.
    """
    edges = ("ymin", "xmin", "ymax", "xmax")
    truths: dict[str, dict[int, list[Truth]]] = {}
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if missing := {"clip", "frame", *edges} - set(reader.fieldnames or ()):
            raise ValueError(
                f"{path}: there is no column {', '.join(sorted(missing))}."
            )
        for row in reader:
            try:
                frame = int(row["frame"])
                box = np.array([float(row[edge]) for edge in edges])
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}:{reader.line_num}: {error}.") from error
            of_frame = truths.setdefault(row["clip"], {}).setdefault(frame, [])
            of_frame.append(Truth(box, len(of_frame), True))
    return truths


def assign_parts(case: Case) -> dict[int, Truth | None]:
    """Finds whose head each track of a clip is.

    Returns:
        For each track number, the truth that most of its heads overlap with an IoU
        of at least .35, or None where most overlap none.
    """
    known = np.array(sorted(case.truths))
    votes: dict[int, list[int]] = {}
    parts: dict[int, Truth] = {}
    for frame in case.line["frames"]:
        present: Sequence[Truth] = ()
        if len(known):
            present = case.truths[known[np.abs(known - frame["index"]).argmin()]]
        found = _match(frame["heads"], present)
        for head, truth in zip(frame["heads"], found, strict=True):
            part = -1
            if truth:
                part = truth.part
                parts[part] = truth
            votes.setdefault(head["track"], []).append(part)
    return {
        number: parts.get(collections.Counter(numbers).most_common(1)[0][0])
        for number, numbers in votes.items()
    }


def _match(
    heads: Sequence[Mapping[str, Any]], present: Sequence[Truth]
) -> list[Truth | None]:
    """For each head of a frame the truth that it overlaps most, if enough."""
    if not heads or not present:
        return [None] * len(heads)
    head_boxes = np.array([head["box"] for head in heads], np.float64)
    truth_boxes = np.array([truth.box for truth in present], np.float64)
    overlaps = np.asarray(box_format.iou(head_boxes, truth_boxes))
    return [
        present[row.argmax()] if row.max() >= _LEAST_IOU else None for row in overlaps
    ]


def measure_rule(
    cases: Sequence[Case], rule: deciding_tracks.Rule
) -> dict[str, dict[str, int]]:
    """Counts by source what a rule gets right.

    Returns:
        By source, and "all": `clips`; `answered`, those in which a person who counts
        has a track that was judged; of those `main_person`, whose main person counts;
        `other_may_decide`, in which a track that is nobody's who counts may decide;
        `people`, who count and have a track that was judged; and `people_decide`, those
        of them of whom a track may decide.
    """
    counts: dict[str, collections.Counter[str]] = {}
    for case in cases:
        found = _count(case, rule)
        for source in (case.source, "all"):
            counts.setdefault(source, collections.Counter()).update(found)
    return {source: dict(count) for source, count in counts.items()}


def describe_tracks(case: Case, rule: deciding_tracks.Rule) -> list[dict[str, Any]]:
    """Describes each track of a clip: whose it is, what it has, and what the rule says.

    Returns:
        A row for each track: `clip`, `track`, `person` (of the truth, None for none),
        `counts`, `share` of its shot's frames, `size` and `score` as shares of the main
        person's, and `set_aside`.
    """
    summaries = deciding_tracks.summarize(case.line["frames"])
    main = deciding_tracks.find_main_person(summaries)
    if main is None:
        return []
    reasons = deciding_tracks.set_aside(summaries, rule)
    parts = case.parts
    rows = []
    for track in summaries:
        truth = parts[track.number]
        rows.append(
            {
                "clip": case.name,
                "track": track.number,
                "person": truth.part if truth else None,
                "counts": bool(truth and truth.counts),
                "share": round(track.share, 3),
                "size": round(track.size / max(main.size, 1e-9), 3),
                "score": round(track.score / max(main.score, 1e-9), 3),
                "set_aside": reasons[track.number],
            }
        )
    return rows


def _count(case: Case, rule: deciding_tracks.Rule) -> dict[str, int]:
    summaries = deciding_tracks.summarize(case.line["frames"])
    reasons = deciding_tracks.set_aside(summaries, rule)
    parts = case.parts
    main = deciding_tracks.find_main_person(summaries)
    judged, deciding = set(), set()
    other_may_decide = False
    for track in summaries:
        truth = parts[track.number]
        if truth and truth.counts:
            if track.num_judged:
                judged.add(truth.part)
            if not reasons[track.number]:
                deciding.add(truth.part)
        elif not reasons[track.number]:
            other_may_decide = True
    main_truth = parts[main.number] if main else None
    answered = bool(judged)
    return {
        "clips": 1,
        "answered": int(answered),
        "main_person": int(answered and bool(main_truth and main_truth.counts)),
        "other_may_decide": int(answered and other_may_decide),
        "people": len(judged),
        "people_decide": len(deciding & judged),
    }
