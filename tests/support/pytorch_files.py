"""Files as `torch.save` writes them, since PyTorch 1.6 and before, byte by byte."""

import collections
import io
import pickle
import sys
import types
import zipfile

import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {"f4": "FloatStorage", "f2": "HalfStorage", "i8": "LongStorage"}


class _Tensor:
    def __init__(self, key, array):
        self.key, self.array = key, np.ascontiguousarray(array)

    def __reduce__(self):
        shape = self.array.shape
        strides = tuple(s // self.array.itemsize for s in self.array.strides)
        arguments = (
            _Storage(self),
            0,
            shape,
            strides,
            False,
            collections.OrderedDict(),
        )
        return sys.modules["torch._utils"]._rebuild_tensor_v2, arguments


class _Storage:
    def __init__(self, tensor):
        self.tensor = tensor


class _Pickler(pickle.Pickler):
    def persistent_id(self, found):
        if not isinstance(found, _Storage):
            return None
        array = found.tensor.array
        kind = getattr(sys.modules["torch"], STORAGES[array.dtype.str[1:]])
        return "storage", kind, found.tensor.key, "cpu", array.size


class _OlderPickler(_Pickler):
    def persistent_id(self, found):
        described = super().persistent_id(found)
        return described and (*described, None)


def fake_torch(monkeypatch):
    """Modules whose classes pickle under PyTorch's names."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch._utils = utils
    for name in STORAGES.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2(*_):
        raise NotImplementedError

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


def tensors(arrays):
    """The same dictionary with what pickles as tensors for arrays."""
    pairs = enumerate(arrays.items())
    return {name: _Tensor(str(i), array) for i, (name, array) in pairs}


def write(path, found):
    """Writes a ZIP archive of whatever holds `tensors`."""
    keep = []

    def collect(value):
        if isinstance(value, _Tensor):
            keep.append(value)
        elif isinstance(value, dict):
            for each in value.values():
                collect(each)
        elif hasattr(value, "__dict__"):
            collect(vars(value))

    collect(found)
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("archive/data.pkl", "w") as stream:
            _Pickler(stream, protocol=2).dump(found)
        archive.writestr("archive/byteorder", "little")
        for tensor in keep:
            archive.writestr(f"archive/data/{tensor.key}", tensor.array.tobytes())
        archive.writestr("archive/version", "3\n")
    return str(path)


def write_older(path, arrays, extra=None):
    """Writes arrays, and whatever else is given, as PyTorch did before 1.6."""
    stream = io.BytesIO()
    for header in (_MAGIC, 1001, {"little_endian": True}):
        pickle.dump(header, stream, protocol=2)
    named = tensors(arrays)
    found = collections.OrderedDict(**named, **(extra or {}))
    _OlderPickler(stream, protocol=2).dump(found)
    pickle.dump([tensor.key for tensor in named.values()], stream, protocol=2)
    for tensor in named.values():
        stream.write(np.array(tensor.array.size, "<i8").tobytes())
        stream.write(tensor.array.tobytes())
    path.write_bytes(stream.getvalue())
    return str(path)
