"""Clips out of a prepared data set of frames: they are judged as the clips are."""

import csv
import json
import types

import numpy as np
import pytest

import tiny_heads
from building_support import YOUTUBE, builder_class, method_folder, prepare
from dfdetect.evaluation import evaluation_set, frame_clips
from dfdetect.media import video
from dfdetect.pipeline import clips as clip_findings

BAND = {"real_below": 0.3, "fake_from": 0.7}
NAMES = {
    "953_974/real/youtube/youtube/953": f"{YOUTUBE}/953.mp4",
    "953_974/fake/Deepfakes/Deepfakes/953_974": (
        f"{method_folder('Deepfakes')}/953_974.mp4"
    ),
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Clips of one pair of the test split, and their frames as a data set."""
    folder = tmp_path_factory.mktemp("faceforensics")
    root = folder / "manual"
    for path, color in zip(
        NAMES.values(), (tiny_heads.BLUE, tiny_heads.RED), strict=True
    ):
        heads = [tiny_heads.frame((24 + i, 24, color)) for i in range(8)]
        tiny_heads.write_clip(root / path, heads)
    # Another split, so that there is something that cannot be seen from here.
    tiny_heads.write_clip(root / YOUTUBE / "071.mp4", [tiny_heads.frame()] * 8)
    builder = builder_class("faceforensics")(
        config="c23", data_dir=folder / "data", frames_per_video=4
    )
    return root, folder / "data", prepare(builder, root)


@pytest.fixture(scope="module")
def judged(prepared):
    return evaluation_set.load_evaluation_set(
        prepared[2], "test", say=lambda _: None, num_resamples=2
    )


def test_videos_are_clips_with_their_frames_in_order(judged):
    clips = {clip.name: clip for clip in frame_clips.find_clips(judged)}
    assert sorted(x.split("/")[-1] for x in clips) == ["953", "953_974"]
    for clip in clips.values():
        assert clip.numbers == (1, 3, 5, 7) and len(set(clip.places)) == 4
        assert sorted(clip.times) == list(clip.times) and clip.group == "953_974"
    assert {x.name.split("/")[-1]: x.label for x in clips.values()} == {
        "953": 0,
        "953_974": 1,
    }


def test_they_are_judged_as_the_clips_themselves(prepared, judged):
    judge = clip_findings.ClipJudge(tiny_heads.build(), BAND, video.Sampling(4))
    reader = frame_clips.FrameReader(judged, video.Sampling(4))
    paths = {path.split("/")[-1][:-4]: path for path in NAMES.values()}
    for clip in frame_clips.find_clips(judged):
        line, problem = judge.judge_frames(clip.name, reader.frames(clip))
        expected, _ = judge(str(prepared[0] / paths[clip.name.split("/")[-1]]))
        assert not problem and line["verdict"] == ("real", "fake")[clip.label]
        assert line["path"] == clip.name
        assert [x["index"] for x in line["frames"]] == [1, 3, 5, 7]
        # PNG keeps what the clip shows.
        for key in ("frames", "tracks", "heads", "fake_probability", "status"):
            assert line[key] == expected[key], key


def test_fewer_frames_may_be_wanted(judged):
    clip = frame_clips.find_clips(judged)[0]
    for sampling, numbers in (
        (video.Sampling(2), [3, 7]),
        (video.Sampling(-1), [1, 3, 5, 7]),
        (video.Sampling(every=clip.times[2] - clip.times[0]), [1, 5]),
    ):
        frames = frame_clips.FrameReader(judged, sampling).frames(clip)
        assert [x.index for x in frames] == numbers


def test_other_data_sets_are_refused():
    info = types.SimpleNamespace(info=types.SimpleNamespace(full_name="faces/1.0.0"))
    survey = types.SimpleNamespace(fields={})
    with pytest.raises(ValueError, match="faces/1.0.0 holds no frames of clips"):
        frame_clips.find_clips(types.SimpleNamespace(builder=info, survey=survey))


def test_a_real_and_a_fake_video_of_one_name_are_two_clips():
    info = types.SimpleNamespace(info=types.SimpleNamespace(full_name="faces/1.0.0"))
    survey = types.SimpleNamespace(
        fields={"frame": np.array([2, 1, 3]), "video": np.array(["a", "a", "a"])},
        truths=np.array([0, 1, 0]),
        groups=np.array(["g", "g", "g"]),
    )
    clips = frame_clips.find_clips(
        types.SimpleNamespace(builder=info, survey=survey, wanted=np.full(3, True))
    )
    assert [(x.name, x.label, x.numbers) for x in clips] == [
        ("real/a", 0, (2, 3)),
        ("fake/a", 1, (1,)),
    ]


@pytest.mark.slow  # A quarter of a minute.
def test_the_script_measures_a_data_set(prepared, tmp_path, run_script, saved_heads):
    done = run_script(
        "train/evaluate.py",
        "--task=video",
        "--dataset=faceforensics/c23",
        f"--data_dir={prepared[1]}",
        f"--graph={saved_heads}",
        "--resamples=2",
        f"--output={tmp_path / 'measured'}",
        "--json",
    )
    figures = json.loads(done.stdout)
    assert figures["task"] == "video" and figures["metrics"]["auc"] == 1.0
    assert figures["num_clips"] == 2 and figures["data"]["config"] == "c23"
    assert figures["leaky_split"] is False
    assert "Fewer than 20 groups" in done.stderr
    with open(tmp_path / "measured" / "predictions.csv", encoding="utf-8") as file:
        rows = {x["path"].split("/")[-1]: x["verdict"] for x in csv.DictReader(file)}
    assert rows == {"953": "real", "953_974": "fake"}
