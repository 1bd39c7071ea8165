"""The answers of a servable to the requests of PredictionService."""

import collections
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    inference_pb2,
    model_pb2,
    predict_pb2,
    prediction_log_pb2,
    regression_pb2,
)

from dfdetect.serving import (
    errors,
    examples,
    image_bounds,
    saved_model,
    servable,
    tensors,
)

CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"

_Signature: TypeAlias = meta_graph_pb2.SignatureDef


def predict(
    model: servable.Servable,
    request: predict_pb2.PredictRequest,
    max_bytes: int,
    deadline: float = servable.NEVER,
    api: str = "Predict",
) -> predict_pb2.PredictResponse:
    """Runs a signature on tensors.

    Args:
        model: The servable that the request's `model_spec` names.
        request: Request of a client.
        max_bytes: Bound of each tensor.
        deadline: See `servable.Servable.run`.
        api: See `servable.Servable.run`.

    Raises:
        errors.ServingError, tf.errors.OpError: There is no answer.
    """
    name = request.model_spec.signature_name or saved_model.DEFAULT_SIGNATURE
    signature = model.signature(name)
    if signature is None:
        raise errors.ServingError(
            "FAILED_PRECONDITION", f'Serving signature key "{name}" not found.'
        )
    given = set(request.inputs)
    check_names(signature, given)
    arrays = {
        alias: tensors.to_array(request.inputs[alias], max_bytes, alias)
        for alias in given
    }
    response = predict_pb2.PredictResponse()
    response.model_spec.CopyFrom(_spec(model, request.model_spec.name, name))
    outputs = run_signature(
        model, signature, arrays, request.output_filter, deadline, api
    )
    for alias, value in outputs.items():
        response.outputs[alias].CopyFrom(tensors.to_proto(value))
    return response


def check_names(signature: _Signature, given: set[str]) -> None:
    """Refuses inputs that are not the signature's.

    Raises:
        errors.ServingError: One is missing, without a default, or too many.
    """
    wanted = set(signature.inputs)
    missing = wanted - given - set(signature.defaults)
    if given - wanted or missing:
        lists = [
            ",".join(sorted(names))
            for names in (given, wanted, given - wanted, missing)
        ]
        raise errors.invalid(
            f"input size does not match signature: {len(given)}!={len(wanted)} "
            f"len({{{lists[0]}}}) != len({{{lists[1]}}}). "
            f"Sent extra: {{{lists[2]}}}. Missing but required: {{{lists[3]}}}."
        )


def run_signature(
    model: servable.Servable,
    signature: _Signature,
    arrays: saved_model.Arrays,
    output_filter: Sequence[str],
    deadline: float,
    api: str,
) -> dict[str, np.ndarray]:
    """Runs a signature on arrays by alias; see `predict`."""
    feeds = {}
    for alias, info in signature.inputs.items():
        if not info.name:
            raise errors.ServingError(
                "UNIMPLEMENTED", f"Input {alias} is not a dense tensor."
            )
        if alias in arrays:
            feeds[info.name] = _checked(arrays[alias], info, alias)
        else:
            default = signature.defaults[alias]
            feeds[info.name] = tensors.to_array(default, 2**31, alias)
    wanted = _wanted(signature, output_filter)
    feeds = image_bounds.hide_large(
        signature, feeds, model.max_pixels, model.limit_time(deadline)
    )
    try:
        values = model.run(feeds, list(wanted.values()), api, deadline)
    except Exception as error:
        # Only then: as with TensorFlow Serving, a graph may take other ranks, too.
        told, wrong = (
            errors.to_serving_error(error, model.name),
            _wrong_rank(signature, arrays),
        )
        if wrong and told.code == "INVALID_ARGUMENT":
            raise errors.invalid(f"{wrong} {told.message}") from error
        raise
    return {alias: values[name] for alias, name in wanted.items()}


def classify(
    model: servable.Servable,
    request: classification_pb2.ClassificationRequest,
    deadline: float = servable.NEVER,
    api: str = "Classify",
) -> classification_pb2.ClassificationResponse:
    """Classifies examples; see `predict`."""
    name, signature = _of_examples(model, request.model_spec)
    outputs = examples.classification_outputs(signature)
    serialized = examples.serialize_examples(request.input)
    feeds = {signature.inputs["inputs"].name: serialized}
    values = model.run(feeds, list(outputs.values()), api, deadline)
    response = classification_pb2.ClassificationResponse()
    response.model_spec.CopyFrom(_spec(model, request.model_spec.name, name))
    result = examples.build_classifications(outputs, values, len(serialized))
    response.result.CopyFrom(result)
    return response


def regress(
    model: servable.Servable,
    request: regression_pb2.RegressionRequest,
    deadline: float = servable.NEVER,
    api: str = "Regress",
) -> regression_pb2.RegressionResponse:
    """Regresses examples; see `predict`."""
    name, signature = _of_examples(model, request.model_spec)
    output = examples.regression_output(signature)
    serialized = examples.serialize_examples(request.input)
    feeds = {signature.inputs["inputs"].name: serialized}
    values = model.run(feeds, [output], api, deadline)
    response = regression_pb2.RegressionResponse()
    response.model_spec.CopyFrom(_spec(model, request.model_spec.name, name))
    response.result.CopyFrom(
        examples.build_regressions(values[output], len(serialized))
    )
    return response


