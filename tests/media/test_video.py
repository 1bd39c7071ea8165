import os

import cv2
import numpy as np
import pytest

import drawn_clips
from building_support import clip, cut
from dfdetect.media import video
from tiny_heads import write_clip


def test_bin_centers():
    # Four parts of 10 frames are 2.5 long: 1.25, 3.75, 6.25, 8.75.
    assert video.bin_centers(10, 4) == [1, 3, 6, 8]
    assert video.bin_centers(1, 1) == [0]
    assert video.bin_centers(300, 1) == [150]
    assert video.bin_centers(3, 32) == [0, 1, 2]
    assert video.bin_centers(3, -1) == [0, 1, 2]
    assert video.bin_centers(0, 32) == []


def test_frames_have_their_index_time_and_pixels(tmp_path):
    clip(tmp_path / "a.mp4", 12, 48, 64, rate=10)
    frames = list(video.read_frames(tmp_path / "a.mp4", [0, 5, 11]))
    assert [frame.index for frame in frames] == [0, 5, 11]
    assert [frame.time for frame in frames] == pytest.approx([0.0, 0.5, 1.1])
    for frame in frames:
        assert frame.image.shape == (48, 64, 3)
        assert abs(frame.image.mean() - 20 * frame.index % 256) < 3


def test_a_clip_cut_short_gives_the_frames_it_has(tmp_path):
    clip(tmp_path / "a.mp4", 100)
    cut(tmp_path / "a.mp4")
    there = video.count_frames(tmp_path / "a.mp4")
    assert 10 < there < 90
    frames = list(video.read_frames(tmp_path / "a.mp4", [0, there - 1, there, 99]))
    assert [frame.index for frame in frames] == [0, there - 1]


@pytest.mark.parametrize(
    ("content", "came"),
    [
        (b"", "an empty file"),
        (b"no clip", "a text"),
        (b"\0" * 1000, "of an unknown kind"),
        (b"%PDF-1.7\n", "PDF"),
    ],
)
def test_what_is_no_clip_says_so(tmp_path, content, came):
    (tmp_path / "a.mp4").write_bytes(content)
    told = (
        f"a.mp4: no clip that can be decoded: {came}; wanted is MP4, QuickTime, "
        r"Matroska, WebM, AVI or another clip\.$"
    )
    with pytest.raises(ValueError, match=told):
        video.count_frames(tmp_path / "a.mp4")
    with pytest.raises(ValueError, match=told):
        list(video.read_frames(tmp_path / "a.mp4", [0]))


@pytest.mark.parametrize(
    ("name", "kind"), [("a.mp4", "MP4 or QuickTime"), ("a.mkv", "Matroska or WebM")]
)
def test_a_clip_whose_header_is_missing_is_called_damaged(tmp_path, name, kind):
    path = drawn_clips.draw(tmp_path / name, "-c:v", "mpeg4")
    content = path.read_bytes()
    # The header of an MP4 is at its end.
    path.write_bytes(
        content[: content.find(b"moov")] if kind[1] == "P" else content[:40]
    )
    told = f"no clip that can be decoded: {kind}, cut short or damaged"
    with pytest.raises(ValueError, match=told):
        video.Reader(path)


def gray(index):
    return np.full((48, 64, 3), 20 * index % 256, np.uint8)


def times(reader):
    return [frame.time for frame in reader]


@pytest.mark.parametrize("count", [1, 4, 7, 12, 32, -1])
def test_a_reader_takes_the_bins_of_the_builders(tmp_path, count):
    clip(tmp_path / "a.mp4", 12, rate=10)
    reader = video.Reader(tmp_path / "a.mp4", video.Sampling(count))
    assert reader.size == (64, 48) and reader.duration == pytest.approx(1.2)
    frames = list(reader)
    assert [frame.index for frame in frames] == video.bin_centers(12, count)
    assert reader.num_read == 12 and reader.warning == ""
    for frame in frames:
        assert frame.time == pytest.approx(frame.index / 10)
        assert abs(frame.image.mean() - 20 * frame.index) < 3


def test_a_clip_that_does_not_say_how_long_it_is(tmp_path):
    # One JPEG behind the other, no header and no time stamps.
    stream = b"".join(cv2.imencode(".jpg", gray(i))[1].tobytes() for i in range(20))
    (tmp_path / "a.mjpeg").write_bytes(stream)
    frames = list(video.Reader(tmp_path / "a.mjpeg", video.Sampling(4)))
    assert [frame.index for frame in frames] == [2, 7, 12, 17]


def test_a_reader_takes_one_frame_every_so_often(tmp_path):
    clip(tmp_path / "a.mp4", 25, rate=10)
    every = video.Sampling(every=0.5)
    found = times(video.Reader(tmp_path / "a.mp4", every))
    assert found == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0])
    every = video.Sampling(every=0.01)
    assert len(times(video.Reader(tmp_path / "a.mp4", every))) == 25


def slow_down(path, index, factor):
    """Multiplies the duration of all frames of an MP4 after the first `index`."""
    content = bytearray(path.read_bytes())
    # So that no place of data within it changes.
    assert content.index(b"mdat") < content.index(b"moov")
    place = content.index(b"stts") + 8
    count, old = (
        int.from_bytes(content[x : x + 4], "big") for x in (place + 4, place + 8)
    )
    table = [index, old, count - index, factor * old]
    entries = b"".join(x.to_bytes(4, "big") for x in [2, *table])
    content[place : place + 12] = entries
    grown = len(entries) - 12
    # The atoms around it grow as well; those of data lie before them.
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts"):
        at = content.index(name) - 4
        size = int.from_bytes(content[at : at + 4], "big") + grown
        content[at : at + 4] = size.to_bytes(4, "big")
    # The edit list would cut it to the old length.
    path.write_bytes(content.replace(b"edts", b"free"))


