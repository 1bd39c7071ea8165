import math

import cv2
import numpy as np
import pytest

import tiny_heads
from dfdetect.media import video
from dfdetect.metrics import calibration
from dfdetect.pipeline import build, clips

BAND = {"real_below": 0.3, "fake_from": 0.7}
ALL = video.Sampling(count=-1)


@pytest.fixture(scope="module")
def model():
    return tiny_heads.build()


@pytest.fixture(scope="module")
def judge(model):
    return clips.ClipJudge(model, BAND, ALL)


def heads_of(result, track):
    return [
        (frame["time"], head)
        for frame in result["frames"]
        for head in frame["heads"]
        if head["track"] == track
    ]


def test_two_people_who_cross_are_two_tracks(judge, tmp_path):
    result, problem = judge(tiny_heads.crossing(tmp_path / "a.mp4"))
    assert problem == "" and "warning" not in result
    assert (result["kind"], result["status"]) == ("video", "ok")
    assert (result["width"], result["height"]) == (128, 128)
    assert result["duration"] == pytest.approx(2.5)
    assert [frame["index"] for frame in result["frames"]] == list(range(25))
    by_probability = sorted(result["tracks"], key=lambda x: x["fake_probability"])
    assert len(by_probability) == 2
    blue, red = by_probability
    assert blue["fake_probability"] == pytest.approx(tiny_heads.REAL, abs=0.06)
    # Some crops have a little of the other in them.
    assert red["fake_probability"] == pytest.approx(tiny_heads.FAKE, abs=0.06)
    assert (blue["verdict"], red["verdict"]) == ("real", "fake")
    assert result["fake_probability"] == red["fake_probability"]
    assert result["verdict"] == "fake"
    for track, first_left, last_left in ((red, 0.0, 0.75), (blue, 0.75, 0.0)):
        assert (track["first_time"], track["last_time"]) == (0.0, 2.4)
        seen = heads_of(result, track["track"])
        assert len(seen) == track["num_heads"] >= 15
        assert seen[0][1]["box"][1] == pytest.approx(first_left, abs=0.01)
        assert seen[-1][1]["box"][1] == pytest.approx(last_left, abs=0.01)
    assert red["num_heads"] < 25, "hidden while the other passes in front"


def test_a_cut_begins_new_tracks(judge, tmp_path):
    head = (24, 24, tiny_heads.RED)
    before = [tiny_heads.frame(head) for _ in range(10)]
    after = [tiny_heads.frame(head, ground=40) for _ in range(10)]
    path = tiny_heads.write_clip(tmp_path / "a.mp4", before + after)
    result, _ = judge(path)
    assert [(x["first_time"], x["last_time"]) for x in result["tracks"]] == [
        (0.0, 0.9),
        (1.0, 1.9),
    ]
    assert [frame["shot"] for frame in result["frames"]] == [0] * 10 + [1] * 10


def test_the_clip_has_the_probability_of_its_most_suspicious_lasting_track():
    def frame(*heads):
        return {
            "index": 0,
            "time": 0.0,
            "shot": 0,
            "heads": [
                {"box": [0, 0, 1, 1], "score": 1.0, "fake_probability": p, "track": n}
                for n, p in heads
            ],
        }

    def conclude(*frames, aggregate="mean"):
        line = {"status": "", "frames": list(frames)}
        return clips.conclude(line, aggregate, BAND)

    lasting = conclude(
        frame((1, 0.4), (2, 0.1), (3, 0.9)), frame((1, 0.6), (2, None)), frame((1, 0.5))
    )
    assert lasting["fake_probability"] == 0.5 and lasting["verdict"] == "uncertain"
    assert [x["fake_probability"] for x in lasting["tracks"]] == [0.5, 0.1, 0.9]
    assert [x["num_heads"] for x in lasting["tracks"]] == [3, 2, 1]
    assert [x["fake_probability"] for x in lasting["heads"]] == [0.6, 0.1, 0.9]
    brief = conclude(frame((1, 0.4), (2, 0.9)))
    assert brief["fake_probability"] == 0.9, "none is longer"
    assert (brief["deciding_track"], brief["main_person"]["track"]) == (2, 1)
    highest = conclude(frame((1, 0.4)), frame((1, 0.6)), aggregate="max")
    assert highest["fake_probability"] == 0.6
    small = conclude(frame((1, None)))
    assert (small["status"], small["verdict"]) == ("head_too_small", None)
    assert small["fake_probability"] is None and len(small["tracks"]) == 1
    assert conclude(frame())["status"] == "no_head"


