"""Bodies that nobody would write: the server refuses them and goes on."""

import collections
import json
import random
import urllib.error
import urllib.request

import grpc
import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    inference_pb2,
    predict_pb2,
    regression_pb2,
)

import serving_support
from dfdetect.serving import errors, json_tensors, json_values, tensors

SERVICE = "/tensorflow.serving.PredictionService/"
REST_CODES = {200, 400, 404, 501}  # 501: a type that JSON has no numbers for.
GRPC_CODES = {
    *("OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "UNIMPLEMENTED"),
}
TOKENS = (
    *(b"[", b"]", b"{", b"}", b",", b":", b'"', b"null", b"true", b"NaN", b"-Infinity"),
    *(b"1e999", b"-0", b"9" * 400, b'{"b64":""}', b"\\ud800", b"\xff", b"\x00"),
    *(b'"inputs"', b'"instances"', b'"signature_name"', b"\xff" * 9 + b"\x01"),
)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    serving_support.save(folder / "half" / "1", serving_support.half_plus(2.0))
    serving_support.save(folder / "add" / "1", serving_support.adder)
    serving_support.save(folder / "str" / "1", serving_support.strings)
    names = ("half", "add", "str")
    path = folder / "models.config"
    path.write_text(serving_support.config_text(**{n: (folder / n, "") for n in names}))
    with serving_support.in_process(
        model_config_file=str(path), enable_batching=True, max_request_bytes=2**20
    ) as started:
        yield started.client


def rest_seeds():
    return [
        ("half:predict", {"instances": [[1.0], [2.5]]}),
        ("half:predict", {"signature_name": "serving_default", "inputs": {"x": [1]}}),
        ("add:predict", {"instances": [{"a": 1.0, "b": 2}, {"a": 2.0, "b": 3}]}),
        ("add:predict", {"signature_name": "total", "inputs": {"a": [1], "b": [2]}}),
        ("str:predict", {"instances": ["text", {"b64": "/9j/"}]}),
        ("half:classify", {"signature_name": "named", "examples": [{"x": [1.0]}]}),
        (
            "half:regress",
            {"signature_name": "regress_x", "context": {"x": 1.0}, "examples": [{}]},
        ),
    ]


def grpc_seeds():
    predict = predict_pb2.PredictRequest(output_filter=["y"])
    predict.model_spec.name = "half"
    predict.inputs["x"].CopyFrom(tf.make_tensor_proto([[1.0], [2.0]]))
    content = predict_pb2.PredictRequest()
    content.model_spec.name = "add"
    content.inputs["a"].CopyFrom(tf.make_tensor_proto(np.float32([1.0, 2.0])))
    content.inputs["b"].CopyFrom(tf.make_tensor_proto(np.int32([1, 2])))
    text = predict_pb2.PredictRequest()
    text.model_spec.name = "str"
    text.inputs["text"].CopyFrom(tf.make_tensor_proto([b"a", b"bc"]))
    classify = classification_pb2.ClassificationRequest()
    regress = regression_pb2.RegressionRequest()
    multi = inference_pb2.MultiInferenceRequest()
    task = multi.tasks.add(method_name="tensorflow/serving/regress")
    for spec, name in (
        (classify.model_spec, "named"),
        (regress.model_spec, "regress_x"),
        (task.model_spec, "regress_x"),
    ):
        spec.name, spec.signature_name = "half", name
    for request in (classify, regress, multi):
        example = request.input.example_list.examples.add()
        example.features.feature["x"].float_list.value.append(1.0)
    return [
        *(("Predict", request) for request in (predict, content, text)),
        ("Classify", classify),
        ("Regress", regress),
        ("MultiInference", multi),
    ]


def mutated(body, chance):
    """The body after one to four changes of its bytes."""
    body = bytearray(body)
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(body) + 1)
        end = min(start + chance.randint(0, 8), len(body))
        kind = chance.randrange(5)
        if kind == 0 and start < len(body):
            body[start] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del body[start:end]
        elif kind == 2:
            body[start:start] = body[start:end] * chance.randint(1, 50)
        elif kind == 3:
            body[start:start] = chance.choice(TOKENS)
        else:
            body[start:end] = chance.randbytes(chance.randint(0, 8))
    return bytes(body)


