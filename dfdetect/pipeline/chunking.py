"""Loops inside a graph that bound its memory: over rows, or over chunks of rows."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

Outputs = dict[str, tf.Tensor]

# Rows that are processed at the same time where a row is an image: each takes one core,
# and memory for up to `image_status.MAX_PIXELS`.
ROWS_AT_ONCE = 2


def map_rows(function: Callable, elements: Any, specs: Any) -> Any:
    """Applies `tf.map_fn` with memory for `ROWS_AT_ONCE` rows at a time."""
    return tf.map_fn(
        function, elements, fn_output_signature=specs, parallel_iterations=ROWS_AT_ONCE
    )


def map_chunks(
    function: Callable[..., Outputs],
    tensors: list[tf.Tensor],
    chunk_size: int,
    specs: dict[str, tf.TensorSpec],
    *,
    at_once: int = 1,
) -> Outputs:
    """Calls a function on slices of tensors and joins its outputs, inside a graph.

    Args:
        function: Takes a slice of each tensor; may return any number of rows.
        tensors: Tensors of one first dimension, which may be 0.
        chunk_size: Most rows of a slice.
        specs: Specs of the outputs of the function, with unknown first dimension.
        at_once: Slices that are processed at the same time.

    Returns:
        The outputs of all calls, joined along the first dimension.
    """
    total = tf.shape(tensors[0])[0]
    num_chunks = -(-total // chunk_size)
    arrays = {
        name: tf.TensorArray(
            spec.dtype, num_chunks, infer_shape=False, element_shape=spec.shape
        )
        for name, spec in specs.items()
    }

    def step(chunk: tf.Tensor, arrays: dict) -> tuple[tf.Tensor, dict]:
        rows = slice(chunk * chunk_size, (chunk + 1) * chunk_size)
        results = function(*(tensor[rows] for tensor in tensors))
        return chunk + 1, {
            name: array.write(chunk, results[name]) for name, array in arrays.items()
        }

    _, arrays = tf.while_loop(
        lambda chunk, _: chunk < num_chunks,
        step,
        (tf.constant(0), arrays),
        parallel_iterations=at_once,
    )
    return {
        name: tf.ensure_shape(array.concat(), specs[name].shape)
        for name, array in arrays.items()
    }
