"""Measures verdicts on whole clips: from a folder with a `labels.csv` to figures.

The columns are those of `datasets/labeled_faces`: `path` from the folder and `label`
(real, fake, 0 or 1), and where known `split` (train, val, validation or test) and
`group`, what clips have in common: a video and the fakes made of it.
"""

import csv
import dataclasses
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from dfdetect import console, files, labels, script
from dfdetect.data import label_table
from dfdetect.evaluation import classification_protocol, predictions
from dfdetect.metrics import calibration
from dfdetect.pipeline import aggregation, result_lines
from dfdetect.pipeline import clips as clip_findings


@dataclasses.dataclass(frozen=True)
class LabeledClip:
    """A row of `labels.csv`.

    Attributes:
        path: With the folder.
        name: Without it.
        label: See `dfdetect.labels`.
        group: Its name where none is given.
    """

    path: str
    name: str
    label: int
    group: str


_Clip = TypeVar("_Clip", bound=LabeledClip)


def read_clips(folder: str, split: str) -> list[LabeledClip]:
    """Reads `labels.csv`.

    Args:
        folder: Folder of the clips.
        split: Clips that name another are left out; those that name none are taken.

    Raises:
        FileNotFoundError: There is no `labels.csv`.
        ValueError: A row is wrong, or no clip is left.
    """
    table = os.path.join(folder, label_table.FILE_NAME)
    with open(table, "rb") as file:
        rows = label_table.read_table(
            file.read(),
            table,
            exists=lambda name: os.path.isfile(os.path.join(folder, name)),
            say=script.say,
        )
    wanted = label_table.parse_split(split) or split
    clips = [
        LabeledClip(
            os.path.join(folder, row.path), row.path, row.label, row.group or row.path
        )
        for row in rows
        if row.split in ("", wanted)
    ]
    if not clips:
        raise ValueError(f"{table}: there are no clips of the split {split!r}.")
    return clips


def judge_clips(
    clips: Sequence[_Clip],
    judge: Callable[[_Clip], tuple[result_lines.ResultLine, str]],
    say: Callable[[str], None],
) -> list[result_lines.ResultLine]:
    """Judges clips, and returns their result lines; prints problems.

    Args:
        clips: Clips to judge.
        judge: See `clips.ClipJudge`, but of such a clip.
        say: Prints a line.
    """
    lines = []
    with console.Progress(len(clips), say, noun="clip") as shown:
        for clip in clips:
            line, problem = judge(clip)
            problem = problem or line.get("warning", "")
            if problem:
                say(f"{clip.path!r}: {problem}")
            lines.append(line)
            shown.count(line["verdict"] or line["status"])
    return lines


def measure_clips(
    clips: Sequence[LabeledClip],
    lines: Sequence[result_lines.ResultLine],
    aggregate: str,
    thresholds: calibration.Thresholds,
    num_resamples: int,
) -> dict[str, Any]:
    """Measures the figures of clips, with intervals by group.

    Returns:
        `aggregate`; `metrics`, see `classification_protocol.measure`, of the clips that
        have a probability, that of the deciding track; `num_clips`, and of those
        without one `unanswered`, by status; `by_aggregate`, the `metrics` of each of
        `aggregation.METHODS`; `main_person`, with `metrics` and `by_aggregate` of the
        main persons' probabilities instead, and `num_deciding`, the clips in which the
        main person decides.
    """
    answered = [x["fake_probability"] is not None for x in lines]
    unanswered: dict[str, int] = {}
    for line, has_answer in zip(lines, answered, strict=True):
        if not has_answer:
            unanswered[line["status"]] = unanswered.get(line["status"], 0) + 1
    kept = [clip for clip, there in zip(clips, answered, strict=True) if there]
    judged = [line for line, there in zip(lines, answered, strict=True) if there]
    by_aggregate, of_main_person = {}, {}
    for method in aggregation.METHODS:
        concluded = [clip_findings.conclude(x, method, thresholds) for x in judged]
        deciding = [line["fake_probability"] for line in concluded]
        # Where a track decides the main person was judged, too.
        main = [_main_person(line)["fake_probability"] for line in concluded]
        by_aggregate[method], of_main_person[method] = (
            classification_protocol.measure(
                _predictions(kept, np.array(probabilities, np.float64)), num_resamples
            )
            for probabilities in (deciding, main)
        )
    concluded = [clip_findings.conclude(x, aggregate, thresholds) for x in judged]
    return {
        "aggregate": aggregate,
        "num_clips": len(clips),
        "unanswered": unanswered,
        "metrics": by_aggregate[aggregate],
        "by_aggregate": by_aggregate,
        "main_person": {
            "num_deciding": sum(
                _main_person(line)["track"] == line["deciding_track"]
                for line in concluded
            ),
            "metrics": of_main_person[aggregate],
            "by_aggregate": of_main_person,
        },
    }


def _main_person(line: result_lines.ResultLine) -> result_lines.TrackVerdict:
    main = line["main_person"]
    assert main is not None  # Some track has a probability.
    return main


def write_results(
    folder: str, clips: Sequence[LabeledClip], lines: Sequence[result_lines.ResultLine]
) -> None:
    """Writes `predictions.csv`, a row a clip, and `results.jsonl`, the result lines."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(
        ["path", "label", "fake_probability", "verdict", "status", "num_tracks"]
        + ["group", "deciding_track", "main_track", "main_fake_probability"]
    )
    for clip, line in zip(clips, lines, strict=True):
        said = [line[key] for key in ("fake_probability", "verdict", "status")]
        name = labels.NAMES[clip.label]
        main: Mapping[str, Any] = line["main_person"] or {}
        rows.writerow(
            [clip.name, name, *said, len(line["tracks"]), clip.group]
            + [line["deciding_track"], main.get("track"), main.get("fake_probability")]
        )
    files.write(os.path.join(folder, "predictions.csv"), text.getvalue().encode())
    content = "".join(f"{json.dumps(line)}\n" for line in lines)
    files.write(os.path.join(folder, "results.jsonl"), content.encode())


def _predictions(
    clips: Sequence[LabeledClip], probabilities: np.ndarray
) -> predictions.Predictions:
    names = np.array([clip.name for clip in clips], str)
    unknown = np.full(len(clips), np.nan)
    return predictions.Predictions(
        filenames=names,
        labels=np.array([clip.label for clip in clips], np.int64),
        logits=unknown,
        probabilities=probabilities,
        groups=np.array([clip.group for clip in clips], str),
        videos=names,
        sizes=unknown,
        fields={},
    )
