import numpy as np
import pytest
import tensorflow as tf

from dfdetect import data, evaluation


@pytest.mark.parametrize("batch_size", [1, 2])
def test_detections_are_of_the_originals_with_their_sizes(prepared, batch_size):
    def detect(pictures):
        # Of the square: the picture of 96 x 160 fills its upper .6.
        boxes = tf.constant([[0.0, 0.25, 0.3, 0.5], [0.3, 0.0, 0.9, 1.0]])
        count = len(pictures)
        return {
            "boxes": tf.tile(boxes[None], [count, 1, 1]),
            "scores": tf.tile([[0.9, 0.8]], [count, 1]),
            "num_heads": tf.constant([1, 2][:count]),
        }

    builder = data.open_builder(str(prepared), "hollywood_heads")
    batches = data.detector_evaluation(builder, "test", 128, batch_size)
    found, truth, extents = evaluation.detections(detect, batches)
    assert extents.tolist() == [[96, 160]] * 3
    assert sorted(len(boxes) for boxes, _ in truth) == [0, 1, 2]
    assert [len(boxes) for boxes, _ in found] == ([1, 1, 1], [1, 2, 1])[batch_size - 1]
    whole = np.array([[0, 0.25, 0.5, 0.5], [0.5, 0, 1, 1]])
    for boxes, scores in found:
        np.testing.assert_allclose(boxes, whole[: len(boxes)], atol=1e-6)
        np.testing.assert_allclose(scores, [0.9, 0.8][: len(boxes)])
