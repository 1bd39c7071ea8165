"""JSON documents, and single values of them as those of tensors."""

import base64
import binascii
import json
from collections.abc import Iterable
from typing import Any

import ml_dtypes
import numpy as np

from dfdetect.serving import errors, json_reader

_MOST_SHOWN = 200  # Characters of a value in a message.
# Python reads so many in some 10 ms, in which no other thread runs.
_MANY_PARTS = 100_000
_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_FLOATS = ("float16", "bfloat16", "float32", "float64")
_NAMES = {dict: "Object", list: "Array", str: "String", int: "Number", float: "Number"}
_WORDS = {"float32": "float", "float64": "double"}


def count_parts(body: bytes) -> int:
    """About how many values and escapes JSON has: what reading it costs."""
    return sum(body.count(mark) for mark in (b",", b"[", b"{", b"\\"))


def has_many_parts(body: bytes) -> bool:
    """Whether reading the JSON would block other threads for long."""
    return count_parts(body) > _MANY_PARTS


def parse(body: bytes, patiently: bool = False) -> dict[str, Any]:
    """Parses the object of a request; what follows it is ignored.

    Args:
        body: JSON, UTF-8.
        patiently: Whether other threads are to run meanwhile, which takes longer.

    Raises:
        errors.ServingError: The body is not a JSON object.
    """
    if not body:
        raise errors.invalid("JSON Parse error: The document is empty")
    try:
        text = body.decode("utf-8-sig")
        document = json_reader.read_json(text, patiently, has_many_parts(body))
    except json.JSONDecodeError as error:
        raise errors.invalid(
            f"JSON Parse error: {_reason(error.msg)} at offset: {error.pos}"
        ) from error
    except UnicodeDecodeError as error:
        raise errors.invalid(
            f"JSON Parse error: Invalid encoding in string. at offset: {error.start}"
        ) from error
    if type(document) is not dict:
        raise errors.invalid(f"JSON Value: {shown(document)} Is not object")
    return document


def _reason(message: str) -> str:
    # Python's own say what is wanted, RapidJSON's end with a full stop.
    return message if message.endswith(".") else "Invalid value."


def dump(document: Any) -> bytes:
    """Writes JSON; bytes of strings that are not UTF-8 stay as they are."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogateescape")


def floats(value: np.ndarray) -> np.ndarray:
    """Converts numbers to the float64 that JSON writes with the fewest digits."""
    if value.dtype == np.float64:
        return value
    if value.dtype != np.float32:
        return value.astype(np.float64)
    return value.astype("U").astype(np.float64)


def flat(values: list[Any], dtype: str) -> np.ndarray:
    """An array of values of the type that a signature wants.

    Raises:
        errors.ServingError: One is of another, or cannot be held.
    """
    if dtype == "string":
        strings = np.empty(len(values), object)
        strings[:] = [to_bytes(value) for value in values]
        return strings
    if dtype == "bool":
        _check_types(values, {bool}, dtype)
        return np.array(values, bool)
    if dtype in _INTEGERS:
        _check_types(values, {int}, dtype)
        try:
            return np.array(values, dtype)
        except OverflowError as error:
            limits = np.iinfo(dtype)
            large = next(v for v in values if not limits.min <= v <= limits.max)
            raise _type_error(large, dtype) from error
    if dtype in _FLOATS:
        _check_types(values, {int, float}, dtype)
        return _float_array(values, dtype)
    raise errors.ServingError(
        "UNIMPLEMENTED",
        f"Conversion of JSON Value: {shown(values[:1])} to type: {dtype}",
    )


def _float_array(values: list[Any], dtype: str) -> np.ndarray:
    """Rounded, and beyond the range infinite, as a cast of C++ gives it."""
    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    try:
        numbers = np.array(values, np.float64)
    except OverflowError as error:
        raise errors.invalid(
            "JSON Parse error: Number too big to be stored in double."
        ) from error
    with np.errstate(over="ignore"):
        return numbers.astype(kind)


def _check_types(values: Iterable[Any], wanted: set[type], dtype: str) -> None:
    # `bool` is not let through as an `int`.
    if not set(map(type, values)) <= wanted:
        wrong = next(value for value in values if type(value) not in wanted)
        raise _type_error(wrong, dtype)


def _type_error(value: Any, dtype: str) -> errors.ServingError:
    return errors.invalid(
        f"JSON Value: {shown(value)} Type: {type_name(value)} is not of expected "
        f"type: {_WORDS.get(dtype, dtype)}"
    )


def type_name(value: Any) -> str:
    """Returns the name of a value's type for messages."""
    if value is None:
        return "Null"
    if type(value) is bool:
        return str(value)
    return _NAMES[type(value)]


def to_bytes(value: Any) -> bytes:
    """Decodes the bytes of a string or of a base64 object.

    Raises:
        errors.ServingError: It is neither.
    """
    if type(value) is str:
        try:
            return value.encode()
        except UnicodeEncodeError as error:
            raise errors.invalid(
                "JSON Parse error: The surrogate pair in string is invalid."
            ) from error
    if is_base64(value):
        try:
            return _unescape(value["b64"])
        except (binascii.Error, ValueError) as error:
            raise errors.invalid("Unable to base64 decode") from error
    if type(value) is dict:
        raise errors.invalid(
            f"JSON Value: {shown(value)} not formatted correctly for base64 data"
        )
    raise _type_error(value, "string")


def _unescape(encoded: str) -> bytes:
    """Decodes base64 as `absl::Base64Unescape` does.

    Blanks and line breaks may stand anywhere; the padding is whole or left out, and a
    dot will do for each of its signs.

    Raises:
        ValueError: It is no base64.
    """
    data = encoded.encode("ascii").translate(None, b" \t\n\v\f\r")
    digits = data.rstrip(b"=.")
    lacking = -len(digits) % 4
    if len(data) - len(digits) not in (0, lacking):
        raise ValueError("the padding is not whole.")
    return base64.b64decode(digits + b"=" * lacking, validate=True)


def is_named(value: Any) -> bool:
    """Whether an object has named values, and is not base64."""
    return type(value) is dict and not is_base64(value)


def is_base64(value: Any) -> bool:
    """Whether an object stands for bytes."""
    return type(value) is dict and len(value) == 1 and type(value.get("b64")) is str


def shown(value: Any) -> str:
    """Shortens a value, which may be as long as the request, for a message."""
    parts, length = [], 0
    try:
        for part in json.JSONEncoder().iterencode(value):
            parts.append(part[:_MOST_SHOWN])
            length += len(part)
            if length > _MOST_SHOWN:
                break
    except RecursionError:
        pass
    text = "".join(parts)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
