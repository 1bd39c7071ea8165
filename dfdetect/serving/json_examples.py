"""Examples, classes and regressions in the JSON of the REST protocol."""

from typing import Any

import numpy as np
from tensorflow.core.example import example_pb2, feature_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    input_pb2,
    model_pb2,
    regression_pb2,
)

from dfdetect.serving import errors, json_tensors, json_values


def parse_classification(
    spec: model_pb2.ModelSpec, body: bytes
) -> classification_pb2.ClassificationRequest:
    """Parses the body of a request.

    Raises:
        errors.ServingError: It is not such a request.
    """
    request = classification_pb2.ClassificationRequest(model_spec=spec)
    _fill(request, body, "classify")
    return request


def parse_regression(
    spec: model_pb2.ModelSpec, body: bytes
) -> regression_pb2.RegressionRequest:
    """Parses the body of a request; see `parse_classification`."""
    request = regression_pb2.RegressionRequest(model_spec=spec)
    _fill(request, body, "regress")
    return request


def dump_classes(result: classification_pb2.ClassificationResult) -> bytes:
    """Pairs of label and score for each example."""
    rows = []
    for found in result.classifications:
        scores = np.array([one.score for one in found.classes], np.float32)
        labels = [one.label for one in found.classes]
        rows.append(list(zip(labels, _floats(scores), strict=True)))
    return json_values.dump({"results": rows})


def dump_regressions(result: regression_pb2.RegressionResult) -> bytes:
    """Writes a value for each example."""
    values = np.array([one.value for one in result.regressions], np.float32)
    return json_values.dump({"results": _floats(values)})


def _floats(values: np.ndarray) -> list[float]:
    return json_values.floats(values).tolist()


def _fill(request: Any, body: bytes, method: str) -> None:
    # Its messages are TensorFlow's, so that no other process can make them.
    document = json_values.parse(body, patiently=json_values.has_many_parts(body))
    name = json_tensors.signature_name(document)
    request.model_spec.signature_name = name
    request.input.CopyFrom(_input(document, method))


def _input(document: dict[str, Any], method: str) -> input_pb2.Input:
    """Parses the examples of a classify or regress request.

    Raises:
        errors.ServingError: They are missing or have values that an example lacks.
    """
    given = input_pb2.Input()
    target: Any = given.example_list
    if "context" in document:
        target = given.example_list_with_context
        target.context.CopyFrom(_example(document["context"]))
    if "examples" not in document:
        raise errors.invalid(
            f"JSON Value: {json_values.shown(document)} When method is {method}, key "
            "'examples' is expected and was not found"
        )
    examples = document["examples"]
    if type(examples) is not list:
        raise errors.invalid(
            f"JSON Value: {json_values.shown(document)} Expecting 'examples' value "
            "to be an list/array"
        )
    if not examples:
        raise errors.invalid(
            f"JSON Value: {json_values.shown(document)} 'examples' value is an "
            "empty array"
        )
    target.examples.extend(_example(example) for example in examples)
    return given


def _example(value: Any) -> example_pb2.Example:
    if type(value) is not dict:
        raise errors.invalid(
            f"Example must be JSON object but got JSON {json_values.type_name(value)}"
        )
    example = example_pb2.Example()
    for name, content in value.items():
        json_values.to_bytes(
            name
        )  # A name that is no UTF-8 would not fit into the message.
        feature = example.features.feature[name]
        for item in content if type(content) is list else [content]:
            _add_value(feature, item, name)
    return example


def _add_value(feature: feature_pb2.Feature, value: Any, name: str) -> None:
    if value is None or type(value) is list or json_values.is_named(value):
        raise errors.invalid(
            f"Feature: {name} has element with unexpected JSON type: "
            f"{json_values.type_name(value)}"
        )
    converted: Any
    kind = "bytes_list"
    if type(value) in (str, dict):
        converted = json_values.to_bytes(value)
    elif type(value) is float or not -(2**63) <= value < 2**64:
        kind, converted = "float_list", json_values.flat([value], "float32")[0]
    elif value < 2**63:
        kind, converted = "int64_list", int(value)
    else:
        raise errors.invalid(
            f"Feature: {name} has uint64_t element. Only int64_t is supported."
        )
    before = feature.WhichOneof("kind")
    if before not in (None, kind):
        raise errors.invalid(
            f"Unexpected element type in feature: {name} expecting type: "
            f"{before.removesuffix('_list')}"
        )
    getattr(feature, kind).value.append(converted)
