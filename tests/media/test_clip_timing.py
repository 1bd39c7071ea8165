"""Clips whose headers are wrong or have no duration."""

import struct

import pytest

from building_support import clip, cut
from dfdetect.media import clip_timing, video
from drawn_clips import convert, draw

H264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p")


def read(path, count=8):
    reader = video.Reader(path, video.Sampling(count))
    return reader, list(reader)


def test_a_recording_without_duration(tmp_path):
    shown = draw(tmp_path / "a.webm", "-c:v", "libvpx", seconds=2)
    path = tmp_path / "b.webm"
    convert(path, "-i", shown, "-c", "copy", "-live", "1")
    reader, frames = read(path)
    assert reader.duration == pytest.approx(2, abs=0.05) and reader.warning == ""
    assert [frame.index for frame in frames] == video.bin_centers(50, 8)


@pytest.mark.parametrize("options", [(), ("-movflags", "frag_keyframe+empty_moov")])
def test_mp4_in_one_piece_and_in_fragments(tmp_path, options):
    path = draw(tmp_path / "a.mp4", *H264, "-g", "10", *options, seconds=2)
    reader, frames = read(path)
    assert reader.duration == pytest.approx(2) and reader.warning == ""
    assert [frame.index for frame in frames] == video.bin_centers(50, 8)


def test_a_clip_trimmed_without_encoding(tmp_path):
    whole = draw(tmp_path / "a.mp4", *H264, "-g", "50", "-bf", "0", seconds=2)
    path = tmp_path / "b.mp4"
    # Frames from the key frame on are stored, the edit list hides the first ones.
    convert(path, "-ss", "1.2", "-i", whole, "-c", "copy")
    reader, frames = read(path, 5)
    assert reader.duration == pytest.approx(0.8, abs=0.05)
    assert len(frames) == 5 and reader.warning == ""
    assert frames[0].time < 0.2 and reader.num_read == pytest.approx(20, abs=1)


def test_what_lies_behind_the_promised_end_is_read_and_told(tmp_path):
    path = draw(tmp_path / "a.mkv", *H264, seconds=3)
    content = path.read_bytes()
    # Matroska's element Duration: a double of milliseconds.
    place = content.index(b"\x44\x89\x88") + 3
    path.write_bytes(content[:place] + struct.pack(">d", 1000.0) + content[place + 8 :])
    reader, frames = read(path)
    assert reader.duration == pytest.approx(3, abs=0.05) and frames[-1].time > 2.7
    assert not reader.is_cut_short
    assert reader.warning == (
        "its header is wrong: it promises 1.0 seconds, and there are 3.0"
    )


def test_a_clip_cut_short_is_told_by_every_container(tmp_path):
    for name, options in {
        "a.mkv": H264,
        "a.avi": ("-c:v", "mpeg4"),
        "a.mp4": (*H264, "-movflags", "faststart"),
        "a.flv": ("-c:v", "flv1"),
    }.items():
        path = draw(tmp_path / name, *options, "-g", "5", seconds=4)
        cut(path)
        reader, frames = read(path)
        assert reader.is_cut_short and len(frames) == 8, name
        assert reader.warning.startswith("cut short: ")
        assert reader.warning.endswith(" of 4.0 seconds could be read")
        assert frames[-1].time < 3


def test_transport_streams_that_were_joined(tmp_path):
    one = draw(tmp_path / "1.ts", *H264, seconds=2)
    other = draw(tmp_path / "2.ts", *H264, seconds=1, source="smptebars")
    joined = tmp_path / "a.ts"
    # Time begins anew, then leaps ahead by an hour.
    late = convert(
        tmp_path / "3.ts", "-i", other, "-c", "copy", "-output_ts_offset", "3600"
    )
    joined.write_bytes(b"".join(x.read_bytes() for x in (one, other, late)))
    reader, frames = read(joined)
    assert reader.duration == pytest.approx(4, abs=0.2) and reader.num_read == 100
    times = [frame.time for frame in frames]
    assert times == pytest.approx([(i + 0.5) / 2 for i in range(8)], abs=0.15)
    assert [frame.shot for frame in frames] == [0] * 4 + [1] * 4


def test_a_clip_of_varying_rate_has_a_sound_header(tmp_path):
    path = draw(
        tmp_path / "a.mp4",
        *"-vf select='not(mod(n,7))+lt(n,20)' -fps_mode vfr".split(),
        *H264,
        seconds=4,
    )
    reader, _ = read(path)
    assert reader.warning == "" and 3.8 < reader.duration < 4.3


def test_sound_may_be_longer_than_what_is_seen(tmp_path):
    path = tmp_path / "a.mkv"
    shown = draw(tmp_path / "b.mp4", *H264, seconds=1)
    sound = ("-f", "lavfi", "-i", "sine=duration=4")
    convert(path, *sound, "-i", shown, "-c:v", "copy", "-c:a", "aac")
    reader, frames = read(path, 4)
    assert reader.warning == "" and reader.duration == pytest.approx(1, abs=0.05)
    assert len(frames) == 4


@pytest.mark.parametrize("ending", ["mkv", "webm", "mp4", "flv", "asf"])
def test_frames_may_begin_late(tmp_path, ending):
    codec = ("-c:v", "libvpx") if ending == "webm" else H264
    whole = draw(tmp_path / f"a.{ending}", *codec, "-g", "5", seconds=2)
    path = tmp_path / f"b.{ending}"
    more = ("-movflags", "faststart") if ending == "mp4" else ()
    convert(path, "-itsoffset", "3", "-i", whole, "-c", "copy", *more)
    reader, frames = read(path)
    assert reader.duration == pytest.approx(2, abs=0.05) and len(frames) == 8
    assert reader.warning == ""
    cut(path)
    reader, frames = read(path)
    # FFmpeg tells no duration of an ASF that is cut short.
    assert reader.is_cut_short or ending == "asf"


def test_an_image_beside_sound_is_no_clip(tmp_path):
    cover = draw(tmp_path / "cover.png", "-frames:v", "1")
    path = tmp_path / "a.m4a"
    convert(
        path,
        *"-f lavfi -i sine=duration=1 -i".split(),
        cover,
        *"-c:a aac -c:v png -disposition:v attached_pic".split(),
    )
    with pytest.raises(ValueError, match="it has no moving images"):
        video.Reader(path)


def test_clock():
    clock = clip_timing.Clock(0.1, may_leap=False)
    # Jitter, no time stamp, a new beginning.
    stamps = [5.0, 5.1, 5.05, None, 5.4, 0.0, 0.1]
    times = [clock.tick(stamp) for stamp in stamps]
    assert times == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    clock = clip_timing.Clock(0.1, may_leap=True, start=4.9)
    assert [clock.tick(x) for x in (5.0, 95.0, 95.1)] == pytest.approx([0.1, 0.2, 0.3])
    clock = clip_timing.Clock(0.1, may_leap=False)
    assert [clock.tick(x) for x in (5.0, 95.0)] == pytest.approx([0.0, 90.0])


def test_frames_by_index_have_the_same_times(tmp_path):
    clip(tmp_path / "a.avi", 12, rate=10)
    found = list(video.read_frames(tmp_path / "a.avi", [2, 7]))
    assert [frame.time for frame in found] == pytest.approx([0.2, 0.7])
