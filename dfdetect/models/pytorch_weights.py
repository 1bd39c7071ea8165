"""Reads arrays from a file that `torch.save` wrote, without PyTorch.

Before PyTorch 1.6 such a file is four pickles (a magic number, the version of the
protocol, sizes of types, what was saved) and the keys of the storages, followed by
their numbers. Since then it is a ZIP archive with one pickle and a file for each
storage. What was saved must be a dictionary of tensors, a checkpoint that holds one
(`state_dict`), or a whole module, whose parameters are its dictionary.

No object of a file is ever built: each class is replaced by one that only keeps the
pickled state, so that a file cannot run code.

Source: `_load` and `_legacy_load` in torch/serialization.py.
"""

import collections
import os
import pickle
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_TYPES: dict[str, np.dtype] = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype("<u2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("<i1"),
    "ByteStorage": np.dtype("<u1"),
    "BoolStorage": np.dtype("?"),
}
# Where training checkpoints keep the weights beside the step and the optimizer.
_NESTED = ("state_dict", "model_state_dict", "model", "net", "weights")
_DAMAGE = (
    pickle.UnpicklingError,
    EOFError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
)


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads a dictionary of tensors.

    Returns:
        Arrays by name, without the prefix `module.` of `DataParallel`.

    Raises:
        ValueError: The file is not of PyTorch, is truncated, or holds anything but
            tensors.
    """
    try:
        with open(path, "rb") as stream:
            is_archive = zipfile.is_zipfile(stream)
            stream.seek(0)
            found = _read_archive(stream) if is_archive else _read_legacy(stream)
        tensors = _find_tensors(found)
        arrays = {name: tensor.array() for name, tensor in tensors.items()}
    except _DAMAGE as error:
        raise ValueError(
            f"{path} must be a dictionary of tensors, as torch.save writes it, "
            f"got {error}."
        ) from error
    if all(name.startswith("module.") for name in arrays):
        arrays = {name.removeprefix("module."): x for name, x in arrays.items()}
    return arrays


def _read_legacy(stream: BinaryIO) -> Any:
    header = [_Unpickler(stream).load() for _ in range(3)]
    if header[:2] != [_MAGIC, _PROTOCOL]:
        raise pickle.UnpicklingError(f"{header[:2]} for magic number and version")
    tensors = _Unpickler(stream)
    found = tensors.load()
    for key in _Unpickler(stream).load():
        storage = tensors.storages[key]
        (size,) = np.frombuffer(stream.read(8), "<i8")
        storage.fill(stream.read(int(size) * storage.type.itemsize))
        if size != storage.size:
            raise EOFError("a cut file")
    return found


def _read_archive(stream: BinaryIO) -> Any:
    with zipfile.ZipFile(stream) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.split("/")[1:] == ["data.pkl"]]
        if not pickles:
            raise pickle.UnpicklingError("a ZIP file without data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}constants.pkl" in names:
            raise pickle.UnpicklingError(
                "a TorchScript module; save its state_dict() instead"
            )
        order = f"{folder}byteorder"
        if order in names and archive.read(order) != b"little":
            raise pickle.UnpicklingError(f"byte order {archive.read(order)!r}")
        with archive.open(pickles[0]) as pickled:
            tensors = _Unpickler(pickled)
            found = tensors.load()
        for key, storage in tensors.storages.items():
            storage.fill(archive.read(f"{folder}data/{key}"))
    return found


def _find_tensors(found: Any) -> dict[str, "_Tensor"]:
    """Finds the tensors of a dictionary, of one within it, or of a module."""
    if isinstance(found, _Placeholder) and "_modules" in found.state:
        return dict(_walk(found.state, ""))
    if not isinstance(found, dict):
        raise TypeError(_qualified_name(found))
    for key in _NESTED:
        if isinstance(found.get(key), dict | _Placeholder):
            return _find_tensors(found[key])
    others = [key for key, value in found.items() if not isinstance(value, _Tensor)]
    if others:
        raise TypeError(f"{_qualified_name(found[others[0]])} for {others[0]!r}")
    return {str(key): tensor for key, tensor in found.items()}


def _walk(state: dict[str, Any], prefix: str) -> Iterator[tuple[str, "_Tensor"]]:
    """Yields a module's parameters and buffers by the names of its `state_dict`."""
    for kind in ("_parameters", "_buffers"):
        for name, value in state.get(kind, {}).items():
            if isinstance(value, _Tensor):
                yield f"{prefix}{name}", value
    for name, module in state["_modules"].items():
        if isinstance(module, _Placeholder) and "_modules" in module.state:
            yield from _walk(module.state, f"{prefix}{name}.")


