import pytest

from dfdetect.pipeline import clips, deciding_tracks

BAND = {"real_below": 0.3, "fake_from": 0.7}


def head(track, side, probability, score=0.9):
    box = [0.0, 0.0, side, side]
    return {
        "box": box,
        "score": score,
        "fake_probability": probability,
        "track": track,
    }


def conclude(*frames, shots=None, **more):
    """The line of a clip of frames, each a list of heads."""
    line = {
        "frames": [
            {"index": i, "time": i / 10, "shot": shots[i] if shots else 0, "heads": x}
            for i, x in enumerate(frames)
        ]
    }
    return clips.conclude(line, "mean", BAND, **more)


def aside(line):
    return {track["track"]: track["set_aside"] for track in line["tracks"]}


def test_a_thing_in_the_background_of_every_frame_does_not_decide():
    line = conclude(*[[head(1, 0.4, 0.2), head(2, 0.1, 0.99)]] * 10)
    assert (line["fake_probability"], line["verdict"]) == (0.2, "real")
    assert line["deciding_track"] == 1
    assert line["main_person"] == {
        "track": 1,
        "fake_probability": 0.2,
        "verdict": "real",
    }
    # It is told all the same.
    assert [x["fake_probability"] for x in line["tracks"]] == [0.2, 0.99]
    assert [x["verdict"] for x in line["tracks"]] == ["real", "fake"]
    assert [x["matters"] for x in line["tracks"]] == [True, False]
    assert aside(line) == {1: [], 2: ["small"]}
    assert [x["size"] for x in line["tracks"]] == [0.4, 0.1]


@pytest.mark.parametrize(
    "num_frames, reasons", [(2, ["brief"]), (4, ["brief"]), (5, [])]
)
def test_a_track_matters_from_a_quarter_of_the_frames_on(num_frames, reasons):
    both = [head(1, 0.4, 0.2), head(2, 0.4, 0.99)]
    line = conclude(*[both] * num_frames, *[[head(1, 0.4, 0.2)]] * (20 - num_frames))
    assert aside(line) == {1: [], 2: reasons}
    assert line["deciding_track"] == (1 if reasons else 2)


def test_what_the_detector_doubts_does_not_decide():
    # .67 of .9 is less than .75 of it, .68 is more.
    for score, reasons in ((0.67, ["doubtful"]), (0.68, [])):
        line = conclude(*[[head(1, 0.4, 0.2), head(2, 0.4, 0.8, score)]] * 4)
        assert aside(line) == {1: [], 2: reasons}


def test_of_two_people_the_more_suspicious_decides():
    line = conclude(*[[head(1, 0.4, 0.2), head(2, 0.2, 0.8)]] * 4)
    assert (line["deciding_track"], line["verdict"]) == (2, "fake")
    assert line["main_person"]["track"] == 1
    assert line["main_person"]["verdict"] == "real"


@pytest.mark.parametrize("side, score, num_frames", [(0.01, 0.01, 1), (1, 1, 40)])
def test_a_single_track_always_decides(side, score, num_frames):
    empty = [[] for _ in range(100)]
    line = conclude(*[[head(1, side, 0.8, score)]] * num_frames, *empty)
    assert (line["deciding_track"], line["fake_probability"]) == (1, 0.8)
    assert line["status"] == "ok" and aside(line) == {1: []}


def test_the_main_person_is_largest_times_longest():
    # 10 x .3 is more than 5 x .5, and less than 7 x .5.
    for num_frames, main in ((5, 1), (7, 2)):
        one, both = [head(1, 0.3, 0.1)], [head(1, 0.3, 0.1), head(2, 0.5, 0.2)]
        line = conclude(*[both] * num_frames, *[one] * (10 - num_frames))
        assert line["main_person"]["track"] == main


def test_the_main_person_decides_if_it_is_brief():
    # One who walks through a scene of another, farther away, in a long shot.
    frames = [[head(1, 0.9, 0.2), head(2, 0.05, 0.9)]] * 4 + [[head(2, 0.05, 0.9)]] * 20
    assert aside(conclude(*frames)) == {1: [], 2: ["small"]}
    assert conclude(*frames)["deciding_track"] == 1


def test_people_of_different_shots_are_not_compared_by_size():
    close, wide = [head(1, 0.9, 0.1)], [head(2, 0.2, 0.8), head(3, 0.05, 0.9)]
    line = conclude(*[close] * 6, *[wide] * 4, shots=[0] * 6 + [1] * 4)
    assert aside(line) == {1: [], 2: [], 3: ["small"]}
    assert line["deciding_track"] == 2
    # But the detector must be about as sure of them.
    doubtful = [head(2, 0.2, 0.8, 0.5)]
    line = conclude(*[close] * 6, *[doubtful] * 4, shots=[0] * 6 + [1] * 4)
    assert aside(line) == {1: [], 2: ["doubtful"]}


def test_heads_that_are_not_judged_do_not_decide():
    line = conclude(*[[head(1, 0.4, None), head(2, 0.3, 0.4)]] * 4)
    assert aside(line) == {1: ["unjudged"], 2: []}
    assert line["main_person"]["track"] == line["deciding_track"] == 2
    line = conclude([head(1, 0.4, None)])
    assert (line["status"], line["deciding_track"]) == ("head_too_small", None)
    assert line["fake_probability"] is None and line["verdict"] is None
    main = {"track": 1, "fake_probability": None, "verdict": None}
    assert line["main_person"] == main and aside(line) == {1: ["unjudged"]}


def test_an_empty_clip_has_no_main_person():
    for line in (conclude(), conclude([], [])):
        assert line["status"] == "no_head" and line["tracks"] == []
        assert line["main_person"] is line["deciding_track"] is None
    assert deciding_tracks.set_aside([]) == {}


def test_another_rule_may_be_tried():
    none = deciding_tracks.Rule(share=0, size=0, score=0)
    frames = [[head(1, 0.4, 0.2), head(2, 0.1, 0.99, 0.1)]] * 10
    assert conclude(*frames, rule=none)["deciding_track"] == 2
