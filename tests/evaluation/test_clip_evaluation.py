import csv
import json

import numpy as np
import pytest

import tiny_heads
from dfdetect.evaluation import clip_evaluation
from dfdetect.media import video
from dfdetect.pipeline import clips as clip_findings

BAND = {"real_below": 0.3, "fake_from": 0.7}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two groups of a real and a fake clip, one without heads, one of training."""
    folder = tmp_path_factory.mktemp("clips")
    rows = [["path", "label", "split", "group"]]
    heads = {"real": tiny_heads.BLUE, "fake": tiny_heads.RED}
    for group in ("one", "two"):
        for label, color in heads.items():
            name = f"{group}/{label}.mp4"
            image = tiny_heads.frame((24, 24, color))
            tiny_heads.write_clip(folder / name, [image] * 4)
            rows.append([name, label, "test", group])
    tiny_heads.write_clip(folder / "empty.mp4", [tiny_heads.frame()] * 4)
    (folder / "seen.mp4").write_bytes((folder / "one/real.mp4").read_bytes())
    rows += [["empty.mp4", "0", "", ""], ["seen.mp4", "1", "train", "three"]]
    write(folder, rows)
    return folder


def write(folder, rows):
    with open(folder / "labels.csv", "w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows(rows)


def test_rows_of_the_split_and_of_none_are_read(folder):
    clips = clip_evaluation.read_clips(str(folder), "test")
    assert [(x.name, x.label, x.group) for x in clips] == [
        ("one/real.mp4", 0, "one"),
        ("one/fake.mp4", 1, "one"),
        ("two/real.mp4", 0, "two"),
        ("two/fake.mp4", 1, "two"),
        ("empty.mp4", 0, "empty.mp4"),
    ]
    assert clips[0].path == str(folder / "one/real.mp4")
    assert [x.name for x in clip_evaluation.read_clips(str(folder), "train")] == [
        "empty.mp4",
        "seen.mp4",
    ]


@pytest.mark.parametrize(
    "rows, message",
    [
        (["path"], "labels.csv:1: columns must be path,label and may be split,group"),
        (["path,sex", "a.mp4,f"], "labels.csv:1: columns must be"),
        (["path,label", "a.mp4,true"], ":2: label must be real, fake, 0 or 1, got"),
        (["path,label", "a.mp4,real,x"], ":2: the number of fields differs"),
        (["path,label", "../a.mp4,real"], ":2: path must lead into the folder"),
        (["path,label", "gone.mp4,real"], ":2: there is no file 'gone.mp4' in"),
        (["path,label", "a.mp4,real", "a.mp4,0"], ":3: 'a.mp4' stands in line 2"),
        (["path,label,split", "a.mp4,0,dev"], ":2: split must be train, val"),
        (["path,label,split", "a.mp4,0,train"], "no clips of the split 'test'"),
    ],
)
def test_a_wrong_row_is_told(tmp_path, rows, message):
    (tmp_path / "a.mp4").write_bytes(b"x")
    write(tmp_path, [row.split(",") for row in rows])
    with pytest.raises(ValueError, match=message):
        clip_evaluation.read_clips(str(tmp_path), "test")


def test_figures_are_those_of_the_clips_that_are_answered(folder):
    clips = clip_evaluation.read_clips(str(folder), "test")
    judge = clip_findings.ClipJudge(tiny_heads.build(), BAND, video.Sampling(2))
    said = []
    lines = clip_evaluation.judge_clips(
        clips, lambda clip: judge(clip.path), said.append
    )
    assert [x["verdict"] for x in lines] == ["real", "fake", "real", "fake", None]
    assert said[-1].startswith("5 clips: 2 real, 2 fake, 1 no_head")
    figures = clip_evaluation.measure_clips(
        clips, lines, aggregate="median", thresholds=BAND, num_resamples=100
    )
    assert (figures["num_clips"], figures["unanswered"]) == (5, {"no_head": 1})
    metrics = figures["metrics"]
    assert metrics["auc"] == 1.0 and metrics["auc_interval"] == [1.0, 1.0]
    assert (metrics["num_real"], metrics["num_fake"]) == (2, 2)
    assert metrics["num_groups"] == 2
    assert metrics["mean_probability"] == pytest.approx(0.5, abs=0.02)
    assert metrics == figures["by_aggregate"]["median"]
    assert list(figures["by_aggregate"]) == [
        "mean",
        "median",
        "max",
        "top_k",
        "confident",
    ]


def test_figures_of_the_main_person_stand_beside():
    def line(*tracks):
        frame = {
            "time": 0.0,
            "shot": 0,
            "heads": [
                {
                    "box": [0, 0, side, side],
                    "score": 0.9,
                    "fake_probability": probability,
                    "track": number,
                }
                for number, (side, probability) in enumerate(tracks, 1)
            ],
        }
        return clip_findings.conclude({"frames": [frame]}, "mean", BAND)

    clips = [
        clip_evaluation.LabeledClip(name, name, label, name)
        for name, label in (("a", 0), ("b", 1), ("c", 0))
    ]
    # Beside the real speaker of the first there is one who looks faked; what does in
    # the last is too small.
    lines = [
        line((0.6, 0.2), (0.4, 0.9)),
        line((0.5, 0.8)),
        line((0.5, 0.1), (0.1, 0.9)),
    ]
    figures = clip_evaluation.measure_clips(
        clips, lines, aggregate="mean", thresholds=BAND, num_resamples=10
    )
    assert figures["metrics"]["auc"] == 0.5
    assert figures["main_person"]["metrics"]["auc"] == 1.0
    assert figures["main_person"]["num_deciding"] == 2
    assert (
        figures["main_person"]["by_aggregate"]["mean"]
        == (figures["main_person"]["metrics"])
    )


def test_clips_of_one_class_have_no_auc(folder):
    clips = clip_evaluation.read_clips(str(folder), "test")[:1]
    judge = clip_findings.ClipJudge(tiny_heads.build(), BAND, video.Sampling(1))
    lines = clip_evaluation.judge_clips(clips, lambda clip: judge(clip.path), print)
    metrics = clip_evaluation.measure_clips(
        clips, lines, aggregate="mean", thresholds=BAND, num_resamples=10
    )["metrics"]
    assert np.isnan(metrics["auc"]) and metrics["accuracy"] == 1.0


@pytest.mark.slow  # Most of half a minute; as test_frame_clips.
def test_the_script_measures_a_folder(folder, tmp_path, run_script, saved_heads):
    done = run_script(
        "train/evaluate.py",
        "--task=video",
        f"--clips={folder}",
        f"--graph={saved_heads}",
        "--frames=2",
        f"--output={tmp_path / 'measured'}",
    )
    figures = json.loads((tmp_path / "measured" / "metrics.json").read_text())
    assert figures["task"] == "video" and figures["metrics"]["auc"] == 1.0
    assert "  5 clips, " in done.stdout and "AUC of main persons" in done.stdout
    with open(tmp_path / "measured" / "predictions.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["verdict"] for row in rows] == ["real", "fake", "real", "fake", ""]
    assert [row["main_track"] for row in rows] == ["1"] * 4 + [""]
    for row in rows:
        assert row["main_fake_probability"] == row["fake_probability"]
    lines = (tmp_path / "measured" / "results.jsonl").read_text().splitlines()
    assert [len(json.loads(line)["frames"]) for line in lines] == [2] * 5
