"""The steps that a run keeps: TensorFlow tensor bundles in a folder, by number.

A bundle is `step_00000040.index` with `step_00000040.data-00000-of-00001`; beside one
that was evaluated lies `step_00000040.json`, the manifest of its weights. Bundles hold
checksums, which are compared with every byte that is read.
"""

import os
import re

import numpy as np
import tensorflow as tf

FOLDER = "checkpoints"  # in a model directory

ENDINGS = (".index", ".data-00000-of-00001")
MANIFEST_ENDING = ".json"

_PATTERN = re.compile(r"step_(\d+)\.index")

# What TensorFlow raises on a damaged bundle, by where the damage is.
_DAMAGE = (tf.errors.OpError, IndexError, RuntimeError, ValueError)


def list_steps(folder: str) -> list[int]:
    """The numbers of the bundles in a folder, ascending; none where it is missing."""
    if not tf.io.gfile.isdir(folder):
        return []
    matches = map(_PATTERN.fullmatch, tf.io.gfile.listdir(folder))
    return sorted(int(match[1]) for match in matches if match)


def bundle_path(folder: str, step: int) -> str:
    """The path of a bundle without its endings."""
    return os.path.join(folder, f"step_{step:08d}")


def find(model_dir: str, step: int) -> str:
    """The path of the bundle that a run keeps of a step.

    Raises:
        FileNotFoundError: It is not kept.
    """
    folder = os.path.join(model_dir, FOLDER)
    steps = list_steps(folder)
    if step not in steps:
        raise FileNotFoundError(
            f"step must be one that {folder} keeps ({join(steps)}), got {step}."
        )
    return bundle_path(folder, step)


def join(steps: list[int]) -> str:
    """The numbers as text, "none" without any."""
    return ", ".join(map(str, steps)) or "none"


def read(path: str, names: list[str] | None = None) -> dict[str, np.ndarray]:
    """Reads a bundle.

    Args:
        path: Without its endings.
        names: What to read; all by default.

    Returns:
        Arrays by name.

    Raises:
        ValueError: A part of it is missing or damaged.
    """
    try:
        reader = tf.train.load_checkpoint(path)
        names = list(reader.get_variable_to_shape_map()) if names is None else names
        return {name: reader.get_tensor(name) for name in names}
    except _DAMAGE as error:
        raise ValueError(f"{path} is damaged: {_first_line(error)}.") from error


def read_shapes(path: str) -> dict[str, tuple[int, ...]]:
    """The shapes of a bundle's arrays by name.

    Raises:
        ValueError: Its index is missing or damaged.
    """
    try:
        shapes = tf.train.load_checkpoint(path).get_variable_to_shape_map()
    except _DAMAGE as error:
        raise ValueError(f"{path} is damaged: {_first_line(error)}.") from error
    return {name: tuple(shape) for name, shape in shapes.items()}


def read_weights(path: str) -> dict[str, np.ndarray]:
    """The weights in a bundle of a training, as they are evaluated.

    Returns:
        Arrays by the keys of `models.weights.variables`: the moving averages where the
        run had them. Those of a teacher are among them.

    Raises:
        ValueError: See `read`, or it is no bundle of a training.
    """
    names = list(read_shapes(path))
    for prefix in ("average/", "model/"):
        kept = [name for name in names if name.startswith(prefix)]
        if kept:
            arrays = read(path, kept)
            return {name.removeprefix(prefix): arrays[name] for name in kept}
    raise ValueError(f"{path} holds no weights of a training, but {names[:3]}.")


def _first_line(error: Exception) -> str:
    text = error.message if isinstance(error, tf.errors.OpError) else str(error)
    return (text.splitlines() or [type(error).__name__])[0].rstrip(".")[:200]
