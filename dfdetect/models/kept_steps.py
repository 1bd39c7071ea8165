"""The steps that a run keeps: TensorFlow tensor bundles in a folder, by number.

A bundle is `step_00000040.index` with `step_00000040.data-00000-of-00001`; one that was
evaluated also has `step_00000040.json`, the manifest of its weights. Bundles hold
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

# Errors that TensorFlow raises on a damaged bundle, by the place of the damage.
_DAMAGE = (tf.errors.OpError, IndexError, RuntimeError, ValueError)


def list_steps(folder: str) -> list[int]:
    """The numbers of the bundles in a folder, ascending; none where it is missing."""
    if not tf.io.gfile.isdir(folder):
        return []
    matches = map(_PATTERN.fullmatch, tf.io.gfile.listdir(folder))
    return sorted(int(match[1]) for match in matches if match)


def bundle_path(folder: str, step: int) -> str:
    """Returns the path of a bundle without its endings."""
    return os.path.join(folder, f"step_{step:08d}")


def find(model_dir: str, step: int) -> str:
    """Finds the bundle that a run keeps of a step; returns its path.

    Raises:
        FileNotFoundError: The step is not kept.
    """
    folder = os.path.join(model_dir, FOLDER)
    steps = list_steps(folder)
    if step not in steps:
        raise FileNotFoundError(
            f"step must be one that {folder} keeps ({join_steps(steps)}), got {step}."
        )
    return bundle_path(folder, step)


def join_steps(steps: list[int]) -> str:
    """Joins numbers by commas; "none" without any."""
    return ", ".join(map(str, steps)) or "none"


def read(path: str, names: list[str] | None = None) -> dict[str, np.ndarray]:
    """Reads a bundle.

    Args:
        path: Path without its endings.
        names: Names of arrays to read; all by default.

    Returns:
        Arrays by name.

    Raises:
        ValueError: A part of the bundle is missing or damaged.
    """
    try:
        reader = tf.train.load_checkpoint(path)
        names = list(reader.get_variable_to_shape_map()) if names is None else names
        return {name: reader.get_tensor(name) for name in names}
    except _DAMAGE as error:
        raise ValueError(f"{path} is damaged: {_first_line(error)}.") from error


def read_shapes(path: str) -> dict[str, tuple[int, ...]]:
    """Reads the shapes of a bundle's arrays by name.

    Raises:
        ValueError: The index is missing or damaged.
    """
    try:
        shapes = tf.train.load_checkpoint(path).get_variable_to_shape_map()
    except _DAMAGE as error:
        raise ValueError(f"{path} is damaged: {_first_line(error)}.") from error
    return {name: tuple(shape) for name, shape in shapes.items()}


def read_weights(path: str) -> dict[str, np.ndarray]:
    """Reads the weights in a training's bundle, as they are evaluated.

    Returns:
        Arrays by the keys of `models.weights.variables`: the moving averages where the
        run had them. A teacher's weights are among them.

    Raises:
        ValueError: See `read`, or the bundle is not of a training.
    """
    names = list(read_shapes(path))
    for prefix in ("average/", "model/"):
        kept = [name for name in names if name.startswith(prefix)]
        if kept:
            arrays = read(path, kept)
            return {name.removeprefix(prefix): arrays[name] for name in kept}
    raise ValueError(f"{path} must hold weights of a training, got {names[:3]}.")


def _first_line(error: Exception) -> str:
    text = error.message if isinstance(error, tf.errors.OpError) else str(error)
    return (text.splitlines() or [type(error).__name__])[0].rstrip(".")[:200]
