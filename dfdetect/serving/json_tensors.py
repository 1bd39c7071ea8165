"""Tensors in the JSON of the REST protocol: row and column format, base64, NaN."""

import base64
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dfdetect.serving import errors, json_values, options

# Names of types by alias, of the inputs of a signature.
Types = Mapping[str, str]

_DEFAULT = "serving_default"


def signature_name(document: dict[str, Any]) -> str:
    """Returns the signature that a request names; "" is the default one."""
    name = document.get("signature_name", "")
    if type(name) is not str:
        raise errors.invalid(
            f"JSON Value: {json_values.shown(document)} not formatted correctly. "
            "'signature_name' key must be a string value."
        )
    return name


def parse_request(
    body: bytes, signatures: Mapping[str, Types], patiently: bool = False
) -> tuple[str, dict[str, np.ndarray], bool]:
    """Parses the inputs of a predict request.

    Args:
        body: JSON.
        signatures: Signatures of the model by name.
        patiently: See `json_values.parse`.

    Returns:
        The name of the signature, arrays by alias, and whether the request is in row
        format.

    Raises:
        errors.ServingError: The request is no JSON or does not fit the signature.
    """
    document = json_values.parse(body, patiently)
    name = signature_name(document) or _DEFAULT
    if name not in signatures:
        raise errors.invalid(
            f'Serving signature name: "{name}" not found in signature def'
        )
    return name, *to_arrays(document, signatures[name])


def to_arrays(
    document: dict[str, Any], types: Types
) -> tuple[dict[str, np.ndarray], bool]:
    """Converts the inputs of a predict request; see `parse_request`.

    Args:
        document: Result of `json_values.parse`.
        types: Types of the inputs of the signature.

    Returns:
        Arrays by alias, and whether the request is in row format.

    Raises:
        errors.ServingError: The request does not fit the signature.
    """
    if "instances" in document and "inputs" in document:
        raise errors.invalid(
            f"JSON Value: {json_values.shown(document)} Not formatted correctly "
            "expecting only one of 'inputs' or 'instances' keys to exist "
        )
    if not types:
        raise errors.invalid("Failed to get input map for signature")
    if "instances" in document:
        return _rows(document["instances"], types, document), True
    if "inputs" in document:
        return _columns(document["inputs"], types), False
    raise errors.invalid("Missing 'inputs' or 'instances' key")


def to_json(outputs: Mapping[str, np.ndarray], rows: bool) -> bytes:
    """Writes the answer to a predict request.

    Args:
        outputs: By alias.
        rows: Whether in row format.

    Raises:
        errors.ServingError: The outputs have no common size for rows, or a type that
            JSON does not know.
    """
    if not outputs:
        raise errors.invalid("Cannot convert empty tensor map to JSON")
    sizes = set()
    for name, value in outputs.items():
        if rows and value.ndim == 0:
            raise errors.invalid(f"Tensor name: {name} has no shape information ")
        sizes.add(len(value) if value.ndim else 0)
        if rows and len(sizes) > 1:
            raise errors.invalid(
                f"Tensor name: {name} has inconsistent batch size: {len(value)} "
                f"expecting: {min(sizes - {len(value)})}"
            )
    values = {name: _listed(name, value) for name, value in sorted(outputs.items())}
    if not rows:
        (only, *others) = values.values()
        return json_values.dump({"outputs": values if others else only})
    if len(values) == 1:
        return json_values.dump({"predictions": next(iter(values.values()))})
    by_row = zip(*values.values(), strict=True)
    return json_values.dump(
        {"predictions": [dict(zip(values, row, strict=True)) for row in by_row]}
    )


def _rows(
    instances: Any, types: Types, document: dict[str, Any]
) -> dict[str, np.ndarray]:
    if type(instances) is not list:
        raise errors.invalid(
            f"JSON Value: {json_values.shown(document)} Expecting 'instances' to be an "
            "list/array"
        )
    if not instances:
        raise errors.invalid(
            f"JSON Value: {json_values.shown(document)} No values in 'instances' array"
        )
    named = json_values.is_named(instances[0])
    if not named and len(types) > 1:
        raise errors.invalid(
            "instances is a plain list, but expecting list of objects as multiple "
            "input tensors required as per tensorinfo_map"
        )
    if named or dict in set(map(type, instances)):
        _check_names(instances, types, named)
    if not named:
        ((name, dtype),) = types.items()
        return {name: _row_array(instances, dtype, "")}
    return {
        name: _row_array(
            [instance[name] for instance in instances], dtype, f" key: {name}"
        )
        for name, dtype in types.items()
    }


