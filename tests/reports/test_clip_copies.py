import types

import cv2
import numpy as np
import pytest

import drawn_clips
import tiny_heads
from dfdetect.media import video
from dfdetect.reports import clip_copies

BAND = {"real_below": 0.3, "fake_from": 0.7}


def result_of(*sightings, duration=2.0):
    """A result line; each sighting is a time, a left edge, a probability, a track."""
    frames = [
        {
            "index": round(10 * time),
            "time": time,
            "shot": 0,
            "heads": [
                {
                    "box": [0.25, left, 0.5, left + 0.25],
                    "score": 0.9,
                    "fake_probability": probability,
                    "track": track,
                }
            ],
        }
        for time, left, probability, track in sightings
    ]
    tracks = [
        {"track": n, "fake_probability": 0.5, "verdict": "uncertain"}
        for n in sorted({x[3] for x in sightings})
    ]
    return {"path": "a$b.mp4", "duration": duration, "frames": frames, "tracks": tracks}


def read(path):
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        decoded, image = capture.read()
        if not decoded:
            return frames, capture.get(cv2.CAP_PROP_FPS)
        frames.append(image[..., ::-1].astype(int))


def test_the_copy_plays_with_boxes_that_move(tmp_path):
    path = tiny_heads.write_clip(tmp_path / "a.mp4", [tiny_heads.frame()] * 20)
    result = result_of((0.0, 0.0, 0.0, 1), (1.0, 0.5, 1.0, 1), (1.9, 0.5, None, 1))
    target = tmp_path / "new" / "copy.mp4"
    clip_copies.write_copy(path, result, str(target))
    frames, rate = read(target)
    assert (len(frames), rate) == (20, 10) and frames[0].shape == (128, 128, 3)
    assert [x.name for x in target.parent.iterdir()] == ["copy.mp4"]
    # The left edge of the box, at half its height, goes from 0 to 64 in ten frames.
    for index in (0, 5, 10):
        edge = round(128 * 0.05 * index)
        strip = frames[index][44:60].max(-1).mean(0)
        assert strip[edge : edge + 2].max() > 100, index
        assert strip[edge + 6 : edge + 26].max() < 60
    assert frames[0][44:60, 0, 1].mean() > 100 > frames[0][44:60, 0, 0].mean(), "green"
    red = frames[10][44:60, 64:66].max(1)
    assert red[:, 0].mean() > 100 > red[:, 1].mean()


def test_a_copy_shows_each_frame_as_long_as_the_clip_does(tmp_path):
    times, end = [0, 4, 4.5, 15.5], 20
    images = [np.full((128, 128, 3), 60 * i, np.uint8) for i in range(4)]
    path = drawn_clips.write_stills(tmp_path / "a.mp4", images, times, end)
    result = {**result_of(duration=20.0), "path": str(path)}
    target = tmp_path / "copy.mp4"
    clip_copies.write_copy(str(path), result, str(target))
    frames, rate = read(target)
    shown = np.array([round(x.mean() / 60) for x in frames])
    begins = [np.flatnonzero(shown == i)[0] / rate for i in range(4)]
    assert begins == pytest.approx(times, abs=0.05)
    assert np.all(np.diff(shown) >= 0) and len(frames) / rate == pytest.approx(20)


def test_a_copy_of_very_long_stills_has_all_of_them():
    image = np.zeros((2, 2, 3), np.uint8)
    first, *others = [video.Frame(i, 1800.0 * i, image) for i in range(3)]
    reader = types.SimpleNamespace(duration=5400.0)

    def count(rate):
        found = clip_copies._count_repeats(first, iter(others), reader, rate)
        return [(frame.index, number) for frame, number in found]

    assert count(1 / 1800) == [(0, 1), (1, 1), (2, 1)]
    # Ten minutes at most.
    assert count(2.0) == [(0, 1200), (1, 1200), (2, 1200)]


