"""Clips of every kind, against FFmpeg's own program."""

import os
import subprocess
import sys

import av
import numpy as np
import pytest

from building_support import clip
from dfdetect.media import clip_decoding, clip_frame, video
from drawn_clips import convert, decode, draw, draw_hdr

ALL = video.Sampling(-1)
INTERLACED = ("-flags", "+ildct+ilme")
H264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p")
DV = {"size": "720x576", "source": "testsrc2"}

# Name, options of FFmpeg, and of `draw`.
INTERLACED_CLIPS = {
    "a.mpg": (("-c:v", "mpeg2video", *INTERLACED), {}),
    "a.mxf": (("-c:v", "mpeg2video", "-pix_fmt", "yuv422p", *INTERLACED), {}),
    "a.vob": (("-c:v", "mpeg2video", "-f", "vob", *INTERLACED), {}),
    "a.mts": ((*H264, *INTERLACED), {}),
    "ten_bits.mov": (("-c:v", "libx264", "-pix_fmt", "yuv422p10", *INTERLACED), {}),
    "prores.mov": (("-c:v", "prores_ks", *INTERLACED), {}),
    "dv.avi": (("-c:v", "dvvideo", "-pix_fmt", "yuv420p"), DV),
}

_DIGESTS = """
import hashlib, sys
from dfdetect.media import video
for path in sys.argv[1:]:
    for frame in video.Reader(path, video.Sampling(-1)):
        print(hashlib.sha256(frame.image.tobytes()).hexdigest())
"""


@pytest.fixture(scope="module")
def interlaced(tmp_path_factory):
    folder = tmp_path_factory.mktemp("interlaced")
    return {
        name: draw(folder / name, *options, **drawn)
        for name, (options, drawn) in INTERLACED_CLIPS.items()
    }


def test_no_frame_is_what_memory_held_before(interlaced, tmp_path):
    damaged = clip(tmp_path / "damaged.avi", 20) or tmp_path / "damaged.avi"
    content = bytearray(damaged.read_bytes())
    for place in range(2000, len(content) - 3000, 700):
        content[place : place + 40] = bytes(40)
    damaged.write_bytes(content)
    paths = [*map(str, interlaced.values()), str(damaged)]

    def digests(fill):
        # glibc fills memory that is given out by this.
        environment = {**os.environ, "MALLOC_PERTURB_": str(fill)}
        return subprocess.run(
            [sys.executable, "-c", _DIGESTS, *paths],
            env=environment,
            check=True,
            capture_output=True,
        ).stdout.splitlines()

    found = digests(1)
    assert len(found) > 7 * 25 and found == digests(254)


@pytest.mark.parametrize("name", INTERLACED_CLIPS)
def test_interlaced_clips_are_deinterlaced(interlaced, name):
    frames = list(video.Reader(interlaced[name], ALL))
    height, width = frames[0].image.shape[:2]
    scaled = f"bwdif=send_frame:deint=interlaced,scale={width}:{height}:flags=bicubic"
    expected = decode(interlaced[name], height, width, "-vf", scaled)
    assert len(frames) == len(expected) == 25
    for frame, image in zip(frames, expected, strict=True):
        assert np.abs(frame.image.astype(float) - image).mean() < 4


def test_an_interlaced_stream_that_changes_its_size(tmp_path):
    joined = tmp_path / "a.ts"
    parts = [
        draw(tmp_path / f"{size}.ts", *H264, *INTERLACED, size=size)
        for size in ("160x120", "192x128")
    ]
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    shapes = [frame.image.shape for frame in video.Reader(joined, ALL)]
    assert shapes == [(120, 160, 3)] * 25 + [(128, 192, 3)] * 25


def test_interlaced_frames_that_are_too_small_for_the_filter_stay_as_they_are(tmp_path):
    path = draw(tmp_path / "a.mpg", "-c:v", "mpeg2video", *INTERLACED, size="64x2")
    reader = video.Reader(path, ALL)
    assert {frame.image.shape for frame in reader} == {(2, 64, 3)}
    assert reader.num_read == 25


def test_a_frame_that_cannot_be_converted_is_missed_and_told(tmp_path, monkeypatch):
    path = draw(tmp_path / "a.mp4", *H264)
    convert_frame = clip_frame.DecodedFrame.image
    calls = iter(range(100))

    def image(frame):
        if next(calls) == 3:
            raise av.ArgumentError(22, "cannot be converted")
        return convert_frame(frame)

    monkeypatch.setattr(clip_frame.DecodedFrame, "image", image)
    reader = video.Reader(path, ALL)
    assert [frame.index for frame in reader] == [*range(3), *range(4, 25)]
    assert reader.warning == "1 of its frames could not be decoded"


def test_a_frame_that_is_not_judged_is_not_converted(tmp_path, monkeypatch):
    path = draw(tmp_path / "a.mp4", *H264, seconds=2)
    convert_frame = clip_frame.DecodedFrame.image
    converted = []

    def image(frame):
        converted.append(frame)
        return convert_frame(frame)

    monkeypatch.setattr(clip_frame.DecodedFrame, "image", image)
    assert len(list(video.Reader(path, video.Sampling(2)))) == 2
    # Two, and one each half a second to see cuts.
    assert len(converted) <= 6


