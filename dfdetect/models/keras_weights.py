"""Reads layers' arrays from a file that Keras wrote: .h5, .weights.h5 or .keras.

Only arrays are read: no layer, function or configuration of the file is built.

Source: `save_model_to_hdf5` in keras/src/legacy/saving/legacy_h5_format.py and
`_save_state` in keras/src/saving/saving_lib.py.
"""

import io
import os
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

_WEIGHTS = "model.weights.h5"  # Within a .keras file.
_DAMAGE = (OSError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error)

Layers = dict[str, list[np.ndarray]]


def read(path: str | os.PathLike[str]) -> Layers:
    """Reads the arrays of each layer that has some, by its name.

    Returns:
        Arrays in the order of the file, those of a layer as `get_weights` returns them.
        Layers of a nested model are listed by their own names.

    Raises:
        ValueError: The file is damaged, not of Keras, or does not name its layers.
    """
    import h5py  # A dependency of Keras that is slow to import.

    try:
        with h5py.File(_open(path), "r") as file:
            root = file.get("model_weights", file)
            if "layer_names" in root.attrs or "layer_names0" in root.attrs:
                layers = dict(_walk_legacy(root))
            else:
                layers = dict(_walk(file))
    except FileNotFoundError:
        raise
    except _DAMAGE as error:
        raise ValueError(
            f"{path} is damaged, or not a file of Keras weights: {error}."
        ) from error
    if not layers:
        raise ValueError(
            f"{path} must name the layers of its weights, got none; load it in Keras "
            "and save it again."
        )
    return layers


def _open(path: str | os.PathLike[str]) -> Any:
    with open(path, "rb") as stream:
        if not zipfile.is_zipfile(stream):
            return os.fspath(path)
        with zipfile.ZipFile(stream) as archive:
            return io.BytesIO(archive.read(_WEIGHTS))


def _walk_legacy(root: Any) -> Iterator[tuple[str, list[np.ndarray]]]:
    for layer in _attribute(root, "layer_names"):
        group = root[layer]
        names = _attribute(group, "weight_names")
        by_layer: Layers = {}
        for name in names:
            # A model within the model has the weights of many.
            by_layer.setdefault(name.rpartition("/")[0], []).append(group[name][()])
        if len(by_layer) == 1:
            by_layer = {layer: by_layer.popitem()[1]}
        yield from by_layer.items()


def _attribute(group: Any, name: str) -> list[str]:
    """A list of names, which Keras cuts into parts where it is long."""
    found = list(group.attrs.get(name, ()))
    part = 0
    while f"{name}{part}" in group.attrs:
        found += list(group.attrs[f"{name}{part}"])
        part += 1
    return [x.decode() if isinstance(x, bytes) else str(x) for x in found]


def _walk(group: Any) -> Iterator[tuple[str, list[np.ndarray]]]:
    import h5py

    for name, child in group.items():
        if not isinstance(child, h5py.Group):
            continue
        if name == "vars":
            layer = child.attrs.get("name")
            if layer and len(child):
                yield layer, [child[str(i)][()] for i in range(len(child))]
        elif name != "optimizer":
            yield from _walk(child)
