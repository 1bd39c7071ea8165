"""Sizes of images from their headers, outside of a graph."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from dfdetect.media import exif, headers, image_extents


def _encode(kind, orientation=1):
    image = Image.new("RGB", (40, 24), (90, 120, 30))
    tags = Image.Exif()
    tags[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, kind, **({} if orientation == 1 else {"exif": tags}))
    return file.getvalue()


@pytest.mark.parametrize("kind", ["jpeg", "png", "gif", "bmp", "webp"])
def test_height_and_width_of_each_kind(kind):
    content = _encode(kind)
    assert headers.identify_kind(content) == kind
    assert image_extents.read_upright_extents([content]).tolist() == [[24, 40]]


def test_a_mixed_batch_has_what_the_graph_reads():
    contents = [
        *(_encode(kind, orientation=6) for kind in ("jpeg", "png", "webp")),
        _encode("gif"),
        _encode("jpeg")[:30],
        b"\xff\xd8",
        b"RIFF",
        b"no image",
        b"",
    ]
    extents = image_extents.read_upright_extents(contents)
    assert extents.dtype == np.int32
    assert extents[:4].tolist() == [[40, 24]] * 3 + [[24, 40]]
    header = headers.read_batch(tf.constant(contents))
    np.testing.assert_array_equal(extents, exif.upright_extent(header))


def test_no_image_has_no_extent():
    assert image_extents.read_upright_extents([]).shape == (0, 2)
