"""Arrays out of a file that `torch.save` wrote before PyTorch 1.6, without PyTorch.

Such a file is four pickles (a magic number, the version of the protocol, sizes of
types, the dictionary) and the keys of the storages, followed by their numbers. Only
what a dictionary of tensors needs is unpickled: a file cannot run anything.

Source: `_legacy_load` in torch/serialization.py.
"""

import collections
import os
import pickle
from typing import Any, BinaryIO

import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_TYPES = {
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
}


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads a dictionary of tensors.

    Raises:
        ValueError: The file is none of PyTorch's older format, is cut, or holds
            anything but tensors.
    """
    try:
        with open(path, "rb") as stream:
            return _read(stream)
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} must be a dictionary of tensors, as torch.save wrote it before "
            f"PyTorch 1.6, got {error}."
        ) from error


def _read(stream: BinaryIO) -> dict[str, np.ndarray]:
    header = [_Unpickler(stream).load() for _ in range(3)]
    if header[:2] != [_MAGIC, _PROTOCOL]:
        raise pickle.UnpicklingError(f"{header[:2]} for magic number and version")
    tensors = _Unpickler(stream)
    found = tensors.load()
    for key in _Unpickler(stream).load():
        storage = tensors.storages[key]
        (size,) = np.frombuffer(stream.read(8), "<i8")
        data = stream.read(int(size) * storage.type.itemsize)
        if size != storage.size or len(data) != size * storage.type.itemsize:
            raise EOFError("a cut file")
        storage.values = np.frombuffer(data, storage.type)
    if not isinstance(found, dict):
        raise TypeError(type(found).__name__)
    return {key: tensor.array() for key, tensor in found.items()}


class _Storage:
    """Numbers that come later in the file."""

    def __init__(self, dtype: np.dtype, size: int) -> None:
        self.type, self.size = dtype, size
        self.values = np.empty(0, dtype)


class _Tensor:
    """A view of a storage: what `torch._utils._rebuild_tensor_v2` is told."""

    def __init__(
        self, storage: _Storage, offset: int, shape: Any, strides: Any, *_: Any
    ) -> None:
        self.storage, self.offset = storage, offset
        self.shape, self.strides = tuple(shape), tuple(strides)

    def array(self) -> np.ndarray:
        values = self.storage.values[self.offset :]
        if int(np.prod(self.shape)) > len(values):
            raise EOFError("a tensor beyond its storage")
        strides = [stride * values.itemsize for stride in self.strides]
        view = np.lib.stride_tricks.as_strided(values, self.shape, strides)
        return np.array(view)


class _Unpickler(pickle.Unpickler):
    """Knows ordered dictionaries, tensors and storages, and refuses all else."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(stream)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Tensor
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        raise pickle.UnpicklingError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        _, dtype, key, _, size, *_ = pid
        return self.storages.setdefault(key, _Storage(dtype, size))