def test_pixels_that_are_not_square_are_made_so(tmp_path):
    wide = draw(tmp_path / "wide.mp4", *H264, "-aspect", "8:3", size="160x120")
    reader = video.Reader(wide, video.Sampling(1))
    assert reader.size == (320, 120)
    (frame,) = reader
    (expected, *_) = decode(wide, 120, 320, "-vf", "select='eq(n,12)',scale=320:120")
    assert frame.image.shape == (120, 320, 3)
    assert np.abs(frame.image.astype(float) - expected).mean() < 4
    # No row is lost where pixels are higher than wide.
    high = draw(tmp_path / "high.mp4", *H264, "-aspect", "2:3", size="160x120")
    assert next(iter(video.Reader(high, ALL))).image.shape == (240, 160, 3)


@pytest.mark.parametrize(
    ("option", "turned"),
    [
        (("-display_rotation", "90"), lambda x: np.rot90(x)),
        (("-display_rotation", "180"), lambda x: np.rot90(x, 2)),
        (("-display_rotation", "-90"), lambda x: np.rot90(x, -1)),
        (("-display_hflip",), lambda x: x[:, ::-1]),
        (("-display_vflip",), lambda x: x[::-1]),
        (
            ("-display_rotation", "90", "-display_hflip"),
            lambda x: np.rot90(x)[:, ::-1],
        ),
    ],
)
def test_display_matrices_turn_and_mirror(tmp_path, option, turned):
    plain = draw(tmp_path / "a.mp4", *H264)
    matrix = convert(tmp_path / "b.mp4", *option, "-i", plain, "-c", "copy")
    (stored, *_), (shown, *_) = video.Reader(plain, ALL), video.Reader(matrix, ALL)
    np.testing.assert_array_equal(shown.image, turned(stored.image))
    height, width = shown.image.shape[:2]
    # FFmpeg turns by the same matrix.
    (expected, *_) = decode(matrix, height, width)
    assert np.abs(shown.image.astype(float) - expected).mean() < 4


def test_anamorphic_clips_are_turned_in_display_geometry(tmp_path):
    wide = draw(tmp_path / "a.mp4", *H264, "-aspect", "8:3")
    path = tmp_path / "b.mp4"
    convert(path, "-display_rotation", "90", "-i", wide, "-c", "copy")
    reader = video.Reader(path)
    assert reader.size == (120, 320)
    assert next(iter(reader)).image.shape == (320, 120, 3)


def test_a_codec_without_decoder_and_sound_alone_are_refused_in_words(tmp_path):
    sound = tmp_path / "a.mp4"
    convert(sound, "-f", "lavfi", "-i", "sine=duration=1", "-c:a", "aac")
    with pytest.raises(ValueError, match="it has no moving images"):
        video.Reader(sound)
    known = draw(tmp_path / "b.mp4", *H264)
    content = known.read_bytes()
    # The name of a codec that nobody has.
    known.write_bytes(content.replace(b"avc1", b"xyz1").replace(b"avcC", b"xyzC"))
    with pytest.raises(ValueError, match="no decoder for its codec xyz1"):
        video.Reader(known)


def test_av1_is_read(tmp_path):
    path = draw(tmp_path / "a.mp4", "-c:v", "libsvtav1", "-svtav1-params", "lp=1")
    reader = video.Reader(path, video.Sampling(4))
    assert len(list(reader)) == 4 and reader.warning == ""


def test_a_frame_that_is_repeated_is_not_damaged(tmp_path):
    # Theora stores a packet without content for it, to keep to a low rate.
    path = draw(tmp_path / "a.ogv", "-c:v", "libtheora", "-b:v", "20k", size="640x480")
    with av.open(path) as container:
        assert any(p.size == 0 and p.pts is not None for p in container.demux(video=0))
    reader = video.Reader(path, video.Sampling(-1))
    assert list(reader) and reader.warning == ""


def test_playlists_open_no_other_file(tmp_path):
    draw(tmp_path / "a.mp4", *H264)
    listed = tmp_path / "list.mp4"
    listed.write_text("ffconcat version 1.0\nfile a.mp4\n")
    with pytest.raises(clip_decoding.UnreadableClipError):
        video.Reader(listed)
    listed.write_text("#EXTM3U\n#EXTINF:1,\na.mp4\n#EXT-X-ENDLIST\n")
    with pytest.raises(clip_decoding.UnreadableClipError):
        video.Reader(listed)


def test_high_dynamic_range_is_told(tmp_path):
    reader = video.Reader(draw_hdr(tmp_path / "a.mp4"), video.Sampling(2))
    frames = iter(reader)
    assert next(frames) and reader.warning.startswith("PQ of"), "before the end"
    assert len(list(frames)) == 1
    assert reader.warning.startswith("PQ of high dynamic range")
