"""Tensor protos from and to arrays."""

import math
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2

from dfdetect.serving import errors, options

_FIELDS = {
    tf.float32: "float_val",
    tf.float64: "double_val",
    **dict.fromkeys((tf.int32, tf.int16, tf.int8, tf.uint16, tf.uint8), "int_val"),
    tf.int64: "int64_val",
    tf.uint32: "uint32_val",
    tf.uint64: "uint64_val",
    tf.bool: "bool_val",
    tf.string: "string_val",
    tf.float16: "half_val",
    tf.bfloat16: "half_val",
    tf.complex64: "scomplex_val",
    tf.complex128: "dcomplex_val",
}

# Values that Python converts in a few milliseconds, in which no other thread runs.
_SLICE = 2**17

_BITS = ("half_val",)
_PAIRS = ("scomplex_val", "dcomplex_val")


def to_array(proto: tensor_pb2.TensorProto, max_bytes: int, name: str) -> np.ndarray:
    """Converts a proto to an array.

    Args:
        proto: Tensor of a client.
        max_bytes: Bound of its size: a proto of a few bytes may stand for a tensor of
            any, one value repeated.
        name: Name of the input, for the message.

    Raises:
        errors.ServingError: The proto is not valid, or the array too large.
    """
    dtype = _dtype(proto.dtype, name)
    shape = proto.tensor_shape
    sizes = [dim.size for dim in shape.dim]
    if shape.unknown_rank or any(size < 0 for size in sizes):
        raise errors.invalid(f"Tensor {name} must have a known shape, got {sizes}.")
    if len(sizes) > options.MAX_DIMENSIONS:
        raise errors.invalid(
            f"Tensor {name} must have at most {options.MAX_DIMENSIONS} dimensions, "
            f"got {len(sizes)}."
        )
    count = math.prod(sizes)
    size = 8 if dtype == tf.string else dtype.size
    # Also of a tensor without elements: what multiplies its sizes must not overflow.
    bytes_needed = size * math.prod(max(size, 1) for size in sizes)
    if bytes_needed > max_bytes:
        raise errors.invalid(
            f"Tensor {name} must have at most {max_bytes} bytes, "
            f"its shape {sizes} has {bytes_needed}."
        )
    if proto.tensor_content and dtype == tf.string:
        return _from_string_content(proto.tensor_content, count, name).reshape(sizes)
    if proto.tensor_content:
        if len(proto.tensor_content) != count * size:
            raise errors.invalid(
                f"Tensor {name} of shape {sizes} must have {count * size} bytes, "
                f"got {len(proto.tensor_content)}."
            )
        return np.frombuffer(proto.tensor_content, dtype.as_numpy_dtype).reshape(sizes)
    return _from_values(proto, dtype, count, name).reshape(sizes)


def to_proto(array: np.ndarray) -> tensor_pb2.TensorProto:
    """Converts an array to a proto with one value for each element."""
    dtype = tf.as_dtype(tf.string if array.dtype.kind in "OSU" else array.dtype)
    proto = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum)
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    field = _FIELDS[dtype]
    flat = array.ravel()
    if field in _BITS:
        flat = flat.view(np.uint16)
    elif field in _PAIRS:
        flat = flat.view(np.float32 if dtype == tf.complex64 else np.float64)
    for start in range(0, len(flat), _SLICE):
        getattr(proto, field).extend(flat[start : start + _SLICE].tolist())
    return proto


def dtype_name(dtype: int) -> str:
    """Returns TensorFlow Serving's name of a type, for messages."""
    try:
        return tf.as_dtype(dtype).name
    except TypeError:
        return types_pb2.DataType.Name(dtype)


def _dtype(number: int, name: str) -> tf.DType:
    try:
        dtype = tf.as_dtype(number)
    except TypeError:
        dtype = None
    if dtype not in _FIELDS:
        raise errors.invalid(
            f"Tensor {name} is of a type that cannot be fed: {number}."
        )
    return dtype


def _from_values(
    proto: tensor_pb2.TensorProto, dtype: tf.DType, count: int, name: str
) -> np.ndarray:
    """Reads the values; the last one stands for all that are missing."""
    field = _FIELDS[dtype]
    values = getattr(proto, field)
    if field in _BITS:
        bits = np.array([value & 0xFFFF for value in values], np.uint16)
        given = bits.view(dtype.as_numpy_dtype)
    elif field in _PAIRS:
        parts = _converted(values, np.float64)
        if len(parts) % 2:
            raise errors.invalid(f"Tensor {name} has half a complex number.")
        given = (parts[::2] + 1j * parts[1::2]).astype(dtype.as_numpy_dtype)
    elif dtype == tf.string:
        given = np.empty(len(values), object)
        given[:] = values
    else:
        # As in C++, where a narrower type takes the lower bits.
        wide = np.int64 if field == "int_val" else dtype.as_numpy_dtype
        given = _converted(values, wide).astype(dtype.as_numpy_dtype)
    if len(given) > count:
        raise errors.invalid(
            f"Tensor {name} must have {count} values, got {len(given)}."
        )
    if len(given) == count:
        return given
    if not len(given):
        # A proto without values is full of zeros.
        return np.full(count, b"" if dtype == tf.string else 0, given.dtype)
    return np.concatenate([given, np.repeat(given[-1:], count - len(given))])


def _converted(values: Any, dtype: Any) -> np.ndarray:
    converted = np.empty(len(values), dtype)
    for start in range(0, len(values), _SLICE):
        converted[start : start + _SLICE] = values[start : start + _SLICE]
    return converted


def _from_string_content(content: bytes, count: int, name: str) -> np.ndarray:
    """Reads strings: their lengths as varints, then all of their bytes."""
    strings, pos, lengths = np.empty(count, object), 0, []
    for _ in range(count):
        length = shift = 0
        while True:
            if pos == len(content) or shift > 28:
                raise errors.invalid(f"Tensor {name} has no valid tensor_content.")
            byte = content[pos]
            pos += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        lengths.append(length)
    if pos + sum(lengths) != len(content):
        raise errors.invalid(f"Tensor {name} has no valid tensor_content.")
    for index, length in enumerate(lengths):
        strings[index] = content[pos : pos + length]
        pos += length
    return strings
