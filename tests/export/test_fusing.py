"""Convolutions that pad, scale and add themselves: which, and the same numbers."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from dfdetect.export import fusing

_RANDOM = np.random.default_rng(0)


def _kernel(*shape):
    return _RANDOM.normal(0, 0.3, shape).astype(np.float32)


_VECTORS = [_RANDOM.uniform(0.5, 2, 8).astype(np.float32) for _ in range(6)]
_STEM, _DEPTHWISE, _POINTWISE = _kernel(3, 3, 3, 8), _kernel(5, 5, 8, 1), _kernel(8, 8)


def _graph(network, side=16):
    with tf.Graph().as_default() as graph:
        images = tf.compat.v1.placeholder(tf.float32, [None, side, side, 3], "images")
        tf.identity(network(images), name="answer")
    return graph.as_graph_def()


def _run(graph, side=16):
    images = np.random.default_rng(1).uniform(0, 1, (2, side, side, 3))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.graph_util.import_graph_def(graph, name="")
        return session.run("answer:0", {"images:0": images})


def _operations(graph):
    """How many of each kind the answer needs."""
    needed = tf.compat.v1.graph_util.extract_sub_graph(graph, ["answer"])
    return collections.Counter(node.op for node in needed.node)


def _padded(x, before, after):
    return tf.pad(x, [[0, 0], [before, after], [before, after], [0, 0]])


def _check(network, gone, side=16):
    graph = _graph(network, side)
    fused = fusing.fuse(graph, ["answer"])
    np.testing.assert_allclose(_run(fused, side), _run(graph, side), 1e-5, 1e-5)
    before, after = _operations(graph), _operations(fused)
    assert {name: before[name] - after[name] for name in gone} == gone


def test_scales_and_shifts_go_into_convolutions():
    def network(x):
        x = tf.nn.conv2d(x, _STEM, 1, "SAME") * _VECTORS[0] + _VECTORS[1]
        x = tf.nn.sigmoid(x)
        x = tf.nn.depthwise_conv2d(x, _DEPTHWISE, [1] * 4, "SAME")
        x = _VECTORS[2].reshape(1, 1, 1, 8) * x + _VECTORS[3]
        x = tf.nn.relu(x)
        x = tf.nn.bias_add(
            tf.nn.conv2d(x, _POINTWISE[None, None], 1, "SAME"), _VECTORS[4]
        )
        return (x + _VECTORS[0]) * _VECTORS[5] + _VECTORS[1]

    _check(network, {"Mul": 3, "AddV2": 4})


@pytest.mark.parametrize(
    "scale, shift",
    [
        (np.float32([0.1, 2, -3]), np.float32([-0.5, 0.25, 4])),
        # One number for all channels, as EfficientNet-Lite normalizes.
        (np.float32(1 / 128), np.float32(-127 / 128)),
    ],
)
def test_the_scale_of_pixels_goes_into_the_convolution(scale, shift):
    def network(x):
        x = _padded(x * scale + shift, 0, 1)
        return tf.nn.conv2d(x, _STEM, 2, "VALID") * _VECTORS[0] + _VECTORS[1]

    _check(network, {"Mul": 2, "Pad": 1, "AddV2": 1})


def test_the_scale_of_pixels_stays_where_it_must():
    shift = np.float32([-0.5, 0.25, 4])

    def read_twice(x):
        x = x * shift + shift
        return tf.nn.conv2d(x, _STEM, 1, "SAME") + tf.reduce_sum(x)

    _check(read_twice, {"Mul": 0})

    def read_twice_behind_padding(x):
        x = _padded(x * shift + shift, 0, 1)
        one = tf.nn.conv2d(x, _STEM, 2, "VALID")
        return one - tf.nn.relu(tf.nn.conv2d(x, -_STEM, 2, "VALID"))

    _check(read_twice_behind_padding, {"Mul": 0, "Pad": 1})

    def without_one_channel(x):
        x = x * np.float32([1, 0, 1]) + shift
        return tf.nn.conv2d(x, _STEM, 1, "SAME")

    _check(without_one_channel, {"Mul": 0})


def test_paddings_become_the_convolutions_own():
    def network(x):
        x = tf.nn.conv2d(_padded(x, 0, 1), _STEM, 2, "VALID")
        return tf.nn.depthwise_conv2d(
            _padded(x, 1, 2), _DEPTHWISE, [1, 2, 2, 1], "VALID"
        )

    _check(network, {"Pad": 2})


def test_other_paddings_stay():
    # Of an odd side, "SAME" pads on both sides.
    _check(
        lambda x: tf.nn.conv2d(_padded(x, 0, 1), _STEM, 2, "VALID"), {"Pad": 0}, side=15
    )
    _check(lambda x: tf.nn.conv2d(_padded(x, 2, 2), _STEM, 2, "VALID"), {"Pad": 0})

    def read_twice(x):
        x = _padded(x, 0, 1)
        return tf.reduce_sum(tf.nn.conv2d(x, _STEM, 2, "VALID")) + tf.reduce_sum(x)

    _check(read_twice, {"Pad": 0})


def test_what_others_read_or_widens_stays():
    def read_twice(x):
        x = tf.nn.conv2d(x, _STEM, 1, "SAME")
        return x * _VECTORS[0] + tf.nn.relu(x)

    _check(read_twice, {"Mul": 0, "AddV2": 0})

    def widened(x):
        x = tf.nn.conv2d(x, _STEM, 1, "VALID")
        return x * np.ones((3, 1, 1, 1, 8), np.float32)

    _check(widened, {"Mul": 0})


def test_a_shared_kernel_is_scaled_for_each():
    def network(x):
        kernel = tf.constant(_STEM)
        one = tf.nn.conv2d(x, kernel, 1, "SAME") * _VECTORS[0]
        other = tf.nn.conv2d(x, kernel, 1, "SAME") * _VECTORS[1]
        return one - other

    _check(network, {"Mul": 2})