def multi_inference(
    model: servable.Servable,
    request: inference_pb2.MultiInferenceRequest,
    deadline: float = servable.NEVER,
    api: str = "MultiInference",
) -> inference_pb2.MultiInferenceResponse:
    """Runs several signatures on the same examples in one call; see `predict`."""
    inputs, seen = set(), set()
    wanted: list[dict[str, str] | str] = []
    for task in request.tasks:
        if not task.model_spec.name:
            raise errors.invalid("Found ModelSpec with an empty model name.")
        if task.model_spec.name != request.tasks[0].model_spec.name:
            raise errors.invalid(
                "All ModelSpecs in a MultiInferenceRequest must access the same model "
                "name."
            )
        name = task.model_spec.signature_name or saved_model.DEFAULT_SIGNATURE
        if name in seen:
            raise errors.invalid(f"Duplicate evaluation of signature: {name}")
        seen.add(name)
        signature = model.signature(name)
        if signature is None:
            raise errors.invalid(
                f"Requested signature not found in model graph: {name}"
            )
        if task.method_name == CLASSIFY:
            wanted.append(examples.classification_outputs(signature))
        elif task.method_name == REGRESS:
            wanted.append(examples.regression_output(signature))
        else:
            raise errors.ServingError(
                "UNIMPLEMENTED",
                f"Unsupported signature method_name: {task.method_name}",
            )
        inputs.add(signature.inputs["inputs"].name)
    if len(inputs) > 1:
        raise errors.invalid("Input tensor must be the same for all Signatures.")
    serialized = examples.serialize_examples(request.input)
    response = inference_pb2.MultiInferenceResponse()
    if not wanted:
        return response
    fetches = [
        name
        for outputs in wanted
        for name in ([outputs] if isinstance(outputs, str) else outputs.values())
    ]
    values = model.run({inputs.pop(): serialized}, fetches, api, deadline)
    for task, outputs in zip(request.tasks, wanted, strict=True):
        result = response.results.add()
        spec = task.model_spec
        name = spec.signature_name or saved_model.DEFAULT_SIGNATURE
        result.model_spec.CopyFrom(_spec(model, spec.name, name))
        if isinstance(outputs, str):
            regressions = examples.build_regressions(values[outputs], len(serialized))
            result.regression_result.CopyFrom(regressions)
        else:
            classifications = examples.build_classifications(
                outputs, values, len(serialized)
            )
            result.classification_result.CopyFrom(classifications)
    return response


def read_metadata(
    model: servable.Servable, request: get_model_metadata_pb2.GetModelMetadataRequest
) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """Describes the signatures of a servable; see `predict`."""
    if not request.metadata_field:
        raise errors.invalid(
            "GetModelMetadataRequest must specify at least one metadata_field"
        )
    for field in request.metadata_field:
        if field != "signature_def":
            raise errors.invalid(f"Metadata field {field} is not supported")
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for name, signature in model.signatures.items():
        signatures.signature_def[name].CopyFrom(signature)
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = model.name
    response.model_spec.version.value = model.version
    response.metadata["signature_def"].Pack(signatures)
    return response


def warm_up(
    model: servable.Servable, log: prediction_log_pb2.PredictionLog, max_bytes: int
) -> None:
    """Answers a record of requests, of no kind that is counted; see `predict`."""
    kind = log.WhichOneof("log_type")
    if kind == "predict_log":
        predict(model, log.predict_log.request, max_bytes, api="")
    elif kind == "classify_log":
        classify(model, log.classify_log.request, api="")
    elif kind == "regress_log":
        regress(model, log.regress_log.request, api="")
    elif kind == "multi_inference_log":
        multi_inference(model, log.multi_inference_log.request, api="")
    else:
        raise errors.ServingError(
            "UNIMPLEMENTED", f"Unsupported log_type for warmup: {kind}"
        )


def _spec(model: servable.Servable, name: str, signature: str) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=name or model.name, signature_name=signature)
    spec.version.value = model.version
    return spec


def _checked(
    value: np.ndarray, info: meta_graph_pb2.TensorInfo, alias: str
) -> np.ndarray:
    """Returns the value if its type is the signature's."""
    wanted = tensors.dtype_name(info.dtype)
    got = "string" if value.dtype == object else value.dtype.name
    if got != wanted:
        raise errors.invalid(
            f"input tensor `{alias}` must be of type {wanted}, got {got}."
        )
    return value


def _wrong_rank(signature: _Signature, arrays: saved_model.Arrays) -> str:
    """Describes an input whose rank is not that of the signature; "" if none is."""
    for alias, value in sorted(arrays.items()):
        shape = signature.inputs[alias].tensor_shape
        rank = len(shape.dim)
        if not shape.unknown_rank and value.ndim != rank:
            lists = f"{value.ndim} (lists within lists); wanted is {rank}"
            return f"input tensor `{alias}` has rank {lists}."
    return ""


def _wanted(signature: _Signature, output_filter: Sequence[str]) -> dict[str, str]:
    """Finds the names of the tensors of the outputs that a client wants."""
    for alias, count in collections.Counter(output_filter).items():
        if alias not in signature.outputs:
            names = ",".join(sorted(signature.outputs))
            raise errors.invalid(
                f"output tensor alias not found in signature: {alias} "
                f"Outputs expected to be in the set {{{names}}}."
            )
        if count > 1:
            raise errors.invalid(f"duplicate output tensor alias: {alias}")
    aliases = output_filter or signature.outputs
    wanted = {alias: signature.outputs[alias].name for alias in aliases}
    for alias, name in wanted.items():
        if not name:
            raise errors.ServingError(
                "UNIMPLEMENTED", f"Output {alias} is not a dense tensor."
            )
    return wanted


def _of_examples(
    model: servable.Servable, spec: model_pb2.ModelSpec
) -> tuple[str, _Signature]:
    name = spec.signature_name or saved_model.DEFAULT_SIGNATURE
    signature = model.signature(name)
    if signature is None:
        raise errors.invalid(f"No signature was found with the name: {name}")
    return name, signature
