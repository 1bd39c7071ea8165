"""Small files that would take minutes to decode are rejected by their headers."""

import io
import struct
import time
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from dfdetect.media import decode, image_status


def jpeg(side=64, **options):
    y, x = np.mgrid[0:side, 0:side]
    pixels = np.stack([x * 3 % 256, y * 3 % 256, (x + y) % 256], -1).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="JPEG", **options)
    return file.getvalue()


def with_scans(encoded, count, before=b""):
    """Repeats the last scan of a JPEG, each time after some bytes."""
    scan = encoded[encoded.rindex(b"\xff\xda") : -2]
    return encoded[:-2] + (before + scan) * count + encoded[-2:]


def comment(content):
    return b"\xff\xfe" + struct.pack(">H", len(content) + 2) + content


def status(encoded):
    return int(decode.decode(tf.constant([encoded]))[1][0])


PROGRESSIVE = jpeg(progressive=True)
MANY = {
    "scans": with_scans(PROGRESSIVE, 300),
    "scans behind a comment": with_scans(PROGRESSIVE, 300, comment(b"a comment")),
    # A marker within a comment does not end the image.
    "scans behind a false end": with_scans(PROGRESSIVE, 300, comment(b"\xff\xd9")),
    "scans behind dirt": with_scans(PROGRESSIVE, 300, b"\xff\xd0dirt\xff\xff"),
    "comments": with_scans(PROGRESSIVE, 3, comment(b"") * 1000),
}
FEW = {
    "all at once": jpeg(),
    "progressive": PROGRESSIVE,
    "twice the scans": with_scans(PROGRESSIVE, 10),
    "scans in a comment": with_scans(PROGRESSIVE, 1, comment(b"\xff\xda" * 300)),
    "scans behind the end": PROGRESSIVE + b"\xff\xda\0\x02" * 300,
}


@pytest.mark.parametrize("name", MANY)
def test_a_jpeg_of_too_many_scans_is_unreadable(name):
    assert status(MANY[name]) == image_status.UNREADABLE


@pytest.mark.parametrize("name", FEW)
def test_a_jpeg_of_a_few_scans_is_read(name):
    assert status(FEW[name]) == image_status.OK
    np.testing.assert_array_equal(
        decode.decode_image(FEW[name]), tf.io.decode_jpeg(FEW[name], channels=3)
    )


def test_a_small_file_of_many_scans_takes_no_time():
    file = io.BytesIO()
    Image.new("RGB", (4000, 4000)).save(file, format="JPEG", progressive=True)
    large = with_scans(file.getvalue(), 3000)
    decode.decode(tf.constant([PROGRESSIVE]))
    begun = time.process_time()
    assert status(large) == image_status.UNREADABLE
    # Ten times what it takes; decoded, it were minutes.
    assert time.process_time() - begun < 3.0


def png(*chunks, behind=False):
    """Builds a PNG with additional chunks before or after its pixels."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, format="PNG")
    encoded = file.getvalue()
    packed = b"".join(
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )
    at = len(encoded) - 12 if behind else encoded.index(b"IDAT") - 4
    return encoded[:at] + packed + encoded[at:]


@pytest.mark.parametrize("behind", [False, True])
def test_a_png_of_texts_that_unpack_to_gigabytes_is_unreadable(behind):
    packed = zlib.compress(b"a" * 7_900_000, 9)
    bomb = png(*[(b"zTXt", b"k\0\0" + packed)] * 200, behind=behind)
    begun = time.process_time()
    assert status(bomb) == image_status.UNREADABLE
    assert time.process_time() - begun < 3.0
    texts = [(b"iTXt", b"k\0\0\0\0\0text"), (b"zTXt", b"k\0\0" + zlib.compress(b"t"))]
    assert status(png(*texts * 10, behind=behind)) == image_status.OK
    assert status(png(*texts * 20, behind=behind)) == image_status.UNREADABLE


def test_a_non_progressive_jpeg_of_many_scans_is_unreadable():
    # One scan for each color: the first is not all of the image.
    encoded = jpeg()
    scan = encoded.rindex(b"\xff\xda")
    one = struct.pack(">BBHBBBBBB", 0xFF, 0xDA, 8, 1, 1, 0, 0, 63, 0)
    assert encoded[scan + 4] == 3
    assert status(encoded[:scan] + one * 300 + encoded[-2:]) == image_status.UNREADABLE
