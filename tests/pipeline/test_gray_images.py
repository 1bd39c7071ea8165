"""The default weights find the same head in color and without it."""

import os

import pytest
import tensorflow as tf

from dfdetect import boxes, files
from dfdetect.export import graph_cache
from dfdetect.media import decode, image_status, source_files
from dfdetect.models import model_directory


@pytest.fixture(scope="module")
def detect():
    for part in ("detector", "classifier"):
        if not os.path.isdir(os.path.join(model_directory.DEFAULT_WEIGHTS, part)):
            pytest.skip(f"no default weights of the {part} yet")
    return graph_cache.load(None, lambda message: None).detect


def encode_gray(portrait):
    image = tf.cast(decode.decode_image(portrait), tf.float32)
    gray = tf.cast(tf.round(image @ tf.constant([[0.299], [0.587], [0.114]])), tf.uint8)
    return tf.io.encode_jpeg(gray, quality=95).numpy()


def test_gray_and_color_of_one_image_give_the_same_head(detect):
    color = files.read(source_files.find_sample())
    found = detect(tf.constant([color, encode_gray(color)]))
    statuses, counts = found["status"].numpy(), found["num_heads"].numpy()
    assert list(statuses) == [image_status.OK, image_status.OK]
    assert counts.min() >= 1
    # The most certain one, which stands first.
    first, second = found["boxes"].numpy()[:, 0]
    assert float(boxes.iou(first[None], second[None])[0, 0]) > 0.5