def test_what_was_set_aside_is_gray_and_says_why(tmp_path):
    path = tiny_heads.write_clip(tmp_path / "a.mp4", [tiny_heads.frame()] * 3)
    result = result_of((0.0, 0.0, 0.1, 1), (0.0, 0.5, 1.0, 2))
    first, second = result["tracks"]
    first |= {"fake_probability": 0.1, "matters": True, "set_aside": []}
    second |= {"fake_probability": 1.0, "matters": False, "set_aside": ["small"]}
    result["deciding_track"] = 1
    target = tmp_path / "copy.mp4"
    clip_copies.write_copy(path, result, str(target))
    image = read(target)[0][0]
    # Left edges of both boxes at half of their height.
    green, gray = (image[44:60, x : x + 2].mean((0, 1)) for x in (0, 64))
    assert green[1] > 100 > green[0]
    assert np.ptp(gray) < 40 and gray.max() > 60, "not red"
    figure = clip_copies.draw_chart(result, BAND)
    labels = [x.get_text() for x in figure.axes[0].get_legend().get_texts()]
    assert labels == [
        "track 1: 0.10 uncertain (decides)",
        "track 2: 1.00 uncertain (small)",
    ]
    curves = [x for x in figure.axes[0].lines if x.get_label().startswith("track")]
    assert [x.get_linestyle() for x in curves] == ["-", "--"]


def test_where_a_head_was_is_not_guessed_across_a_long_gap(tmp_path):
    path = tiny_heads.write_clip(tmp_path / "a.mp4", [tiny_heads.frame()] * 50)
    result = result_of((0.5, 0.0, 1.0, 1), (4.0, 0.5, 1.0, 2), (4.4, 0.5, 1.0, 2))
    target = tmp_path / "copy.mp4"
    clip_copies.write_copy(path, result, str(target))
    shown = [frame.max() > 100 for frame in read(target)[0]]
    assert shown == [
        *[False] * 3,
        *[True] * 5,
        *[False] * 30,
        *[True] * 9,
        *[False] * 3,
    ]


def test_a_copy_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match="no clip that can be decoded"):
        clip_copies.write_copy("gone.mp4", result_of(), str(tmp_path / "copy.mp4"))
    assert list(tmp_path.iterdir()) == []


def test_the_chart_has_a_line_for_each_track(tmp_path):
    result = result_of((0.0, 0.0, 0.2, 1), (1.0, 0.5, 0.8, 1), (1.9, 0.5, None, 2))
    result["tracks"][1]["fake_probability"] = None
    figure = clip_copies.draw_chart(result, BAND)
    (axes,) = figure.axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["track 1: 0.50 uncertain"]
    assert axes.get_xlim() == (0, 2.0)
    clip_copies.write_chart(result, BAND, str(tmp_path / "chart.png"))
    assert cv2.imread(str(tmp_path / "chart.png")).std() > 5


def test_the_chart_of_a_clip_without_heads(tmp_path):
    clip_copies.write_chart(result_of(), BAND, str(tmp_path / "chart.png"))
    assert cv2.imread(str(tmp_path / "chart.png")) is not None


def test_an_odd_size_and_a_changing_rate_are_written(tmp_path):
    codec = cv2.VideoWriter.fourcc(*"MJPG")
    path = str(tmp_path / "a.avi")
    writer = cv2.VideoWriter(path, cv2.CAP_FFMPEG, codec, 100, (51, 37))
    for _ in range(100):
        writer.write(np.full((37, 51, 3), 99, np.uint8))
    writer.release()
    target = tmp_path / "copy.mp4"
    clip_copies.write_copy(path, result_of(duration=1.0), str(target))
    frames, rate = read(target)
    assert rate == 60 and 58 <= len(frames) <= 62 and frames[0].shape[:2] == (36, 50)


def test_a_folder_whose_name_is_no_utf8(tmp_path):
    path = tiny_heads.write_clip(tmp_path / "a.mp4", [tiny_heads.frame()] * 3)
    target = tmp_path / "not\udcffutf8" / "copy.mp4"
    clip_copies.write_copy(path, result_of(), str(target))
    assert [x.name for x in target.parent.iterdir()] == ["copy.mp4"]
    shown = target.rename(tmp_path / "copy.mp4")
    assert len(read(shown)[0]) == 3
