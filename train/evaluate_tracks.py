"""Measures whether the tracks that decide a clip are the people who count in it.

    python train/evaluate_tracks.py --clips=FOLDER[,FOLDER...] [--faces=yunet.onnx] \
      [--portraits=VOC --rooms=VOC] [--graph=GRAPH] [--output=tracks.json]

Clips are found in the folders and below. If a folder has a `heads.csv`
(clip,frame,ymin,xmin,ymax,xmax), it names the people who count; else the largest face
of each judged frame counts, found by OpenCV's YuNet (--faces). With --portraits and
--rooms clips are composed as well, see `dfdetect.evaluation.composed_clips`. Each rule
of the grid of --shares, --sizes and --scores is measured on the same judged clips; the
first row is the default.
"""

import itertools
import json
import os
from collections.abc import Iterator
from typing import Any

if __name__ == "__main__":
    from dfdetect import console

    # Before TensorFlow is imported: its notes would bury the messages.
    console.capture()

import cv2
import numpy as np
from absl import app, flags

from dfdetect import console, files, script
from dfdetect.evaluation import composed_clips, track_evaluation
from dfdetect.export import graph_cache, graph_folder
from dfdetect.media import source_files, video
from dfdetect.pipeline import clips, deciding_tracks

_CLIPS = flags.DEFINE_list("clips", [], "Folders of clips.")
_FACES = flags.DEFINE_string(
    "faces", None, "YuNet as an ONNX file, for clips without a heads.csv."
)
_PORTRAITS = flags.DEFINE_string(
    "portraits", None, "Folder of portraits in VOC layout, to compose clips from."
)
_ROOMS = flags.DEFINE_string(
    "rooms", None, "Folder of images without people in VOC layout, as backgrounds."
)
_SPLIT = flags.DEFINE_string("split", "val", "Split of the portraits and the rooms.")
_REPEATS = flags.DEFINE_integer("repeats", 6, "Clips of each scene.", lower_bound=1)
_GRAPH = flags.DEFINE_string(
    "graph",
    None,
    "Exported graph that judges clips, or a folder of its versions; by default our "
    "weights.",
)
_FRAMES = flags.DEFINE_integer(
    "frames", 32, "Frames of each clip to judge.", lower_bound=1
)
_SHARES = flags.DEFINE_list("shares", [".25"], "Rules to measure: least shares.")
_SIZES = flags.DEFINE_list("sizes", [".4"], "Rules to measure: least sizes.")
_SCORES = flags.DEFINE_list("scores", [".75"], "Rules to measure: least scores.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file for figures and all tracks.")

# Lowest score of YuNet's faces.
_LEAST_FACE_SCORE = 0.7
# A head's box extends a face's by these shares of its height and width at each edge;
# fitted to heads that were labeled by hand.
_ABOVE, _BELOW, _BESIDE = 0.4, 0.07, 0.26

_COLUMNS = (
    "clips",
    "answered",
    "main_person",
    "other_may_decide",
    "people",
    "people_decide",
)


def main(argv: list[str]) -> None:
    if not _CLIPS.value and not _PORTRAITS.value:
        raise app.UsageError("--clips or --portraits must be given")
    if bool(_PORTRAITS.value) != bool(_ROOMS.value):
        raise app.UsageError("--portraits and --rooms go together")
    rules = _build_rules()
    paths = [path for folder in _CLIPS.value for path in _find_clips(folder)]
    graph = graph_folder.find_graph(_GRAPH.value, script.say)
    model = graph_cache.load(graph, script.say)
    judge = clips.ClipJudge(
        model,
        model.manifest["classifier"]["thresholds"],
        video.Sampling(_FRAMES.value),
    )
    cases = []
    total = len(paths) + len(composed_clips.SCENES) * _REPEATS.value * bool(
        _PORTRAITS.value
    )
    with console.Progress(total, script.say, noun="clip") as shown:
        for case in itertools.chain(_judge_clips(judge, paths), _judge_scenes(judge)):
            cases.append(case)
            shown.count(case.source)
    measured = [(rule, track_evaluation.measure_rule(cases, rule)) for rule in rules]
    _print_table(measured)
    if _OUTPUT.value:
        figures = {
            "model": graph or "default weights",
            "rules": [{**vars(rule), "counts": counts} for rule, counts in measured],
            "tracks": [
                row
                for case in cases
                for row in track_evaluation.describe_tracks(case, rules[0])
            ],
        }
        files.write(_OUTPUT.value, f"{json.dumps(figures, indent=1)}\n".encode())


