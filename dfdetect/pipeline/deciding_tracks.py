"""Chooses the tracks of a clip that decide its verdict, and the main person.

What lies in the background may be taken for a head in every frame, and judged a fake.
So a track counts only if it was seen long enough, is large enough and the detector is
sure enough of it, each compared with the main person.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Result = dict[str, Any]

# A track of fewer judged heads does not decide, unless none has as many: what is taken
# for a head in passing seldom is one.
_LEAST_HEADS = 3

# Why a track does not decide.
BRIEF, SMALL, DOUBTFUL, UNJUDGED = "brief", "small", "doubtful", "unjudged"


@dataclasses.dataclass(frozen=True)
class Rule:
    """The least that a track must have to decide; measured in README.md, "Clips".

    Attributes:
        share: Of the judged frames of its shot, in which it was seen.
        size: Of the size of the most prominent track of its shot.
        score: Of the score of the main person.
    """

    share: float = 0.25
    size: float = 0.4
    score: float = 0.75


DEFAULT_RULE = Rule()


@dataclasses.dataclass(frozen=True)
class TrackSummary:
    """What is known of a track besides its probability.

    Attributes:
        number: Number of the track.
        shot: Number of its shot; a cut begins new tracks.
        num_heads: Frames in which it was seen.
        num_judged: Frames in which its head has a fake probability.
        share: `num_heads` as a share of the judged frames of the shot, in (0, 1].
        size: Median over the frames of `sqrt(height * width)` of the box, where the
            image is 1 x 1; in [0, 1].
        score: Mean score of the detector, in [0, 1].
    """

    number: int
    shot: int
    num_heads: int
    num_judged: int
    share: float
    size: float
    score: float

    @property
    def prominence(self) -> float:
        """Largest times longest."""
        return self.num_heads * self.size


def summarize(frames: Sequence[Mapping[str, Any]]) -> list[TrackSummary]:
    """Summarizes the tracks of a clip, in the order of their first heads.

    Args:
        frames: Of the result line: each with `shot` and `heads`, which have `track`,
            `box`, `score` and `fake_probability`.
    """
    lengths: dict[int, int] = {}
    shots: dict[int, int] = {}
    heads_by_track: dict[int, list[Mapping[str, Any]]] = {}
    for frame in frames:
        lengths[frame["shot"]] = lengths.get(frame["shot"], 0) + 1
        for head in frame["heads"]:
            shots.setdefault(head["track"], frame["shot"])
            heads_by_track.setdefault(head["track"], []).append(head)
    summaries = []
    for number, heads in heads_by_track.items():
        boxes = np.array([head["box"] for head in heads], np.float64)
        areas = (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(1)
        summaries.append(
            TrackSummary(
                number=number,
                shot=shots[number],
                num_heads=len(heads),
                num_judged=sum(head["fake_probability"] is not None for head in heads),
                share=len(heads) / lengths[shots[number]],
                size=float(np.median(np.sqrt(areas))),
                score=float(np.mean([head["score"] for head in heads])),
            )
        )
    return summaries


def find_main_person(summaries: Sequence[TrackSummary]) -> TrackSummary | None:
    """Finds the most prominent track, largest times longest; None without tracks.

    Tracks without a judged head are passed over where others have some. Of equals the
    first is taken.
    """
    judged = [track for track in summaries if track.num_judged]
    return max(judged or summaries, key=lambda track: track.prominence, default=None)


def set_aside(
    summaries: Sequence[TrackSummary], rule: Rule = DEFAULT_RULE
) -> dict[int, list[str]]:
    """Tells for each track why it does not decide.

    Args:
        summaries: Of all tracks of a clip.
        rule: The least that a track must have.

    Returns:
        By number the reasons, of `BRIEF`, `SMALL`, `DOUBTFUL` and `UNJUDGED`; empty for
        a track that decides. That of the main person is empty if it was judged.
    """
    main = find_main_person(summaries)
    if main is None:
        return {}
    most_heads = max(track.num_judged for track in summaries)
    least_heads = min(most_heads, _LEAST_HEADS)
    by_shot: dict[int, list[TrackSummary]] = {}
    for track in summaries:
        by_shot.setdefault(track.shot, []).append(track)
    reasons: dict[int, list[str]] = {}
    for track in summaries:
        nearby = find_main_person(by_shot[track.shot]) or main
        failed = {
            BRIEF: track.share < rule.share or track.num_judged < least_heads,
            SMALL: track.size < rule.size * nearby.size,
            DOUBTFUL: track.score < rule.score * main.score,
        }
        reasons[track.number] = [name for name, holds in failed.items() if holds]
        if not track.num_judged:
            reasons[track.number] = [UNJUDGED]
        elif track is main:
            reasons[track.number] = []
    return reasons