def test_time_stamps_decide_where_the_rate_varies(tmp_path):
    path = tmp_path / "a.mp4"
    write_clip(path, [gray(i) for i in range(20)], rate=10)
    slow_down(path, 10, 4)
    found = times(video.Reader(path, video.Sampling(-1)))
    expected = [*np.arange(10) / 10, *(1 + 0.4 * np.arange(10))]
    assert found == pytest.approx(expected, abs=2e-3)
    reader = video.Reader(path, video.Sampling(every=0.8))
    indices = [frame.index for frame in reader]
    assert indices[0] == 0 and np.diff(found)[0] == pytest.approx(0.1, abs=2e-3)
    chosen = [found[index] for index in indices]
    # Each within a frame of its target.
    assert np.abs(chosen - 0.8 * np.arange(len(chosen))).max() <= 0.41
    # Nobody has told the header of the track.
    assert reader.warning == (
        "its header is wrong: it promises 2.0 seconds, and there are 5.0"
    )


@pytest.mark.parametrize(
    "times, end, count, wanted",
    [
        # A slide show.
        ([0, 5.04, 9.96, 15.32], 20.36, 32, [0, 1, 2, 3]),
        # A still of 20 seconds, then motion.
        ([0, *(20 + 0.04 * i for i in range(25))], 21, 4, [0]),
        ([0, *(20 + 0.04 * i for i in range(25))], 21, 32, [0, 1, 17]),
        # Motion, then a still of a minute.
        ([0.04 * i for i in range(10)], 60, 8, [9]),
        ([0], 5, 32, [0]),
        ([0], 20, 1, [0]),
    ],
)
@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_a_frame_is_shown_until_the_next_one(
    tmp_path, times, end, count, wanted, ending
):
    images = [np.full((48, 64, 3), 8 * i, np.uint8) for i in range(len(times))]
    path = drawn_clips.write_stills(tmp_path / f"a{ending}", images, times, end)
    frames = list(video.Reader(path, video.Sampling(count)))
    assert [x.index for x in frames] == wanted
    for frame in frames:
        assert frame.time == pytest.approx(times[frame.index], abs=2e-3)
        assert abs(frame.image.mean() - 8 * frame.index) < 3


def test_frames_of_a_stream_do_not_wait_for_the_next_one(tmp_path, serve_folder):
    times = [0, 5, 10]
    images = [np.full((48, 64, 3), 60 * i, np.uint8) for i in range(3)]
    drawn_clips.write_stills(tmp_path / "a.mkv", images, times, 15)
    reader = video.Reader(f"{serve_folder(tmp_path)}/a.mkv", video.Sampling(every=1))
    read = [(frame.index, reader.num_read) for frame in reader]
    assert read == [(0, 1), (1, 2), (2, 3)]


def test_frames_come_upright(tmp_path):
    path = tmp_path / "a.mp4"
    image = np.zeros((48, 64, 3), np.uint8)
    image[:24] = 255
    write_clip(path, [image] * 3)
    content = path.read_bytes()
    # The matrix of the track's header: as it is, to a turn by a quarter, clockwise.
    one = (1 << 16).to_bytes(4, "big")
    minus = (-1 << 16).to_bytes(4, "big", signed=True)
    nothing, unit = bytes(4), (1 << 30).to_bytes(4, "big")
    matrix = [one, nothing, nothing, nothing, one, nothing, nothing, nothing, unit]
    start = content.index(b"tkhd")
    place = content.index(b"".join(matrix), start)
    matrix[:5] = [nothing, one, nothing, minus, nothing]
    path.write_bytes(content[:place] + b"".join(matrix) + content[place + 36 :])
    reader = video.Reader(path)
    assert reader.size == (48, 64)
    (frame, *_) = reader
    assert frame.image.shape == (64, 48, 3)
    assert frame.image[:, 30:].min() > 200 and frame.image[:, :18].max() < 50


def test_a_reader_tells_of_a_clip_cut_short(tmp_path):
    clip(tmp_path / "a.avi", 100, rate=10)
    cut(tmp_path / "a.avi")
    reader = video.Reader(tmp_path / "a.avi", video.Sampling(10))
    frames = list(reader)
    # Of what there is, as many as of a whole clip.
    assert len(frames) == 10 and frames[-1].index > 0.9 * reader.num_read
    read = reader.num_read / 10
    assert reader.is_cut_short
    assert reader.warning == f"cut short: {read:.1f} of 10.0 seconds could be read"


def test_a_reader_numbers_the_shots(tmp_path):
    rng = np.random.default_rng(0)
    scenes = [rng.integers(0, 256, 3) for _ in range(3)]
    frames = [
        np.broadcast_to(np.uint8(color), (48, 64, 3))
        for color in scenes
        for _ in range(20)
    ]
    path = write_clip(tmp_path / "a.mp4", frames)
    for sampling in (video.Sampling(-1), video.Sampling(12), video.Sampling(3)):
        reader = video.Reader(path, sampling)
        for frame in reader:
            assert frame.shot == frame.index // 20


def test_names_that_ffmpeg_would_misread(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clip(tmp_path / "a.avi", 3)
    (tmp_path / "a.avi").rename(tmp_path / "concat:b%d.avi")
    assert len(list(video.Reader("concat:b%d.avi"))) == 3
    os.rename("concat:b%d.avi", "not\udcffutf8.avi")
    assert len(list(video.Reader("not\udcffutf8.avi"))) == 3
    with pytest.raises(ValueError, match="No such file or directory"):
        video.Reader("\udcff.avi")


@pytest.mark.parametrize("wrong", [{"count": 0}, {"count": -2}, {"every": 0.0}])
def test_a_sampling_of_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        video.Sampling(**wrong)
