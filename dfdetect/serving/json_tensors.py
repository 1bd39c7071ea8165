"""Tensors in the JSON of the REST protocol: row and column format, base64, NaN."""

import base64
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from tensorflow.core.protobuf import meta_graph_pb2

from dfdetect.serving import errors, json_values, tensors

Infos = Mapping[str, meta_graph_pb2.TensorInfo]


def signature_name(document: dict[str, Any]) -> str:
    """The signature that a request names, "" for the default one."""
    name = document.get("signature_name", "")
    if type(name) is not str:
        raise errors.invalid(
            f"JSON Value: {json_values.shown(document)} not formatted correctly. "
            "'signature_name' key must be a string value."
        )
    return name


def to_arrays(
    document: dict[str, Any], infos: Infos
) -> tuple[dict[str, np.ndarray], bool]:
    """The inputs of a predict request.

    Args:
        document: Of `json_values.parse`.
        infos: The inputs of the signature.

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
    if not infos:
        raise errors.invalid("Failed to get input map for signature")
    if "instances" in document:
        return _rows(document["instances"], infos, document), True
    if "inputs" in document:
        return _columns(document["inputs"], infos), False
    raise errors.invalid("Missing 'inputs' or 'instances' key")


def to_json(outputs: Mapping[str, np.ndarray], rows: bool) -> bytes:
    """The answer to a predict request.

    Args:
        outputs: By alias.
        rows: Whether in row format.

    Raises:
        errors.ServingError: The outputs have no common size for rows, or a type that
            JSON does not know.
    """
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
    instances: Any, infos: Infos, document: dict[str, Any]
) -> dict[str, np.ndarray]:
    if type(instances) is not list:
        raise errors.invalid(
            f"JSON Value: {json_values.shown(document)} Excepting 'instances' to be an "
            "list/array"
        )
    if not instances:
        raise errors.invalid(
            f"JSON Value: {json_values.shown(document)} No values in 'instances' array"
        )
    named = json_values.is_named(instances[0])
    if not named and len(infos) > 1:
        raise errors.invalid(
            "instances is a plain list, but expecting list of objects as multiple "
            "input tensors required as per tensorinfo_map"
        )
    for position, instance in enumerate(instances):
        if json_values.is_named(instance) == named:
            if named and set(instance) != set(infos):
                raise errors.invalid(
                    f"Failed to process element: {position} of 'instances' list. JSON "
                    f"object: {json_values.shown(instance)} keys must be equal to: "
                    f"{','.join(sorted(infos))}"
                )
        elif named:
            raise errors.invalid(
                f"Expecting object but got list at item {position} of input list"
            )
        else:
            raise errors.invalid(
                f"Expecting value/list but got object at item {position} of input list"
            )
    if not named:
        ((name, info),) = infos.items()
        return {name: _array(instances, info, " of 'instances' list")}
    return {
        name: _array(
            [instance[name] for instance in instances],
            info,
            f" key: {name} of 'instances' list",
        )
        for name, info in infos.items()
    }


def _columns(inputs: Any, infos: Infos) -> dict[str, np.ndarray]:
    if not json_values.is_named(inputs):
        if len(infos) > 1:
            raise errors.invalid(
                "inputs is a plain value/list, but expecting an object as multiple "
                "input tensors required as per tensorinfo_map"
            )
        ((name, info),) = infos.items()
        return {name: _array(inputs, info, "")}
    for name in infos:
        if name not in inputs:
            raise errors.invalid(f"Missing named input: {name} in 'inputs' object.")
    return {name: _array(inputs[name], info, "") for name, info in infos.items()}


def _array(value: Any, info: meta_graph_pb2.TensorInfo, where: str) -> np.ndarray:
    """The array of nested lists, checked level by level, which takes no recursion."""
    prefix = f"Failed to process elements{where}. Error: " if where else ""
    shape: list[int] = []
    level = [value]
    while level and type(level[0]) is list:
        size = len(level[0])
        for one in level:
            if type(one) is not list:
                raise errors.invalid(
                    f"{prefix}JSON Value: {json_values.shown(one)} found at incorrect "
                    f"level: {len(shape)} in the JSON DOM."
                )
            if len(one) != size:
                raise errors.invalid(
                    f"{prefix}Encountered list at unexpected size: {len(one)} at "
                    f"level: {len(shape)} expected size: {size}"
                )
        shape.append(size)
        if len(shape) > tensors.MOST_DIMENSIONS:
            raise errors.invalid(
                f"{prefix}Encountered list at unexpected level: {len(shape)} "
                f"expected < {tensors.MOST_DIMENSIONS}"
            )
        level = list(itertools.chain.from_iterable(level))
    if any(type(one) is list for one in level):
        raise errors.invalid(
            f"{prefix}Encountered list at unexpected level: {len(shape)} "
            f"expected < {len(shape)}"
        )
    try:
        flat = json_values.flat(level, tensors.dtype_name(info.dtype))
    except errors.ServingError as error:
        raise errors.ServingError(error.code, prefix + error.message) from error
    return flat.reshape(shape)


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
