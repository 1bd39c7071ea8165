"""Weights on disk: one .npz file, keyed by the paths of a model's variables.

It is read without TensorFlow, into the same model on any Keras backend, or in part into
a model with another top.
"""

import dataclasses
import hashlib
import os
import pathlib
import zipfile
import zlib
from collections.abc import Callable

import keras
import numpy as np

from dfdetect import files

FILE_NAME = "weights.npz"  # in a model directory

# Errors that NumPy raises on a truncated or changed file.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError)


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """Which weights were loaded from a file, by key.

    Attributes:
        loaded: Weights in the file and in the model.
        missing: Weights in the model only, which keep their values.
        unexpected: Weights in the file only.
        mismatched: Weights of different shapes; the model's keep their values.
    """

    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether every weight of the model was loaded."""
        return bool(self.loaded) and not self.missing and not self.mismatched

    def __str__(self) -> str:
        lines = []
        for field in dataclasses.fields(self):
            keys = getattr(self, field.name)
            shown = ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")
            if field.name == "loaded" or not keys:
                shown = ""
            lines.append(f"{len(keys)} {field.name}" + (f" ({shown})" if shown else ""))
        return "weights: " + "; ".join(lines)


def variables(model: keras.Model) -> dict[str, keras.Variable]:
    """Returns a model's weights by keys that are the same in every process.

    A key is the variable's path without the name of the model itself.

    Raises:
        ValueError: The model is not built, or two weights have the same path.
    """
    if not model.built:
        raise ValueError(f"{model.name} has no weights yet: build or call it first.")
    found: dict[str, keras.Variable] = {}
    for variable in model.weights:
        key = variable.path.removeprefix(f"{model.name}/")
        if key in found:
            raise ValueError(
                f"Two weights of {model.name} have the path {key}: name its layers."
            )
        found[key] = variable
    return found


def find_frozen_random(model: keras.Model, report: LoadReport) -> list[str]:
    """Lists the weights that stay as they were initialized: frozen, and in no file.

    Moving statistics, which no gradient changes, are frozen where their layer is.

    Args:
        model: The model to train.
        report: What was loaded into it.
    """
    initialized = {*report.missing, *report.mismatched}
    learned = {
        id(variable)
        for layer in flatten_layers(model)
        if layer.trainable
        for variable in layer.weights
        if "/moving_" in variable.path
    }
    return [
        key
        for key, variable in variables(model).items()
        if key in initialized and not variable.trainable and id(variable) not in learned
    ]


def flatten_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Lists a model's layers in order, with those of nested models in their place."""
    found = []
    for layer in model.layers:
        found += flatten_layers(layer) if isinstance(layer, keras.Model) else [layer]
    return found


