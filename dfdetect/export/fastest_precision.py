"""Chooses the precision of an exported graph by measuring both on this machine."""

import functools
from collections.abc import Callable

import tensorflow as tf

from dfdetect.export import freezing, timing
from dfdetect.media import samples
from dfdetect.pipeline import deepfake_pipeline

# Images of one call and their heads, as a server or `dfdetect detect` would send them.
_BATCH_SIZE, _NUM_HEADS = 8, 1
_ROUNDS = 5


def freeze_fastest(
    graph: deepfake_pipeline.DeepfakePipeline, say: Callable[[str], None]
) -> deepfake_pipeline.DeepfakePipeline:
    """Freezes a graph in the precision that this machine computes faster.

    Both are called in turns with eight drawn portraits. The processor that serves the
    graph should be of the kind that measures it.

    Args:
        graph: A graph with variables.
        say: Prints a line: the measured ratio and the choice.

    Returns:
        See `freezing.freeze`; the manifest names the precision.
    """
    images = tf.constant(samples.draw_portraits(_BATCH_SIZE, _NUM_HEADS))
    frozen = {
        precision: freezing.freeze(graph, precision)
        for precision in freezing.PRECISIONS
    }
    took = timing.time_in_turns(
        {
            precision: functools.partial(_detect, one, images)
            for precision, one in frozen.items()
        },
        _ROUNDS,
        say=say,
    )
    lowered, plain = took["bfloat16"].median, took["float32"].median
    # bfloat16 costs digits, which need a gain.
    chosen = "bfloat16" if timing.is_clearly_faster(lowered, plain) else "float32"
    say(
        f"--precision={chosen}: bfloat16 takes {lowered / plain:.2f} times float32 "
        f"here, with {_BATCH_SIZE} images at once"
    )
    return frozen[chosen]


def _detect(graph: deepfake_pipeline.DeepfakePipeline, images: tf.Tensor) -> None:
    graph.detect(images)["status"].numpy()
