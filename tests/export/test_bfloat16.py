"""The lowered graph: which operations, how far off, and what stays in float32."""

import numpy as np
import pytest
import tensorflow as tf

from dfdetect.export import bfloat16

_KERNELS = [
    np.random.default_rng(i).normal(0, 0.2, shape).astype(np.float32)
    for i, shape in enumerate([(3, 3, 3, 8), (3, 3, 8, 1), (8, 4), (4, 4), (4, 2)])
]


def _network(images):
    x = tf.nn.conv2d(images, _KERNELS[0], 1, "SAME", name="first")
    y = tf.nn.depthwise_conv2d(
        tf.nn.relu(x, name="relu"), _KERNELS[1], [1] * 4, "SAME", name="second"
    )
    # A shape that is read of a lowered tensor, and a sum with one that is none.
    y = tf.reshape(y, tf.shape(x)) + images[..., :1]
    y = tf.reduce_mean(y, [1, 2])
    y = tf.tanh(tf.matmul(y, _KERNELS[2], name="third"))
    y = tf.matmul(y, _KERNELS[3], name="fourth")
    return tf.sigmoid(
        tf.matmul(tf.nn.relu(y, name="end"), _KERNELS[4], name="last"), name="answer"
    )


def _graph():
    with tf.Graph().as_default() as graph:
        images = tf.compat.v1.placeholder(tf.float32, [None, 8, 8, 3], "images")
        _network(images)
    return graph.as_graph_def()


@pytest.mark.parametrize(
    "shape, axes, depthwise",
    [
        ((3, 3, 8, 5), (0, 1, 2), False),
        ((3, 3, 8, 2), (0, 1), True),
        ((40, 6), 0, False),
    ],
)
def test_rounded_kernels_keep_their_sums(shape, axes, depthwise):
    kernel = np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)
    rounded = bfloat16.round_kernel(kernel, depthwise)
    assert rounded.dtype == tf.bfloat16.as_numpy_dtype and rounded.shape == shape
    rounded = rounded.astype(np.float64)
    nearest = kernel.astype(tf.bfloat16.as_numpy_dtype).astype(np.float64)

    def error(values):
        return np.abs((values - kernel).sum(axes)).max()

    assert error(rounded) < 0.1 * error(nearest)
    # No tap is far off: within two steps of bfloat16 at the largest of them.
    assert np.abs(rounded - kernel).max() < 2 * 2.0**-8 * np.abs(kernel).max()


def test_all_but_the_ends_are_lowered():
    lowered = bfloat16.lower(_graph(), ["answer"])
    types = {
        node.name: tf.as_dtype(node.attr["T"].type).name
        for node in lowered.node
        if "T" in node.attr
    }
    for name in ("first", "relu", "second", "Mean", "third"):
        assert types[name] == "bfloat16", name
    for name in ("Tanh", "end", "last", "answer"):
        assert types[name] == "float32", name
    weights = [n.attr["value"].tensor for n in lowered.node if n.op == "Const"]
    sizes = [(len(x.tensor_content), x.dtype) for x in weights]
    assert (_KERNELS[0].size * 2, tf.bfloat16.as_datatype_enum) in sizes
    assert (_KERNELS[0].size * 4, tf.float32.as_datatype_enum) not in sizes


def test_the_first_convolutions_are_spared():
    lowered = bfloat16.lower(_graph(), ["answer"], spared=2)
    types = {
        node.name: tf.as_dtype(node.attr["T"].type).name
        for node in lowered.node
        if node.op in ("Conv2D", "DepthwiseConv2dNative", "MatMul")
    }
    expected = {"first": "float32", "second": "float32", "last": "float32"}
    assert types == expected | {"third": "bfloat16", "fourth": "bfloat16"}


def test_the_answer_is_near():
    images = np.random.default_rng(0).uniform(0, 1, (5, 8, 8, 3)).astype(np.float32)
    lowered = bfloat16.lower(_graph(), ["answer"])
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.graph_util.import_graph_def(lowered, name="")
        found = session.run("answer:0", {"images:0": images})
    expected = _network(tf.constant(images)).numpy()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=0.01)
    assert np.abs(found - expected).max() > 0  # Else nothing was lowered.