@pytest.mark.parametrize(
    "unfamiliar, verdict",
    [((True, True, False), "uncertain"), ((True, False, False), "real")],
)
def test_a_track_of_unfamiliar_heads_is_not_real(unfamiliar, verdict):
    head = {"box": [0, 0, 1, 1], "score": 1.0, "fake_probability": 0.0, "track": 1}
    frames = [
        {"index": i, "time": 0.1 * i, "shot": 0, "heads": [{**head, "unfamiliar": x}]}
        for i, x in enumerate(unfamiliar)
    ]
    line = {"status": "", "frames": frames}
    found = clips.conclude(line, "mean", BAND)
    assert found["verdict"] == found["tracks"][0]["verdict"] == verdict
    assert found["main_person"]["verdict"] == verdict


def test_a_clip_without_heads(judge, tmp_path):
    path = tiny_heads.write_clip(tmp_path / "a.mp4", [tiny_heads.frame()] * 5)
    result, problem = judge(path)
    assert problem == "" and result["status"] == "no_head"
    assert result["tracks"] == result["heads"] == [] and len(result["frames"]) == 5
    assert result["fake_probability"] is None and result["verdict"] is None


def test_of_a_clip_cut_short_what_can_be_read(judge, tmp_path):
    frames = [tiny_heads.frame((24, 24, tiny_heads.RED))] * 40
    codec = cv2.VideoWriter.fourcc(*"MJPG")
    path = tmp_path / "a.avi"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, codec, 10, (128, 128))
    for image in frames:
        writer.write(image[..., ::-1])
    writer.release()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    result, problem = judge(str(path))
    assert problem == "" and result["status"] == "ok"
    assert 10 < len(result["frames"]) < 30
    assert result["warning"].startswith("cut short: ")
    assert result["warning"].endswith(" of 4.0 seconds could be read")


@pytest.mark.parametrize("content", [b"", b"a text\n" * 100])
def test_what_is_no_clip(judge, tmp_path, content):
    (tmp_path / "a.mp4").write_bytes(content)
    result, problem = judge(str(tmp_path / "a.mp4"))
    assert result["status"] == "unreadable"
    kind = "a text" if content else "an empty file"
    assert problem.startswith(f"no clip that can be decoded: {kind}; wanted is MP4")
    result, problem = judge(str(tmp_path / "b.mp4"))
    assert (result["status"], problem) == ("unreadable", "No such file or directory")
    result, problem = judge(str(tmp_path))
    assert (result["status"], problem) == ("unreadable", "no file")


def test_batches_do_not_change_the_answer(model, tmp_path):
    path = tiny_heads.crossing(tmp_path / "a.mp4", 7)
    answers = [
        clips.ClipJudge(model, BAND, ALL, batch_size=size)(path) for size in (1, 3, 7)
    ]
    assert answers[0] == answers[1] == answers[2]


def test_a_graph_of_an_earlier_version_joins_by_overlap_alone(
    model, tmp_path, monkeypatch
):
    older = {k: v for k, v in model.manifest.items() if k != "embeddings"}
    monkeypatch.setattr(model, "manifest", older)
    frames = [
        tiny_heads.frame((i, 0, tiny_heads.RED), (i, 40, tiny_heads.BLUE))
        for i in range(0, 40, 4)
    ]
    path = tiny_heads.write_clip(tmp_path / "a.mp4", frames)
    result, _ = clips.ClipJudge(model, BAND, ALL)(path)
    assert [track["num_heads"] for track in result["tracks"]] == [10, 10]


def test_an_unknown_aggregate_is_refused(model):
    with pytest.raises(ValueError, match="must be one of mean, median, .* got 'sum'"):
        clips.ClipJudge(model, BAND, aggregate="sum")


def test_what_is_known_is_added_to_judged_heads(model, tmp_path):
    asked = []

    def lookup(image, boxes):
        asked.append((image.shape, boxes.shape))
        return [{"familiarity": 0.5}] * len(boxes)

    path = tiny_heads.crossing(tmp_path / "a.mp4", 2)
    result, _ = clips.ClipJudge(model, BAND, ALL, lookup=lookup)(path)
    assert asked == [((128, 128, 3), (2, 4))] * 2
    assert all(head["familiarity"] == 0.5 for head in result["heads"])


@pytest.mark.slow
def test_the_clips_of_faceforensics_have_one_main_person_each(sample_data):
    paths = sorted(sample_data("faceforensics").rglob("*.mp4"))
    model = build.build_from_directories()
    thresholds = model.manifest["classifier"]["thresholds"]
    judge = clips.ClipJudge(model, thresholds, video.Sampling(8))
    for path in paths:
        result, problem = judge(str(path))
        assert problem == "" and result["status"] == "ok"
        assert "warning" not in result and len(result["frames"]) == 8
        main = result["main_person"]["track"]
        assert result["deciding_track"] == main, path
        assert len(heads_of(result, main)) >= 6, path
        assert {frame["shot"] for frame in result["frames"]} == {0}
        assert not math.isnan(result["fake_probability"])
        assert result["verdict"] == calibration.decide_verdict(
            result["fake_probability"], thresholds
        )
        assert np.all(np.diff([frame["time"] for frame in result["frames"]]) > 0)
