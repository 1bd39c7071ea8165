"""Packets of clips that would take minutes to decode."""

import fractions
import io
import struct
import zlib

import av
import PIL.Image
import pytest

from dfdetect.media import clip_decoding, packet_bounds

SIDE = 64


def encode(kind, **options):
    stream = io.BytesIO()
    PIL.Image.new("RGB", (SIDE, SIDE), (90, 120, 90)).save(stream, kind, **options)
    return stream.getvalue()


PROGRESSIVE = encode("JPEG", progressive=True)
PNG = encode("PNG")


def with_scans(count):
    """A JPEG with its last scan that many times more."""
    scan = PROGRESSIVE[PROGRESSIVE.rindex(b"\xff\xda") : -2]
    return PROGRESSIVE[:-2] + scan * count + PROGRESSIVE[-2:]


def with_texts(count):
    """A PNG with as many compressed texts."""
    content = b"zTXt" + b"k\0\0" + zlib.compress(bytes(1000))
    check = struct.pack(">I", zlib.crc32(content))
    chunk = struct.pack(">I", len(content) - 4) + content + check
    return PNG[:33] + chunk * count + PNG[33:]


def write(path, codec, frames):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "rgb24"
        for number, frame in enumerate(frames):
            packet = av.Packet(frame)
            packet.stream, packet.is_keyframe = stream, True
            packet.pts = packet.dts = number
            packet.time_base = fractions.Fraction(1, 25)
            container.mux(packet)
    return path


@pytest.mark.parametrize("name", ["clip.avi", "clip.mov"])
@pytest.mark.parametrize(
    "codec, plain, many",
    [
        ("mjpeg", with_scans(30), with_scans(100)),
        ("png", with_texts(9), with_texts(99)),
    ],
)
def test_what_takes_too_long_is_not_decoded(codec, plain, many, name, tmp_path):
    path = write(tmp_path / name, codec, [plain, many, plain, plain])
    with clip_decoding.OpenClip(path) as clip:
        assert clip.codec == codec
        shown = [round(frame.stamp * 25) for frame in clip.frames()]
        # None is a frame that FFmpeg itself refuses.
        assert (shown, clip.num_damaged) == ([0, 2, 3], 1)
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 4


def test_other_codecs_are_not_looked_at():
    assert packet_bounds.is_bounded("mjpeg") and packet_bounds.is_bounded("apng")
    assert not packet_bounds.is_bounded("h264")
    assert not packet_bounds.takes_too_long("h264", b"\xff\xda" * 1000)
