"""The precision that the machine at hand computes faster."""

import numpy as np
import pytest
import tensorflow as tf

import tiny_pipeline
from dfdetect.export import fastest_precision, freezing
from dfdetect.media import samples


@pytest.mark.slow  # Half a minute: freezes twice, and measures.
def test_a_graph_is_frozen_in_what_was_measured_to_be_faster():
    said = []
    graph = tiny_pipeline.build()
    frozen = fastest_precision.freeze_fastest(graph, said.append)
    chosen = frozen.manifest["precision"]
    assert chosen in freezing.PRECISIONS
    assert said[-1].startswith(f"--precision={chosen}: bfloat16 takes ")
    images = tf.constant(samples.draw_portraits(2, 1))
    directly = freezing.freeze(graph, chosen)
    expected = directly.detect(images)
    for name, value in frozen.detect(images).items():
        np.testing.assert_array_equal(value.numpy(), expected[name].numpy())
