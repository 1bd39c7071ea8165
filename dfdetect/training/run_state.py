"""The content of a run's checkpoints: all variables, and the place in the data."""

import numpy as np
import tensorflow as tf

from dfdetect.data.batches import Batches
from dfdetect.training import checkpoints, distribute, train_step

_POSITION = "position"  # Name of the number of examples seen.


def to_arrays(state: train_step.State, position: int) -> dict[str, np.ndarray]:
    """Returns the arrays of a checkpoint by name.

    Args:
        state: State of the run.
        position: See `batches.Batches.position`.
    """
    arrays = {name: variable.numpy() for name, variable in state.variables().items()}
    return {**arrays, _POSITION: np.array(position, np.int64)}


def restore(
    state: train_step.State,
    saved: checkpoints.Checkpoints,
    batches: Batches,
    strategy: tf.distribute.Strategy,
) -> tuple[int, Batches]:
    """Brings the chief's newest checkpoint, or its initial values, into all replicas.

    Returns:
        The step of the checkpoint, 0 without one, and the batches that continue where
        those of the checkpoint ended, even if they were of another size.

    Raises:
        ValueError: The checkpoint is of another run.
    """
    variables = state.variables()
    step = 0
    arrays: dict[str, np.ndarray] = {}
    if distribute.is_chief(strategy):
        shapes = {name: tuple(v.shape) for name, v in variables.items()}
        step, arrays = saved.restore(shapes, optional=(_POSITION,))
    # Checkpoints of older versions have no position.
    position = int(arrays.pop(_POSITION, batches.position(step)))
    step, position = (
        distribute.share_number(strategy, number) for number in (step, position)
    )
    arrays = arrays or {name: v.numpy() for name, v in variables.items()}
    shared = distribute.share(strategy, [arrays[name] for name in variables])
    with strategy.scope():
        for variable, value in zip(variables.values(), shared, strict=True):
            variable.assign(value)
    return step, batches.placed(step, position)
