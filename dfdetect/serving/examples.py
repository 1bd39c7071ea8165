"""Examples as the strings that a graph parses, and what it says of them."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from tensorflow.core.example import example_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import classification_pb2, input_pb2, regression_pb2

from dfdetect.serving import errors, saved_model, tensors

_Signature: TypeAlias = meta_graph_pb2.SignatureDef


def count_examples(given: input_pb2.Input) -> int:
    """Counts the examples of a request."""
    return len(getattr(given, given.WhichOneof("kind") or "example_list").examples)


def serialize_examples(given: input_pb2.Input) -> np.ndarray:
    """Serializes the examples, each merged with the context.

    Raises:
        errors.ServingError: The input is empty.
    """
    kind = given.WhichOneof("kind")
    context = b""
    if kind == "example_list_with_context":
        context = given.example_list_with_context.context.SerializeToString()
    examples: Sequence[example_pb2.Example] = []
    if kind is not None:
        examples = getattr(given, kind).examples
    if not examples:
        raise errors.invalid("Input is empty.")
    serialized = np.empty(len(examples), object)
    # One message behind another is their merger.
    serialized[:] = [context + example.SerializeToString() for example in examples]
    return serialized


def _check_input(signature: _Signature, kind: str) -> None:
    if len(signature.inputs) != 1:
        raise errors.invalid("Expected one input Tensor.")
    if "inputs" not in signature.inputs:
        names = ",".join(signature.inputs)
        raise errors.invalid(
            f"No {kind} inputs found in SignatureDef: its input is {names}",
        )
    dtype = tensors.dtype_name(signature.inputs["inputs"].dtype)
    if dtype != "string":
        raise errors.invalid(f"Expected {kind} inputs of DT_STRING. Got: {dtype}")


def classification_outputs(signature: _Signature) -> dict[str, str]:
    """Finds the tensors of `classes` and `scores`, or of one of them.

    Raises:
        errors.ServingError: The signature is not one of classification.
    """
    _check_input(signature, "classification")
    if len(signature.outputs) not in (1, 2):
        raise errors.invalid(
            f"Expected one or two output Tensors, found {len(signature.outputs)}"
        )
    found = {
        alias: info.name
        for alias, info in signature.outputs.items()
        if alias in ("classes", "scores")
    }
    if not found:
        raise errors.invalid(
            "Expected classification signature outputs to contain at least one of "
            f'"classes" or "scores". Its outputs were: {",".join(signature.outputs)}',
        )
    return found


def regression_output(signature: _Signature) -> str:
    """Finds the tensor of `outputs`.

    Raises:
        errors.ServingError: The signature is not one of regression.
    """
    _check_input(signature, "regression")
    if len(signature.outputs) != 1:
        raise errors.invalid("Expected one output Tensor.")
    if "outputs" not in signature.outputs:
        raise errors.invalid(
            "No regression outputs found in SignatureDef: its output is "
            f"{','.join(signature.outputs)}",
        )
    return signature.outputs["outputs"].name


def build_classifications(
    outputs: dict[str, str], values: saved_model.Arrays, number: int
) -> classification_pb2.ClassificationResult:
    """Builds the classes of each example.

    Args:
        outputs: Result of `classification_outputs`.
        values: By the name of the tensor.
        number: Number of examples.

    Raises:
        errors.ServingError: The graph does not give what it should.
    """
    found = {alias: values[name] for alias, name in outputs.items()}
    for alias, value in found.items():
        if value.ndim != 2:
            raise errors.invalid(
                "Expected Tensor shape: [batch_size num_classes] but got "
                f"[{','.join(map(str, value.shape))}]"
            )
        kind = object if alias == "classes" else np.float32
        if value.dtype != kind:
            wanted = "DT_STRING" if alias == "classes" else "DT_FLOAT"
            raise errors.invalid(
                f"Expected {alias} Tensor of {wanted}. Got: {value.dtype}"
            )
        if len(value) != number:
            raise errors.invalid(
                f"Expected {alias} output batch size of {number}. Got: {len(value)}"
            )
    widths = [value.shape[1] for value in found.values()]
    if len(set(widths)) > 1:
        raise errors.invalid(
            "Tensors class and score should match in dim_size(1). "
            f"Got {found['classes'].shape[1]} vs. {found['scores'].shape[1]}"
        )
    result = classification_pb2.ClassificationResult()
    for row in range(number):
        classes = result.classifications.add().classes
        for column in range(widths[0]):
            one = classes.add()
            if "classes" in found:
                one.label = found["classes"][row, column].decode("utf-8", "replace")
            if "scores" in found:
                one.score = found["scores"][row, column]
    return result


def build_regressions(
    value: np.ndarray, number: int
) -> regression_pb2.RegressionResult:
    """Builds the value of each example; see `build_classifications`."""
    if not (value.ndim == 1 or (value.ndim == 2 and value.shape[1] == 1)):
        raise errors.invalid(
            "Expected output Tensor shape to be either [batch_size] or "
            f"[batch_size, 1] but got [{','.join(map(str, value.shape))}]"
        )
    if len(value) != number:
        raise errors.invalid(
            "Input batch size did not match output batch size: "
            f"{number} vs. {len(value)}"
        )
    if value.dtype != np.float32:
        raise errors.invalid(f"Expected output Tensor of DT_FLOAT.  Got: {value.dtype}")
    result = regression_pb2.RegressionResult()
    for number in value.ravel().tolist():
        result.regressions.add(value=number)
    return result