def _build_rules() -> list[deciding_tracks.Rule]:
    """Builds the default rule, one that excludes nobody, and those of the grid."""
    try:
        grid = [
            deciding_tracks.Rule(*map(float, values))
            for values in itertools.product(_SHARES.value, _SIZES.value, _SCORES.value)
        ]
    except ValueError as error:
        raise app.UsageError(
            f"--shares, --sizes and --scores must be numbers: {error}"
        ) from error
    none = deciding_tracks.Rule(0.0, 0.0, 0.0)
    return list(dict.fromkeys([deciding_tracks.DEFAULT_RULE, none, *grid]))


def _find_clips(folder: str) -> list[str]:
    sources, _ = source_files.find_sources([folder], clips=True)
    paths = [source.path for source in sources if source.is_clip]
    if not paths:
        raise ValueError(f"{folder} has no clips.")
    return paths


def _judge_clips(
    judge: clips.ClipJudge, paths: list[str]
) -> Iterator[track_evaluation.Case]:
    for path in paths:
        folder, name = os.path.split(path)
        table = os.path.join(folder, "heads.csv")
        truths: Any = {}
        if os.path.exists(table):
            truths = track_evaluation.read_heads(table).get(name, {})
        elif _FACES.value is None:
            raise app.UsageError(f"{folder} has no heads.csv and needs --faces")
        line, problem = judge(path)
        if problem:
            raise ValueError(f"{path}: {problem}.")
        if not truths:
            truths = _find_faces(path, [frame["index"] for frame in line["frames"]])
        yield track_evaluation.Case("clips", name, line, truths)


def _find_faces(path: str, indices: list[int]) -> dict[int, list[Any]]:
    """Finds the head around the largest face of each frame that has one."""
    truths: dict[int, list[Any]] = {}
    finder = cv2.FaceDetectorYN.create(str(_FACES.value), "", (1, 1), _LEAST_FACE_SCORE)
    for frame in video.read_frames(path, indices):
        height, width = frame.image.shape[:2]
        finder.setInputSize((width, height))
        _, faces = finder.detect(cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))
        if faces is None:
            continue
        x, y, w, h = max(faces[:, :4].tolist(), key=lambda face: face[2] * face[3])
        top, bottom = y - _ABOVE * h, y + (1 + _BELOW) * h
        left, right = x - _BESIDE * w, x + (1 + _BESIDE) * w
        box = np.array([top / height, left / width, bottom / height, right / width])
        head = composed_clips.Truth(box.clip(0, 1), 0, True)
        truths[frame.index] = [head]
    return truths


def _judge_scenes(
    judge: clips.ClipJudge,
) -> Iterator[track_evaluation.Case]:
    if not (_PORTRAITS.value and _ROOMS.value):
        return
    portraits = composed_clips.read_images(_PORTRAITS.value, _SPLIT.value)
    # A head at an edge cannot be cut out.
    portraits = itertools.cycle([x for x in portraits if _is_whole(x)])
    rooms = composed_clips.read_images(_ROOMS.value, _SPLIT.value)
    grounds = itertools.cycle([room.image for room in rooms])
    for (scene, parts), repeat in itertools.product(
        composed_clips.SCENES.items(), range(_REPEATS.value)
    ):
        truths: dict[int, list[Any]] = {}
        people = [next(portraits) for _ in parts]
        made = composed_clips.compose_clip(
            parts, people, room=next(grounds), num_frames=_FRAMES.value, seed=repeat
        )

        def frames(made: Any = made, truths: Any = truths) -> Iterator[video.Frame]:
            for frame, heads in made:
                truths[frame.index] = heads
                yield frame

        line, _ = judge.judge_frames(f"{scene} {repeat}", frames())
        yield track_evaluation.Case(scene, f"{scene} {repeat}", line, truths)


def _is_whole(portrait: composed_clips.Portrait) -> bool:
    height, width = portrait.image.shape[:2]
    top, left, bottom, right = portrait.box
    edges = (top, left, height - bottom, width - right)
    return bottom > top and min(edges) > 0


def _print_table(measured: list[tuple[deciding_tracks.Rule, Any]]) -> None:
    print(f"| share | size | score | source | {' | '.join(_COLUMNS)} |")
    print("|---" * (4 + len(_COLUMNS)) + "|")
    for place, (rule, counts) in enumerate(measured):
        # By source for the default and none; the sum suffices for the others.
        for source in counts if place < 2 else ["all"]:
            row = [str(counts[source][column]) for column in _COLUMNS]
            values = [f"{value:g}" for value in vars(rule).values()]
            print(f"| {' | '.join([*values, source, *row])} |")


if __name__ == "__main__":
    script.run_main(main)
