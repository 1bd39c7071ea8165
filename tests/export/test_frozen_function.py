"""A function from its file: the same numbers and shapes."""

import numpy as np
import pytest
import tensorflow as tf

from dfdetect.export import frozen_function


@tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32)])
def _function(pairs):
    """With a loop, which is a function of its own."""
    doubled = tf.while_loop(lambda i, _: i < 3, lambda i, x: (i + 1, 2 * x), (0, pairs))
    return {"doubled": doubled[1], "count": tf.shape(pairs)[0]}


@pytest.fixture(name="path")
def _path(tmp_path):
    path = tmp_path / "function.pb"
    frozen_function.save(_function, path)
    return path


def test_it_answers_alike(path):
    loaded = frozen_function.load(path)
    for count in (0, 1, 3):
        pairs = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
        found = loaded(tf.constant(pairs))
        assert found.keys() == {"doubled", "count"} and found["count"] == count
        np.testing.assert_array_equal(found["doubled"], 8 * pairs)


def test_two_of_one_process_do_not_mix(path):
    one, other = frozen_function.load(path), frozen_function.load(path)
    pairs = tf.ones([1, 2])
    np.testing.assert_array_equal(one(pairs)["doubled"], other(pairs)["doubled"])


def test_strings_in_any_number(tmp_path):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def lengths(texts):
        return {"lengths": tf.strings.length(texts)}

    frozen_function.save(lengths, tmp_path / "lengths.pb")
    found = frozen_function.load(tmp_path / "lengths.pb")(tf.constant([b"", b"abc"]))
    np.testing.assert_array_equal(found["lengths"], [0, 3])


@pytest.mark.parametrize("share", [0, 0.5, 0.97])
def test_a_damaged_file_is_refused(path, share):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match="function.pb is damaged"):
        frozen_function.load(path)


def test_variables_are_refused(tmp_path):
    variable = tf.Variable(2.0)

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32)])
    def scaled(number):
        return {"scaled": variable * number}

    with pytest.raises(ValueError, match="must capture no variables or tensors, got 1"):
        frozen_function.save(scaled, tmp_path / "scaled.pb")
    assert not any(tmp_path.iterdir())
