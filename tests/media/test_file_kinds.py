"""Kinds of files written by Pillow and FFmpeg, by their first bytes."""

import io

import pytest
from PIL import Image

from dfdetect.media import file_kinds
from drawn_clips import draw

H264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p")

CLIPS = {
    "MP4 or QuickTime": {
        "a.mp4": H264,
        "a.3g2": ("-c:v", "mpeg4"),
        "a.mov": H264,
        "a.qt": (*H264, "-f", "mov"),
        "a.f4v": H264,
    },
    "Matroska or WebM": {"a.mkv": H264, "a.webm": ("-c:v", "libvpx")},
    "AVI": {"a.avi": ("-c:v", "mpeg4")},
    "ASF or WMV": {"a.asf": ("-c:v", "wmv2"), "a.wmv": ("-c:v", "wmv2")},
    "Flash video": {"a.flv": ("-c:v", "flv1")},
    "MPEG": {
        "a.mpg": ("-c:v", "mpeg1video"),
        "a.vob": ("-c:v", "mpeg2video"),
        "a.m2v": ("-c:v", "mpeg2video"),
    },
    "MPEG transport stream": {"a.ts": H264, "a.m2ts": H264},
    "Ogg video": {"a.ogv": ("-c:v", "libtheora")},
    "MXF": {"a.mxf": ("-c:v", "mpeg2video")},
    "YUV4MPEG": {"a.y4m": ("-pix_fmt", "yuv420p")},
    "IVF": {"a.ivf": ("-c:v", "libvpx")},
    "NUT": {"a.nut": ("-c:v", "mpeg4")},
    "H.264": {"a.h264": H264, "a.264": (*H264, "-x264-params", "aud=1")},
    "HEVC": {
        "a.hevc": ("-c:v", "libx265"),
        "a.265": ("-c:v", "libx265", "-x265-params", "aud=1", "-f", "hevc"),
    },
    "MPEG-4 video": {"a.m4v": ("-c:v", "mpeg4", "-f", "m4v")},
    "AV1": {"a.obu": ("-c:v", "libsvtav1", "-svtav1-params", "lp=1")},
}

IMAGES = ("JPEG", "PNG", "GIF", "BMP", "WebP")


def encoded(name, **options):
    file = io.BytesIO()
    Image.new("RGB", (32, 24), "red").save(file, name, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", CLIPS)
def test_clips(tmp_path, kind):
    for name, options in CLIPS[kind].items():
        path = draw(tmp_path / name, *options, seconds=0.4)
        assert file_kinds.identify_file(path) == kind
        assert file_kinds.is_clip(kind) and not file_kinds.is_image(kind)


@pytest.mark.parametrize(("name", "step"), [("a.ts", 188), ("a.m2ts", 192)])
def test_a_transport_stream_that_begins_within_a_packet(tmp_path, name, step):
    content = draw(tmp_path / name, *H264).read_bytes()
    for missing in (1, 100, step - 1):
        kind = file_kinds.identify_bytes(content[missing:])
        assert kind == "MPEG transport stream"
    assert file_kinds.identify_bytes(content[1:600]) == file_kinds.UNKNOWN
    # A sequence of bases, with a G wherever a packet might begin.
    assert file_kinds.identify_bytes(b"A" + b"G" * 3000) == file_kinds.TEXT


@pytest.mark.parametrize("kind", IMAGES)
def test_images(kind):
    assert file_kinds.identify_bytes(encoded(kind.upper())) == kind
    assert file_kinds.is_image(kind) and not file_kinds.is_clip(kind)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "empty"),
        (b"some words", "text"),
        (b"words, free of charge", "text"),
        (b"\0\1\2\3", ""),
        (encoded("TIFF"), "TIFF"),
        (encoded("ICO"), "icon"),
        (encoded("PDF"), "PDF"),
        (b"\0\0\0\x1cftypavif", "AVIF"),
        (b"\0\0\0\x1cftypmif1", "HEIC"),
        (b"\xff\x0a\x10\x20", "JPEG XL"),
        (b"\n <!DOCTYPE html><html>", "web page"),
        (b"<?xml version='1.0'?>\n<svg/>", "SVG"),
        (b"<?xml version='1.0'?><a/>", "XML"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"OggS" + bytes(24) + b"\x01vorbis", "Ogg audio"),
        (b"BM, said the text, and went on for long", "text"),
    ],
)
def test_what_neither_reads(content, kind):
    assert file_kinds.identify_bytes(content) == kind
    assert not file_kinds.is_image(kind) and not file_kinds.is_clip(kind)


def test_no_file_is_of_no_kind(tmp_path):
    assert file_kinds.identify_file(tmp_path) == file_kinds.UNKNOWN
    assert file_kinds.identify_file(tmp_path / "none") == file_kinds.UNKNOWN


def test_animated():
    red, blue = (Image.new("RGB", (32, 24), color) for color in ("red", "blue"))
    for kind in ("GIF", "WEBP", "PNG"):
        assert not file_kinds.is_animated(encoded(kind))
        more = encoded(kind, save_all=True, append_images=[blue, red])
        assert file_kinds.is_animated(more), kind
    assert not file_kinds.is_animated(encoded("JPEG"))
    # Of GIF87a, of which nothing stands before the first frame.
    still, moving = encoded("GIF"), encoded("GIF", save_all=True, append_images=[blue])
    assert still[:6] == b"GIF87a" and file_kinds.is_animated(moving)
    for end in range(6, len(moving)):
        file_kinds.is_animated(moving[:end])


def test_what_came_is_said_with_what_is_wanted():
    one_bit = io.BytesIO()
    Image.new("1", (32, 24)).save(one_bit, "BMP")
    for content, reason in {
        b"": "an empty file; wanted is JPEG, PNG, BMP, GIF or WebP",
        encoded("TIFF"): "TIFF; wanted is JPEG, PNG, BMP, GIF or WebP",
        encoded("JPEG")[:-40]: "JPEG, cut short or damaged",
        one_bit.getvalue(): "a BMP of 1 bits a pixel; wanted are 8, 24 or 32",
    }.items():
        expected = f"no image that can be decoded: {reason}"
        assert file_kinds.describe_unreadable(content) == expected