def fingerprint(model: keras.Model) -> str:
    """Computes a SHA-256 of a model's weights, in hexadecimal.

    It covers names, shapes and float32 values, wherever they were read from.

    Raises:
        ValueError: See `variables`.
    """
    digest = hashlib.sha256()
    for key, array in sorted(_values(model).items()):
        digest.update(f"{key} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array, "<f4").tobytes())
    return digest.hexdigest()


def save(
    model: keras.Model, path: str | os.PathLike[str], compact: bool = False
) -> None:
    """Writes the weights aside, then renames the file to `path`.

    Args:
        model: Any built Keras model.
        path: The .npz file, or a folder that gets a `weights.npz`.
        compact: Keep kernels (two axes or more) in float16, and the rest, like the
            moving statistics, in float32.

    Raises:
        ValueError: A kernel has a value beyond float16.
        OSError: The file cannot be written; its path.
    """
    arrays = {}
    for key, array in _values(model).items():
        if compact and array.ndim >= 2:
            if not np.all(np.abs(array) <= np.finfo(np.float16).max):
                raise ValueError(f"{key} does not fit into float16.")
            array = array.astype(np.float16)
        arrays[key] = array
    with files.open_atomic(os.fspath(_file(path))) as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def load(model: keras.Model, path: str | os.PathLike[str]) -> LoadReport:
    """Loads every weight of a model from a file that `save` wrote.

    Args:
        model: The same built model.
        path: The .npz file, a packed model (see `model_directory.pack`), a folder with
            a `weights.npz`, or a step that a training keeps, such as
            `RUN/checkpoints/step_00000040`. Weights of a step that the model lacks are
            a teacher's and left out.

    Returns:
        A report with all keys as loaded.

    Raises:
        ValueError: The file is damaged, or a weight is missing, unexpected or of
            another shape. The model then keeps its weights.
    """
    arrays = _read(path)
    if _is_step(path):
        known = variables(model)
        arrays = {key: array for key, array in arrays.items() if key in known}
    report = _compare(model, arrays)
    if report.missing or report.unexpected or report.mismatched:
        raise ValueError(f"{path} does not fit {model.name}: {report}.")
    _assign(model, arrays, report)
    return report


def load_snapshot(model: keras.Model, snapshot: str) -> LoadReport:
    """Loads the weights to start training from.

    Args:
        model: A built model. For "imagenet" it must have a method `load_imagenet`.
        snapshot: "none" keeps the random weights. "imagenet" fetches those of
            `keras.applications`, or without a network says so and keeps the random
            ones. All else is a path as for `load`, or of a file that others wrote, see
            `foreign_weights`; all weights with the right name and shape are loaded.

    Returns:
        A report of what was loaded.

    Raises:
        ValueError: Nothing in the file fits, it is damaged or of another kind or
            network, or the model has no ImageNet weights.
    """
    keys = tuple(variables(model))
    if snapshot == "none":
        return LoadReport(missing=keys)
    if snapshot == "imagenet":
        return _load_imagenet(model)
    arrays = _read_any(model, snapshot)
    if arrays is None:
        return _load_with(model, lambda: model.load_pytorch(snapshot))
    report = _compare(model, arrays)
    if not report.loaded:
        raise ValueError(f"Nothing in {snapshot} fits {model.name}: {report}.")
    _assign(model, arrays, report)
    return report


def _read_any(model: keras.Model, path: str) -> dict[str, np.ndarray] | None:
    """Reads the arrays of a file of any kind; None for the model's own reader."""
    if not _is_step(path) and not os.path.isdir(path):
        from dfdetect.models import foreign_weights  # Late: it imports the models.

        kind = foreign_weights.identify(path)
        if kind != "ours":
            keys = {id(variable): key for key, variable in variables(model).items()}
            return foreign_weights.read(model, path, kind, keys)
    return _read(path)


def _load_imagenet(model: keras.Model) -> LoadReport:
    if not hasattr(model, "load_imagenet"):
        raise ValueError(f"There are no ImageNet weights for {model.name}.")

    def load() -> None:
        try:
            model.load_imagenet()
        except Exception as error:  # keras.utils.get_file raises nothing narrower
            if "URL fetch failure" not in str(error):
                raise
            print(
                f"The ImageNet weights cannot be fetched ({error}): {model.name} "
                "starts from random weights."
            )

    return _load_with(model, load)


def _load_with(model: keras.Model, load: Callable[[], None]) -> LoadReport:
    """Reports the weights that a loading function changes."""
    before = _values(model)
    load()
    after = _values(model)
    loaded = [key for key in before if not np.array_equal(before[key], after[key])]
    return LoadReport(tuple(loaded), tuple(key for key in before if key not in loaded))


def _values(model: keras.Model) -> dict[str, np.ndarray]:
    return {
        key: np.array(keras.ops.convert_to_numpy(variable.value))
        for key, variable in variables(model).items()
    }


def _file(path: str | os.PathLike[str]) -> pathlib.Path:
    path = pathlib.Path(path)
    return path / FILE_NAME if path.is_dir() else path


def _is_step(path: str | os.PathLike[str]) -> bool:
    return os.path.exists(f"{os.fspath(path)}.index")


def _read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    if _is_step(path):
        # Imported late: all else is read without TensorFlow.
        from dfdetect.models import kept_steps

        return kept_steps.read_weights(os.fspath(path))
    file = _file(path)
    try:
        # Every array has a checksum in the file, which is compared.
        with np.load(file, allow_pickle=False) as arrays:
            # The manifest of a packed model comes as bytes.
            return {
                key: value
                for key, value in arrays.items()
                if isinstance(value, np.ndarray)
            }
    except _DAMAGE as error:
        reason = str(error).rstrip(".")
        message = f"{file} is damaged, or no file of weights: {reason}."
        kept = sorted((file.parent / "checkpoints").glob("step_*.index"))
        if kept:
            steps = ", ".join(
                str(int(path.stem.removeprefix("step_"))) for path in kept
            )
            message += f" Of the same run, these steps are kept: {steps}."
        raise ValueError(message) from error


def _compare(model: keras.Model, arrays: dict[str, np.ndarray]) -> LoadReport:
    wanted = {key: tuple(value.shape) for key, value in variables(model).items()}
    common = [key for key in wanted if key in arrays]
    return LoadReport(
        loaded=tuple(key for key in common if arrays[key].shape == wanted[key]),
        missing=tuple(key for key in wanted if key not in arrays),
        unexpected=tuple(key for key in arrays if key not in wanted),
        mismatched=tuple(key for key in common if arrays[key].shape != wanted[key]),
    )


def _assign(
    model: keras.Model, arrays: dict[str, np.ndarray], report: LoadReport
) -> None:
    for key, variable in variables(model).items():
        if key in report.loaded:
            variable.assign(arrays[key].astype(np.float32))
