import json

import cv2
import numpy as np
import pytest

import tiny_heads
from dfdetect.evaluation import track_evaluation
from dfdetect.evaluation.composed_clips import Truth
from dfdetect.pipeline import deciding_tracks

NONE = deciding_tracks.Rule(0, 0, 0)
PERSON, POSTER = [0.1, 0.1, 0.5, 0.5], [0.8, 0.8, 0.9, 0.9]


def case(*tracks, truths, num_frames=4, source="scene"):
    """A clip in which each track, a box and a probability, is in all frames."""
    heads = [
        {"box": box, "score": 0.9, "fake_probability": probability, "track": number}
        for number, (box, probability) in enumerate(tracks, 1)
    ]
    frames = [{"index": i, "shot": 0, "heads": heads} for i in range(num_frames)]
    return track_evaluation.Case(source, "a", {"frames": frames}, truths)


def head(box, part=0, counts=True):
    return Truth(np.array(box), part, counts)


def test_tracks_are_given_to_who_is_there():
    twin = [0.1, 0.1, 0.5, 0.7]  # IoU 2 / 3.
    found = case(
        (PERSON, 0.1),
        (twin, 0.2),
        (POSTER, 0.9),
        ([0.6, 0, 0.7, 0.1], 0.5),
        # Of the frame in between and those after, the nearest are taken.
        truths={0: [head(PERSON), head(POSTER, 1, False)], 2: [head(PERSON)]},
        num_frames=2,
    )
    parts = track_evaluation.assign_parts(found)
    assert {n: x and (x.part, x.counts) for n, x in parts.items()} == {
        1: (0, True),
        2: (0, True),
        3: (1, False),
        4: None,
    }


def test_what_a_rule_gets_right_is_counted():
    cases = [
        case((PERSON, 0.1), (POSTER, 0.9), truths={0: [head(PERSON)]}),
        case((PERSON, 0.1), truths={0: [head(PERSON)]}, source="clips"),
        # Nobody who counts was found.
        case((POSTER, 0.1), truths={0: [head(PERSON)]}, source="clips"),
        case((PERSON, None), truths={0: [head(PERSON)]}, source="clips"),
        case(truths={}, source="clips"),
    ]
    one = {"clips": 1, "answered": 1, "main_person": 1, "other_may_decide": 1}
    none = track_evaluation.measure_rule(cases, NONE)
    assert none["scene"] == {**one, "people": 1, "people_decide": 1}
    assert none["clips"] == {
        "clips": 4,
        "answered": 1,
        "main_person": 1,
        "other_may_decide": 0,
        "people": 1,
        "people_decide": 1,
    }
    ruled = track_evaluation.measure_rule(cases, deciding_tracks.DEFAULT_RULE)
    assert ruled["scene"]["other_may_decide"] == 0
    assert ruled["all"]["clips"] == 5 and ruled["all"]["people_decide"] == 2


def test_tracks_are_described():
    found = case((PERSON, 0.1), (POSTER, 0.9), truths={0: [head(PERSON)]})
    rows = track_evaluation.describe_tracks(found, deciding_tracks.DEFAULT_RULE)
    assert [row["counts"] for row in rows] == [True, False]
    assert rows[1] == {
        "clip": "a",
        "track": 2,
        "person": None,
        "counts": False,
        "share": 1.0,
        "size": 0.25,
        "score": 1.0,
        "set_aside": ["small"],
    }
    empty = case(truths={})
    assert track_evaluation.describe_tracks(empty, NONE) == []


def test_a_table_of_heads_is_read(tmp_path):
    path = tmp_path / "heads.csv"
    path.write_text("clip,frame,ymin,xmin,ymax,xmax\na.mp4,3,.1,.2,.3,.4\n")
    ((truth,),) = track_evaluation.read_heads(str(path))["a.mp4"].values()
    np.testing.assert_allclose(truth.box, [0.1, 0.2, 0.3, 0.4])
    path.write_text("clip,frame,ymin,xmin,ymax\n")
    with pytest.raises(ValueError, match="heads.csv: there is no column xmax"):
        track_evaluation.read_heads(str(path))
    path.write_text("clip,frame,ymin,xmin,ymax,xmax\na.mp4,3,.1,.2,.3,wide\n")
    with pytest.raises(ValueError, match="heads.csv:2: .*wide"):
        track_evaluation.read_heads(str(path))


@pytest.mark.slow
def test_the_script_measures_clips_and_scenes(tmp_path, run_script, saved_heads):
    clips = tmp_path / "clips"
    image = tiny_heads.frame((24, 24, tiny_heads.RED))
    tiny_heads.write_clip(clips / "a.mp4", [image] * 8)
    (clips / "heads.csv").write_text(
        "clip,frame,ymin,xmin,ymax,xmax\na.mp4,2,.375,.375,.625,.625\n"
    )
    for name in ("JPEGImages", "Annotations", "Splits"):
        (tmp_path / "voc" / name).mkdir(parents=True)
    box = "<xmin>2</xmin><ymin>2</ymin><xmax>8</xmax><ymax>8</ymax>"
    cv2.imwrite(str(tmp_path / "voc/JPEGImages/a.png"), np.full((10, 10, 3), 9))
    (tmp_path / "voc/Annotations/a.xml").write_text(
        f"<annotation><object><bndbox>{box}</bndbox></object></annotation>"
    )
    (tmp_path / "voc/Splits/val.txt").write_text("a\n")
    done = run_script(
        "train/evaluate_tracks.py",
        f"--clips={clips}",
        "--frames=4",
        "--repeats=1",
        f"--portraits={tmp_path / 'voc'}",
        f"--rooms={tmp_path / 'voc'}",
        f"--graph={saved_heads}",
        "--scores=.5,.9",
        f"--output={tmp_path / 'tracks.json'}",
    )
    assert "| 0.25 | 0.4 | 0.75 | clips | 1 | 1 | 1 | 0 | 1 | 1 |" in done.stdout
    figures = json.loads((tmp_path / "tracks.json").read_text())
    assert [rule["score"] for rule in figures["rules"]] == [0.75, 0.0, 0.5, 0.9]
    assert figures["rules"][0]["counts"]["all"]["clips"] == 8
    assert figures["tracks"][0]["clip"] == "a.mp4"