def post(client, verb, body):
    request = urllib.request.Request(f"{client.url}/v1/models/{verb}", body)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            answer.read()
            return answer.status
    except urllib.error.HTTPError as error:
        assert set(json.loads(error.read())) == {"error"}
        return error.code


def call(client, method, body):
    try:
        client.channel.unary_unary(SERVICE + method)(body, timeout=30)
        return "OK"
    except grpc.RpcError as error:
        assert error.details()
        return error.code().name


def fuzz(client, count, seed):
    """Sends so many bodies to both protocols, and counts the answers."""
    chance = random.Random(seed)
    rest, rpc = rest_seeds(), grpc_seeds()
    found = collections.Counter()
    for number in range(count):
        if number % 2:
            verb, document = chance.choice(rest)
            body = mutated(json.dumps(document).encode(), chance)
            code = post(client, verb, body)
            assert code in REST_CODES, (verb, body, code)
        else:
            method, request = chance.choice(rpc)
            body = mutated(request.SerializeToString(), chance)
            code = call(client, method, body)
            assert code in GRPC_CODES, (method, body, code)
        found[code] += 1
    # It goes on as before, and the bodies were neither all good nor all bad.
    assert client.rest("/v1/models/half:predict", {"instances": [1.0]})[0] == 200
    assert min(found[200], found[400], found["OK"], found["INVALID_ARGUMENT"]) > 0
    return found


def test_some_mutated_bodies(client):
    fuzz(client, 400, seed=0)


@pytest.mark.slow
def test_10_000_mutated_bodies(client):
    fuzz(client, 2_000, seed=1)  # What there is to warm up.
    before = serving_support.resident_bytes()
    fuzz(client, 10_000, seed=2)
    assert serving_support.resident_bytes() < before + 50 * 2**20


def test_what_is_no_message_is_the_clients_mistake(client):
    assert call(client, "Predict", b"\xff") == "INVALID_ARGUMENT"
    assert call(client, "Divine", b"") == "UNIMPLEMENTED"


LEAVES = strategies.one_of(
    strategies.none(),
    strategies.booleans(),
    strategies.integers(),
    strategies.floats(),
    strategies.text(max_size=5),
    strategies.builds(lambda text: {"b64": text}, strategies.text("YWI=", max_size=8)),
)
VALUES = strategies.recursive(
    LEAVES,
    lambda inner: (
        strategies.lists(inner, max_size=4)
        | strategies.dictionaries(
            strategies.sampled_from(["a", "b"]), inner, max_size=2
        )
    ),
    max_leaves=12,
)
DTYPES = ("DT_FLOAT", "DT_DOUBLE", "DT_HALF", "DT_INT32", "DT_UINT8", "DT_STRING")


@hypothesis.settings(max_examples=100, deadline=None, derandomize=True, database=None)
@hypothesis.given(
    strategies.sampled_from(["instances", "inputs"]),
    VALUES,
    strategies.sampled_from([*DTYPES, "DT_BOOL", "DT_INT64"]),
    strategies.sampled_from([["a"], ["a", "b"]]),
)
def test_any_document_is_read_or_refused(key, value, dtype, names):
    types = {
        name: tensors.dtype_name(types_pb2.DataType.Value(dtype)) for name in names
    }
    try:
        document = json_values.parse(json_values.dump({key: value}))
        arrays, rows = json_tensors.to_arrays(document, types)
        text = json_tensors.to_json(arrays, rows)
    except errors.ServingError as error:
        assert error.code in ("INVALID_ARGUMENT", "UNIMPLEMENTED")
        return
    except UnicodeEncodeError:
        hypothesis.assume(False)  # Half a surrogate pair, that no body can hold.
    # What was read is written again as it was.
    again = json_values.parse(text)
    if dtype in ("DT_INT32", "DT_BOOL", "DT_INT64", "DT_DOUBLE") and len(names) == 1:
        given = value["a"] if isinstance(value, dict) else value
        if rows:
            given = [row["a"] if isinstance(row, dict) else row for row in value]
        found = again["predictions" if rows else "outputs"]
        np.testing.assert_equal(found, given)