def _qualified_name(found: Any) -> str:
    kind = found if isinstance(found, type) else type(found)
    return f"{kind.__module__}.{kind.__qualname__}"


class _Storage:
    """Numbers that are read later from the file."""

    def __init__(self, kind: str, size: int) -> None:
        self.kind, self.size = kind, size
        self.type: np.dtype = _TYPES[kind]
        self.values: np.ndarray = np.empty(0, self.type)

    def fill(self, data: bytes) -> None:
        if len(data) != self.size * self.type.itemsize:
            raise EOFError("a cut file")
        self.values = np.frombuffer(data, self.type)
        if self.kind == "BFloat16Storage":
            # The upper half of a float32.
            self.values = (self.values.astype("<u4") << 16).view("<f4")


class _Tensor:
    """A view of a storage, from the arguments of `torch._utils._rebuild_tensor_v2`."""

    def __init__(
        self, storage: _Storage, offset: int, shape: Any, strides: Any, *_: Any
    ) -> None:
        if not isinstance(storage, _Storage):
            raise TypeError(f"{_qualified_name(storage)} for a storage")
        self.storage, self.offset = storage, offset
        self.shape, self.strides = tuple(shape), tuple(strides)

    def __setstate__(self, _: Any) -> None:
        """Ignores further state, such as hooks."""

    def array(self) -> np.ndarray:
        values = self.storage.values
        pairs = list(zip(self.shape, self.strides, strict=True))
        # The last element that it reaches; strides of a file may be wrong.
        last = self.offset + sum((size - 1) * stride for size, stride in pairs)
        is_empty = not all(self.shape)
        if min((self.offset, *self.shape, *self.strides)) < 0 or (
            not is_empty and last >= len(values)
        ):
            raise EOFError("a tensor beyond its storage")
        if is_empty:
            return np.empty(self.shape, values.dtype)
        strides = [stride * values.itemsize for stride in self.strides]
        view = np.lib.stride_tricks.as_strided(
            values[self.offset :], self.shape, strides
        )
        return np.array(view)


class _Placeholder:
    """A placeholder for an object of any class, which keeps its state."""

    def __new__(cls, *_: Any, **__: Any) -> "_Placeholder":
        made = super().__new__(cls)
        made.state = {}
        return made

    def __init__(self, *_: Any, **__: Any) -> None:
        self.state: dict[str, Any]

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.state = state

    def append(self, _: Any) -> None:
        """Ignores the items of subclasses of lists."""

    def __setitem__(self, _: Any, __: Any) -> None:
        """Ignores the items of subclasses of dictionaries."""


def _rebuild_parameter(tensor: Any, *_: Any) -> Any:
    """Replaces `torch._utils._rebuild_parameter`."""
    return tensor


_KNOWN: dict[tuple[str, str], Callable] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _Tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
}


class _Unpickler(pickle.Unpickler):
    """Builds dictionaries, tensors and storages, and placeholders for all else."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        if module == "torch" and name in _TYPES:
            return name
        return type(name, (_Placeholder,), {"__module__": module})

    def persistent_load(self, pid: Any) -> Any:
        if pid[0] == "module":  # A class, with its source code.
            return pid[1]
        _, kind, key, _, size, *_ = pid
        if kind not in _TYPES:
            raise pickle.UnpicklingError(f"storages of {_qualified_name(kind)}")
        return self.storages.setdefault(key, _Storage(kind, size))