def _check_names(instances: list[Any], types: Types, named: bool) -> None:
    """Refuses instances that are not all named, with all names, or all are not."""
    for position, instance in enumerate(instances):
        if json_values.is_named(instance) == named:
            if named and set(instance) != set(types):
                raise errors.invalid(
                    f"Failed to process element: {position} of 'instances' list. JSON "
                    f"object: {json_values.shown(instance)} keys must be equal to: "
                    f"{','.join(sorted(types))}"
                )
        elif named:
            raise errors.invalid(
                f"Expecting object but got list at item {position} of input list"
            )
        else:
            raise errors.invalid(
                f"Expecting value/list but got object at item {position} of input list"
            )


def _columns(inputs: Any, types: Types) -> dict[str, np.ndarray]:
    if not json_values.is_named(inputs):
        if len(types) > 1:
            raise errors.invalid(
                "inputs is a plain value/list, but expecting an object as multiple "
                "input tensors required as per tensorinfo_map"
            )
        ((name, dtype),) = types.items()
        return {name: _array(inputs, dtype)}
    for name in types:
        if name not in inputs:
            raise errors.invalid(f"Missing named input: {name} in 'inputs' object.")
    return {name: _array(inputs[name], dtype) for name, dtype in types.items()}


def _row_array(values: list[Any], dtype: str, key: str) -> np.ndarray:
    """Builds the array of the instances' values; errors name the first wrong one."""
    try:
        return _array(values, dtype)
    except errors.ServingError as error:
        found, first = error, None
    for position, value in enumerate(values):
        try:
            array = _array(value, dtype)
            first = array if first is None else first
            if array.size != first.size:
                raise errors.invalid(
                    f"Expecting tensor size: {first.size} but got: {array.size}"
                )
            if array.shape != first.shape:
                raise errors.invalid(
                    f"Expecting shape {_shown(first.shape)} but got: "
                    f"{_shown(array.shape)}"
                )
        except errors.ServingError as error:
            raise errors.invalid(
                f"Failed to process element: {position}{key} of 'instances' list. "
                f"Error: {error.code}: {error.message}"
            ) from error
    raise errors.invalid(found.message)  # Too many dimensions with that of the rows.


def _shown(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _array(value: Any, dtype: str) -> np.ndarray:
    """Builds the array of nested lists, level by level instead of by recursion."""
    shape: list[int] = []
    level = [value]
    while level and type(level[0]) is list:
        size = len(level[0])
        for one in level:
            if type(one) is not list:
                raise errors.invalid(
                    f"JSON Value: {json_values.shown(one)} found at incorrect level: "
                    f"{len(shape) + 1} in the JSON DOM. Expected deeper."
                )
            if len(one) != size:
                raise errors.invalid(
                    f"Encountered list at unexpected size: {len(one)} at level: "
                    f"{len(shape)} expected size: {size}"
                )
        shape.append(size)
        if len(shape) > options.MAX_DIMENSIONS:
            raise errors.invalid(
                f"Encountered list at unexpected level: {len(shape)} expected < "
                f"{options.MAX_DIMENSIONS}"
            )
        level = list(itertools.chain.from_iterable(level))
    if list in set(map(type, level)):
        raise errors.invalid(
            f"Encountered list at unexpected level: {len(shape)} expected < "
            f"{len(shape)}"
        )
    return json_values.flat(level, dtype).reshape(shape)


def _listed(name: str, value: np.ndarray) -> Any:
    """Nested lists of what JSON can write."""
    kind = value.dtype.kind
    if kind == "O":
        write: Callable[[bytes], Any] = _as_text
        if name.endswith("_bytes"):
            write = _as_base64
        written = np.empty(value.shape, object)
        written.ravel()[:] = [write(one) for one in value.ravel()]
        return written.tolist()
    if kind in "biu":
        return value.tolist()
    if kind == "f" or value.dtype.name == "bfloat16":
        return json_values.floats(value).tolist()
    raise errors.invalid(
        f"Failed to write JSON value for tensor type: {value.dtype.name}"
    )


def _as_base64(value: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(value).decode()}


def _as_text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
