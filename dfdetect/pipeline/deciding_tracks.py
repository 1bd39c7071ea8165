"""Chooses the tracks of a clip that decide its verdict, and the main person.

An object in the background may be detected as a head in every frame, and judged fake.
So a track counts only if it is seen long enough, is large enough and is detected with
enough confidence, each compared with the main person.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# A track of fewer judged heads does not decide, unless no track has as many: brief
# detections are seldom heads.
_LEAST_HEADS = 3

# Why a track does not decide.
BRIEF, SMALL, DOUBTFUL, UNJUDGED = "brief", "small", "doubtful", "unjudged"


@dataclasses.dataclass(frozen=True)
class Rule:
    """Least values of a track that decides; see dfdetect/cli/README.md.

    Attributes:
        share: Share of the judged frames of its shot that show it.
        size: Its size relative to that of the most prominent track of its shot.
        score: Its score relative to that of the main person.
    """

    share: float = 0.25
    size: float = 0.4
    score: float = 0.75


DEFAULT_RULE = Rule()


@dataclasses.dataclass(frozen=True)
class TrackSummary:
    """Properties of a track besides its probability.

    Attributes:
        number: Number of the track.
        shot: Number of its shot; a cut begins new tracks.
        num_heads: Frames that show it.
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
        """Size times number of frames."""
        return self.num_heads * self.size


def summarize(frames: Sequence[Mapping[str, Any]]) -> list[TrackSummary]:
    """Summarizes the tracks of a clip, in the order of their first heads.

    Args:
        frames: The `frames` of a result line, each with `shot` and `heads`, which have
            `track`, `box`, `score` and `fake_probability`.
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
    """Finds the most prominent track; None without tracks.

    Tracks without a judged head are skipped unless there are no others. Of equally
    prominent tracks, it is the first.
    """
    judged = [track for track in summaries if track.num_judged]
    return max(judged or summaries, key=lambda track: track.prominence, default=None)


def set_aside(
    summaries: Sequence[TrackSummary], rule: Rule = DEFAULT_RULE
) -> dict[int, list[str]]:
    """Finds out for each track why it does not decide.

    Args:
        summaries: Summaries of all tracks of a clip.
        rule: Least values of a track that decides.

    Returns:
        By number of the track the reasons, of `BRIEF`, `SMALL`, `DOUBTFUL` and
        `UNJUDGED`; empty for a track that may decide, as the main person always may if
        it was judged.
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
