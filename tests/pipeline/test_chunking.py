import numpy as np
import pytest
import tensorflow as tf

from dfdetect.pipeline import chunking

SPECS = {"doubled": tf.TensorSpec([None, 2], tf.float32)}


@pytest.mark.parametrize(
    "count, sizes", [(0, []), (1, [1]), (3, [3] * 3), (4, [3] * 3 + [1])]
)
def test_chunks_join_to_the_whole_and_are_no_larger_than_asked(count, sizes):
    rows = np.arange(count * 2, dtype=np.float32).reshape(count, 2)

    def sizes_and_rows(chunk):
        size = tf.fill([tf.shape(chunk)[0], 1], tf.cast(tf.shape(chunk)[0], tf.float32))
        return {"doubled": tf.concat([size, chunk[:, 1:] * 2], 1)}

    found = tf.function(
        lambda rows: chunking.map_chunks(sizes_and_rows, [rows], 3, SPECS)
    )(rows)["doubled"]
    assert found[:, 0].numpy().tolist() == sizes
    np.testing.assert_array_equal(found[:, 1], rows[:, 1] * 2)


def test_it_runs_in_a_graph_with_a_free_batch_and_many_rows_from_one():
    @tf.function(input_signature=[tf.TensorSpec([None, 2])])
    def repeat(rows):
        return chunking.map_chunks(
            lambda r: {"doubled": tf.repeat(r, 2, axis=0)}, [rows], 1, SPECS
        )

    rows = np.array([[1, 2], [3, 4]], np.float32)
    np.testing.assert_array_equal(repeat(rows)["doubled"], rows[[0, 0, 1, 1]])
    assert repeat(np.zeros((0, 2), np.float32))["doubled"].shape == (0, 2)


def test_several_tensors_are_sliced_alike():
    rows = np.arange(10, dtype=np.float32).reshape(5, 2)
    weights = np.arange(5, dtype=np.float32)[:, None]
    found = chunking.map_chunks(
        lambda r, w: {"doubled": r * w}, [rows, weights], 2, SPECS
    )
    np.testing.assert_array_equal(found["doubled"], rows * weights)


def test_map_rows_sees_single_rows():
    found = chunking.map_rows(
        lambda row: tf.reduce_sum(row), tf.ones([3, 4]), tf.TensorSpec([], tf.float32)
    )
    np.testing.assert_array_equal(found, [4, 4, 4])
