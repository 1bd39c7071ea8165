"""Requests and answers of TensorFlow Serving's protocols, as its source has them."""

import json
import math
import socket

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)

import serving_support
from dfdetect.serving import errors, json_examples, json_tensors, tensors

NAN, INF = math.nan, math.inf
HALF, ADD, STR, ID = (f"/v1/models/{name}" for name in ("half", "add", "str", "id"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    serving_support.save(folder / "half" / "00000123", serving_support.half_plus(2.0))
    serving_support.save(folder / "half" / "124", serving_support.half_plus(3.0))
    (folder / "half" / "tmp_125").mkdir()
    serving_support.save(folder / "add" / "1", serving_support.adder)
    serving_support.save(folder / "str" / "1", serving_support.strings)
    serving_support.save(folder / "id" / "1", serving_support.identities)
    double = tf.function(
        lambda x: {"y": 2.0 * x}, input_signature=[tf.TensorSpec([None], name="x")]
    )
    tf.saved_model.save(
        tf.Module(), str(folder / "two" / "1"), {"serving_default": double}
    )
    return folder


@pytest.fixture(scope="module")
def client(folder):
    labels = (
        'version_labels { key: "stable" value: 123 } '
        'version_labels { key: "canary" value: 124 }'
    )
    text = serving_support.config_text(
        half=(folder / "half", "model_version_policy { all {} } " + labels),
        add=(folder / "add", ""),
        str=(folder / "str", ""),
        id=(folder / "id", ""),
        two=(folder / "two", ""),
    )
    (folder / "models.config").write_text(text)
    with serving_support.in_process(
        model_config_file=str(folder / "models.config"), max_request_bytes=2**20
    ) as started:
        yield started.client


def version(number, state="AVAILABLE"):
    status = {"error_code": "OK", "error_message": ""}
    return {"version": str(number), "state": state, "status": status}


REST_ANSWERS = [
    # Predict, row format.
    (f"{HALF}:predict", {"instances": [[1.0], [2.0]]}, {"predictions": [[3.5], [4.0]]}),
    # The shape disagrees with the signature's, and that is allowed.
    (f"{HALF}:predict", {"instances": [1.0, 2.0]}, {"predictions": [3.5, 4.0]}),
    (f"{HALF}:predict", {"instances": [1, 2]}, {"predictions": [3.5, 4.0]}),
    (f"{HALF}:predict", {"instances": [{"x": [1.0]}]}, {"predictions": [[3.5]]}),
    (f"{HALF}:predict", {"instances": [[[1], [2]]]}, {"predictions": [[[3.5], [4.0]]]}),
    ("/V1/Models/half:predict", {"instances": [[1.0]]}, {"predictions": [[3.5]]}),
    ("/v1/models/ha%6Cf:predict", {"instances": [[1.0]]}, {"predictions": [[3.5]]}),
    (
        f"{HALF}:predict",
        {"signature_name": "serving_default", "instances": [[1.0]]},
        {"predictions": [[3.5]]},
    ),
    (f"{HALF}/versions/123:predict", {"instances": [[1.0]]}, {"predictions": [[2.5]]}),
    (f"{HALF}/versions/0123:predict", {"instances": [1.0]}, {"predictions": [2.5]}),
    (f"{HALF}/labels/stable:predict", {"instances": [[1.0]]}, {"predictions": [[2.5]]}),
    (f"{HALF}/labels/canary:predict", {"instances": [[1.0]]}, {"predictions": [[3.5]]}),
    (
        f"{ADD}:predict",
        {"instances": [{"a": 1.0, "b": 2}, {"a": 0.5, "b": 3}]},
        {"predictions": [{"b": 2, "sum": 3.0}, {"b": 3, "sum": 3.5}]},
    ),
    # Column format.
    (f"{HALF}:predict", {"inputs": [[1.0], [2.0]]}, {"outputs": [[3.5], [4.0]]}),
    (f"{HALF}:predict", {"inputs": {"x": [[1.0]]}}, {"outputs": [[3.5]]}),
    (f"{HALF}:predict", {"inputs": 1.0}, {"outputs": 3.5}),
    (
        f"{ADD}:predict",
        {"inputs": {"a": [1.0, 0.5], "b": [2, 3]}},
        {"outputs": {"b": [2, 3], "sum": [3.0, 3.5]}},
    ),
    (
        f"{ADD}:predict",
        {"signature_name": "total", "inputs": {"a": [1.0, 0.5], "b": [2, 3]}},
        {"outputs": 6.5},
    ),
    # A number that a float cannot hold is rounded, and one beyond its range infinite.
    (f"{HALF}:predict", {"instances": [2**24 + 1]}, {"predictions": [8388611.0]}),
    (
        f"{ID}:predict",
        {"signature_name": "float32", "inputs": [1435774380, 1435774380.0]},
        {"outputs": [1435774300.0, 1435774300.0]},
    ),
    (
        f"{ID}:predict",
        {"signature_name": "float64", "inputs": [2**53 + 1, 2**64, 1.7e308]},
        {"outputs": [2.0**53, 2.0**64, 1.7e308]},
    ),
    (
        f"{ID}:predict",
        {"signature_name": "float32", "inputs": [1e39, -1.7e308, 10**40, 2.3e-308]},
        {"outputs": [INF, -INF, INF, 0.0]},
    ),
    (
        f"{ID}:predict",
        b'{"signature_name": "float64", '
        b'"inputs": [NaN, -NaN, Inf, -Inf, Infinity, -Infinity, -0.0]}',
        {"outputs": [NAN, NAN, INF, -INF, INF, -INF, -0.0]},
    ),
    # The first of keys that are there twice counts.
    (f"{HALF}:predict", b'{"inputs": 1.0, "inputs": 2.0}', {"outputs": 3.5}),
    (
        f"{HALF}:predict",
        b'{"inputs": {"x": 1.0, "x": 2.0}, "signature_name": "serving_default", '
        b'"signature_name": 7}',
        {"outputs": 3.5},
    ),
    # Nobody looks at what is there beside.
    (
        f"{HALF}:predict",
        b'{"instances": [1.0], "nested":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        {"predictions": [3.5]},
    ),
    (
        f"{HALF}:predict",
        b'{"nested":'
        + b'{"a": ["\\n", ' * 5000
        + b"1"
        + b"]}" * 5000
        + b', "instances": [1.0]}',
        {"predictions": [3.5]},
    ),
    # Base64 may have line breaks, blanks, and dots or nothing for its padding.
    (
        f"{STR}:predict",
        {"inputs": {"b64": " Y\nW\r\nI\t. "}},
        {"outputs": {"echo": "ab", "echo_bytes": {"b64": "YWI="}, "size": 2}},
    ),
    (
        f"{STR}:predict",
        {"inputs": [{"b64": "YQ.="}, {"b64": "YQ"}, {"b64": ""}]},
        {
            "outputs": {
                "echo": ["a", "a", ""],
                "echo_bytes": [{"b64": "YQ=="}, {"b64": "YQ=="}, {"b64": ""}],
                "size": [1, 1, 0],
            }
        },
    ),
    # Strings and bytes: the name of the output tells.
    (
        f"{STR}:predict",
        {"instances": ["häß", {"b64": "/9j/"}, {"b64": "YWI"}]},
        {
            "predictions": [
                {"echo": "häß", "echo_bytes": {"b64": "aMOkw58="}, "size": 5},
                {
                    "echo": "\udcff\udcd8\udcff",
                    "echo_bytes": {"b64": "/9j/"},
                    "size": 3,
                },
                {"echo": "ab", "echo_bytes": {"b64": "YWI="}, "size": 2},
            ]
        },
    ),
    (
        f"{STR}:predict",
        {"inputs": {"b64": "YWI="}},
        {"outputs": {"echo": "ab", "echo_bytes": {"b64": "YWI="}, "size": 2}},
    ),
    # NaN and Infinity are words of the document.
    (
        f"{HALF}:predict",
        {"instances": [NAN, INF, -INF]},
        {"predictions": [NAN, INF, -INF]},
    ),
    # Classify and regress.
    (
        f"{HALF}:classify",
        {"signature_name": "classify_x", "examples": [{"x": 1.0}, {"x": [2.0]}]},
        {"results": [[["", 3.5]], [["", 4.0]]]},
    ),
    (
        f"{HALF}/labels/stable:classify",
        {"signature_name": "named", "examples": [{"x": 1.0}]},
        {"results": [[["half", 2.5]]]},
    ),
    (
        f"{HALF}:classify",
        {"signature_name": "labels_only", "examples": [{"x": 1.0}]},
        {"results": [[["half", 0.0]]]},
    ),
    (
        f"{HALF}:regress",
        {"signature_name": "regress_x", "examples": [{"x": 1.0}, {}]},
        {"results": [3.5, 3.0]},
    ),
    (
        f"{HALF}/versions/123:regress",
        {
            "signature_name": "regress_x",
            "context": {"x": 4.0},
            "examples": [{}, {"x": 1.0}],
        },
        {"results": [4.0, 2.5]},
    ),
    # An integer beyond 64 bits is a float.
    (
        f"{HALF}:regress",
        {"signature_name": "regress_x", "examples": [{"x": 2**64}]},
        {"results": [9.223372e18]},
    ),
    # Status.
    (HALF, None, {"model_version_status": [version(124), version(123)]}),
    (f"{HALF}/versions/123", None, {"model_version_status": [version(123)]}),
    # A label is ignored here.
    (
        f"{HALF}/labels/stable",
        None,
        {"model_version_status": [version(124), version(123)]},
    ),
]


@pytest.mark.parametrize("path, body, expected", REST_ANSWERS)
def test_rest_answers(client, path, body, expected):
    status, document = client.rest(path, body)
    assert status == 200
    np.testing.assert_equal(document, expected)


REST_ERRORS = [
    (f"{HALF}:predict", b"", 400, "JSON Parse error: The document is empty"),
    (f"{HALF}:predict", b"{", 400, "JSON Parse error"),
    (f"{HALF}:predict", b"\xff{}", 400, "JSON Parse error"),
    (f"{HALF}:predict", b"[" * 100000, 400, "JSON Parse error"),
    (f"{HALF}:predict", b'{"inputs":' + b"1" * 5000 + b"}", 400, "JSON Parse error"),
    (f"{HALF}:predict", [1.0], 400, "JSON Value: [1.0] Is not object"),
    (f"{HALF}:predict", {}, 400, "Missing 'inputs' or 'instances' key"),
    (f"{HALF}:predict", {"instances": []}, 400, "No values in 'instances' array"),
    (f"{HALF}:predict", {"instances": 1.0}, 400, "Expecting 'instances' to be an list"),
    (f"{HALF}:PREDICT", {"instances": [[1.0]]}, 400, "Malformed request: POST"),
    (f"{HALF}:predict?x=1", {"instances": [[1.0]]}, 400, "Malformed request: POST"),
    (f"{HALF}/metadata?x=1", None, 400, "Malformed request: GET"),
    (f"{HALF}?x=1", None, 404, "Could not find any versions of model half?x=1"),
    (
        f"{HALF}:predict",
        b'{"signature_name":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        400,
        "key must be a string value",
    ),
    (f"{HALF}:predict", b'{"a": 1e400}', 400, "Number too big to be stored in double."),
    (f"{HALF}:predict", b'{"inputs": Info}', 400, "JSON Parse error"),
    (f"{HALF}:predict", b'{"inputs": +Inf}', 400, "JSON Parse error"),
    (f"{HALF}:predict", b'{"a": Inf, "b" 1}', 400, "Missing a colon"),
    (f"{HALF}:predict", b'{"a": Inf, 1}', 400, "Missing a name for object member."),
    (f"{HALF}:predict", b'{"a": [Inf}', 400, "JSON Parse error: Missing a comma"),
    (f"{HALF}:predict", {"instances": [1], "inputs": [1]}, 400, "only one of 'inputs'"),
    (
        f"{HALF}:predict",
        {"signature_name": 1, "instances": [1.0]},
        400,
        "'signature_name' key must be a string value",
    ),
    (
        f"{HALF}:predict",
        {"signature_name": "x", "instances": [1.0]},
        400,
        'Serving signature name: "x" not found in signature def',
    ),
    (
        f"{HALF}:predict",
        {"instances": ["a"]},
        400,
        'JSON Value: "a" Type: String is not of expected type: float',
    ),
    (f"{HALF}:predict", {"instances": [True]}, 400, "Type: True is not of expected"),
    (f"{HALF}:predict", {"instances": [None]}, 400, "Type: Null is not of expected"),
    (
        f"{HALF}:predict",
        {"instances": [[1.0], [1.0, 2.0]]},
        400,
        "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
        "Expecting tensor size: 1 but got: 2",
    ),
    (
        f"{HALF}:predict",
        {"instances": [[1.0, 2.0], [3.0, 4.0], [[5.0, 6.0]]]},
        400,
        "Expecting shape [2] but got: [1,2]",
    ),
    (f"{HALF}:predict", {"instances": [1.0, [2.0]]}, 400, "Expecting shape [] but got"),
    (f"{HALF}:predict", {"instances": [[[1.0], [1, 2]]]}, 400, "unexpected size: 2"),
    (f"{HALF}:predict", {"inputs": [[1.0], [1.0, 2.0]]}, 400, "unexpected size: 2"),
    (f"{HALF}:predict", {"inputs": [[1.0], 2.0]}, 400, "incorrect level: 2"),
    (f"{HALF}:predict", {"inputs": [1.0, [2.0]]}, 400, "unexpected level: 1"),
    (f"{HALF}:predict", {"instances": [10**400]}, 400, "Number too big to be stored"),
    (f"{HALF}:predict", {"instances": [{"y": 1.0}]}, 400, "keys must be equal to: x"),
    (
        f"{HALF}:predict",
        {"instances": [{"x": 1.0}, 2.0]},
        400,
        "Expecting object but got list at item 1 of input list",
    ),
    (
        f"{HALF}:predict",
        {"instances": [1.0, {"x": 1.0}]},
        400,
        "Expecting value/list but got object at item 1 of input list",
    ),
    (f"{ADD}:predict", {"instances": [1.0]}, 400, "expecting list of objects"),
    (f"{ADD}:predict", {"inputs": [1.0]}, 400, "expecting an object as multiple"),
    (f"{ADD}:predict", {"inputs": {"a": [1.0]}}, 400, "Missing named input: b"),
    (
        f"{ADD}:predict",
        {"instances": [{"a": 1.0, "b": 2.0}]},
        400,
        "JSON Value: 2.0 Type: Number is not of expected type: int32",
    ),
    (f"{ADD}:predict", {"instances": [{"a": 1.0, "b": 2**31}]}, 400, "type: int32"),
    (
        f"{ADD}:predict",
        {"signature_name": "total", "instances": [{"a": 1.0, "b": 2}]},
        400,
        "Tensor name: total has no shape information",
    ),
    (f"{STR}:predict", {"instances": [{"b64": "?"}]}, 400, "Unable to base64 decode"),
    (f"{STR}:predict", {"instances": [{"b64": "YQ="}]}, 400, "base64 decode"),
    (f"{STR}:predict", {"instances": [{"b64": "YWI=YWI="}]}, 400, "base64 decode"),
    (f"{STR}:predict", {"instances": [{"b64": "Y_I="}]}, 400, "base64 decode"),
    (f"{STR}:predict", {"instances": [{"b64": "YWJjZ"}]}, 400, "base64 decode"),
    (f"{STR}:predict", {"instances": [1]}, 400, "is not of expected type: string"),
    (f"{STR}:predict", b'{"inputs": ["\\ud800"]}', 400, "surrogate pair"),
    (
        f"{STR}:predict",
        {"signature_name": "decode", "instances": ["no number"]},
        400,
        "StringToNumberOp could not correctly convert string",
    ),
    (
        f"{ID}:predict",
        {"signature_name": "complex64", "inputs": 1.0},
        501,
        "to type: complex64",
    ),
    (
        f"{ID}:predict",
        {"signature_name": "complex64", "instances": [1.0]},
        400,
        "Failed to process element: 0 of 'instances' list. Error: UNIMPLEMENTED: ",
    ),
    (
        "/v1/models/foo:predict",
        {"instances": [1]},
        404,
        "Servable not found for request: Latest(foo)",
    ),
    (
        f"{HALF}/versions/50:predict",
        {"instances": [1]},
        404,
        "Servable not found for request: Specific(half, 50)",
    ),
    (
        f"{HALF}/labels/prod:predict",
        {"instances": [1]},
        400,
        "Unrecognized servable version label: prod",
    ),
    (f"{HALF}/versions/{2**63}:predict", {"instances": [1]}, 400, "Failed to convert"),
    (f"{HALF}/versions/{'9' * 5000}", None, 400, "Failed to convert"),
    (f"{HALF}:predict", b'{"inputs":' + b"[" * 99 + b"]" * 99 + b"}", 400, "level: 65"),
    (
        f"{HALF}:predict",
        b'{"instances":' + b"[" * 65 + b"1" + b"]" * 65 + b"}",
        400,
        "level: 65",
    ),
    (f"{HALF}:classify", {"examples": []}, 400, "value is an empty array"),
    (f"{HALF}:classify", {"instances": []}, 400, "key 'examples' is expected"),
    (f"{HALF}:classify", {"examples": {}}, 400, "'examples' value to be an list/array"),
    (f"{HALF}:classify", {"examples": [1]}, 400, "Example must be JSON object but got"),
    (
        f"{HALF}:classify",
        {"examples": [{"x": None}]},
        400,
        "unexpected JSON type: Null",
    ),
    (
        f"{HALF}:classify",
        {"examples": [{"x": [1, 1.0]}]},
        400,
        "Unexpected element type",
    ),
    (
        f"{HALF}:classify",
        {"examples": [{"x": 2**63}]},
        400,
        "Only int64_t is supported",
    ),
    # 2 is an int64, where the graph parses floats.
    (
        f"{HALF}:regress",
        {"signature_name": "regress_x", "examples": [{"x": 2}]},
        400,
        "Data types don't match",
    ),
    (
        f"{HALF}:classify",
        {"signature_name": "x", "examples": [{}]},
        400,
        "No signature was found with the name: x",
    ),
    (
        f"{HALF}:regress",
        {"signature_name": "wide", "examples": [{}]},
        400,
        "Expected output Tensor shape to be either [batch_size] or [batch_size, 1]",
    ),
    (
        f"{HALF}:regress",
        {"examples": [{}]},
        400,
        "No regression inputs found in SignatureDef",
    ),
    ("/v1/models", None, 400, "Missing model name in request."),
    ("/v1/models/foo", None, 404, "Could not find any versions of model foo"),
    (f"{HALF}/versions/50", None, 404, "Could not find version 50 of model half"),
    ("/v1/models/foo/metadata", None, 404, "Servable not found for request"),
    (f"{HALF}:predict", None, 400, "Malformed request: GET /v1/models/half:predict"),
    (HALF, {}, 400, "Malformed request: POST /v1/models/half"),
    (f"{HALF}:destroy", {}, 400, "Malformed request: POST"),
    ("/v1/", None, 400, "Malformed request: GET /v1/"),
    ("/v2/models", None, 404, "Not found"),
    ("/", None, 404, "Not found"),
]


@pytest.mark.parametrize("path, body, code, message", REST_ERRORS)
def test_rest_errors(client, folder, path, body, code, message):
    status, document = client.rest(path, body)
    assert (status, list(document)) == (code, ["error"])
    assert message in document["error"]
    assert str(folder) not in document["error"]


MALFORMED = [
    ("GET", "/v1/foo"),
    ("POST", "/v1/foo"),
    ("POST", "/v1/models"),
    ("GET", "/v1/models/debug/model_name"),
    ("GET", f"{HALF}:predict"),
    ("GET", f"{HALF}/version/50:predict"),
    ("POST", f"{HALF}/version/50:regress"),
    ("POST", f"{HALF}/versions/HELLO:regress"),
    ("POST", f"{HALF}/versions/-1:regress"),
    ("POST", f"{HALF}/metadata"),
    ("POST", f"{HALF}/label/some_label:regress"),
    ("POST", f"{HALF}/versions/50/labels/some_label:regress"),
    ("POST", f"{HALF}/versions/some_label:regress"),
    ("POST", f"{HALF}:"),
    ("POST", f"{HALF}:predict/"),
    ("PUT", HALF),
    ("DELETE", HALF),
    ("PATCH", f"{HALF}:predict"),
]


@pytest.mark.parametrize("method, path", MALFORMED)
def test_rest_refuses_what_is_no_call(client, method, path):
    body = None if method == "GET" else b"{}"
    status, document = client.rest(path, body, method=method)
    assert status == 400
    assert document["error"] == f"Malformed request: {method} {path}"


def test_rest_refuses_a_version_that_is_no_number(client):
    for number in (2**63, 2**64 - 1):
        status, document = client.rest(f"{HALF}/versions/{number}:regress", b"{}")
        assert status == 400 and "Failed to convert version" in document["error"]


def example_request(document):
    body = json.dumps(document).encode()
    return json_examples.parse_classification(model_pb2.ModelSpec(name="half"), body)


def test_json_of_examples():
    found = example_request(
        {
            "signature_name": "custom",
            "context": {"query": "pizza", "location": ["sfo"]},
            "examples": [
                {"names": ["foo", "bar"], "ratings": [8.0, NAN, INF], "age": 20},
                {"names": ["baz", {"b64": "aGVsbG8="}], "mix": [1, True, False]},
                {"names": "bar", "ratings": -INF, "none": []},
            ],
        }
    )
    assert found.model_spec.signature_name == "custom"
    given = found.input.example_list_with_context
    feature = given.context.features.feature
    assert list(feature["query"].bytes_list.value) == [b"pizza"]
    assert list(feature["location"].bytes_list.value) == [b"sfo"]
    first, second, third = (one.features.feature for one in given.examples)
    assert list(first["names"].bytes_list.value) == [b"foo", b"bar"]
    np.testing.assert_equal(list(first["ratings"].float_list.value), [8.0, NAN, INF])
    assert list(first["age"].int64_list.value) == [20]
    assert list(second["names"].bytes_list.value) == [b"baz", b"hello"]
    assert list(second["mix"].int64_list.value) == [1, 1, 0]
    assert list(third["ratings"].float_list.value) == [-INF]
    assert third["none"].WhichOneof("kind") is None


@pytest.mark.parametrize(
    "document, message",
    [
        ({"signature_name": ["a"], "examples": [{}]}, "key must be a string"),
        ({"context": [{"names": []}]}, "Example must be JSON object"),
        ({"context": {}}, "'examples' is expected and was not found"),
        ({"examples": {"names": []}}, "list/array"),
        ({"examples": [[{"names": []}]]}, "Example must be JSON object"),
        (
            {"examples": [{"names": [10, None]}]},
            "names has element with unexpected JSON",
        ),
        ({"examples": [{"names": [10, 10.0]}]}, "names expecting type: int64"),
        ({"examples": [{"names": [10, {"a": 1}]}]}, "unexpected JSON type: Object"),
        ({"examples": [{"names": [[10], 20]}]}, "unexpected JSON type: Array"),
        ({"examples": [{"names": [20, 2**64 - 13]}]}, "Only int64_t is supported"),
    ],
)
def test_json_of_examples_that_is_refused(document, message):
    with pytest.raises(errors.ServingError, match=message) as caught:
        example_request(document)
    assert caught.value.code == "INVALID_ARGUMENT"


def test_json_of_no_rows():
    for outputs in (
        {"a": np.zeros([0, 2], np.int32)},
        {"a": np.zeros([0, 1, 2], object), "b": np.zeros([0, 3], np.float32)},
    ):
        assert json.loads(json_tensors.to_json(outputs, True)) == {"predictions": []}


@pytest.mark.parametrize(
    "outputs, message",
    [
        ({}, "Cannot convert empty tensor map to JSON"),
        ({"a": np.zeros([2], np.complex64)}, "for tensor type: complex64"),
        ({"a": np.int32(1)}, "has no shape information"),
        ({"a": np.zeros([0, 2]), "b": np.zeros([1, 2])}, "inconsistent batch size: 1"),
    ],
)
def test_json_that_cannot_be_written(outputs, message):
    with pytest.raises(errors.ServingError, match=message) as caught:
        json_tensors.to_json(outputs, True)
    assert caught.value.code == "INVALID_ARGUMENT"


def test_rest_ignores_what_stands_behind_the_document(client):
    body = b'\n {"instances": [1.0]} and so on'
    assert client.rest(f"{HALF}:predict", body) == (200, {"predictions": [3.5]})


def test_rest_refuses_other_methods(client):
    for method in ("PUT", "DELETE", "PATCH"):
        status, document = client.rest(HALF, b"", method=method)
        assert status == 400 and f"Malformed request: {method}" in document["error"]


def test_rest_takes_the_absolute_form_of_a_target(client):
    with socket.create_connection(("127.0.0.1", client.rest_port)) as connection:
        target = f"http://localhost:{client.rest_port}{HALF}/versions/123"
        connection.sendall(
            f"GET {target} HTTP/1.1\r\nHost: localhost\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        answer = connection.makefile("rb").read()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert json.loads(body) == {"model_version_status": [version(123)]}


def test_rest_answers_what_browsers_ask_before(client):
    for path in (HALF, f"{HALF}:predict"):
        origin = {"Origin": "http://example.com"}
        assert client.rest(path, method="OPTIONS", headers=origin) == (200, "")
        status, document = client.rest(path, method="OPTIONS")
        assert status == 400 and "Origin header is missing" in document["error"]


def test_rest_numbers_are_as_short_as_floats(client):
    body = json.dumps({"instances": [0.2, 1e-7, 3e8]}).encode()
    with serving_support.urllib.request.urlopen(
        f"{client.url}{ID}:predict",
        b'{"signature_name": "float32", "inputs": [0.2, 1e-7, 3e8, 2]}',
    ) as answer:
        assert answer.headers["Content-Type"] == "application/json"
        assert "Server" not in answer.headers
        assert answer.read() == b'{"outputs":[0.2,1e-07,300000000.0,2.0]}'
    assert client.rest(f"{HALF}:predict", body)[1]["predictions"] == [3.1, 3.0, 1.5e8]


def test_rest_metadata_equals_the_graphs(client):
    status, document = client.rest(f"{HALF}/versions/123/metadata")
    assert status == 200
    assert document["model_spec"] == {
        "name": "half",
        "signature_name": "",
        "version": "123",
    }
    assert list(document["metadata"]["signature_def"]) == ["signature_def"]
    signatures = document["metadata"]["signature_def"]["signature_def"]
    assert signatures["serving_default"] == {
        "inputs": {
            "x": {
                "dtype": "DT_FLOAT",
                "name": "x:0",
                "tensor_shape": {
                    "dim": [{"size": "-1", "name": ""}, {"size": "1", "name": ""}],
                    "unknown_rank": False,
                },
            }
        },
        "outputs": signatures["serving_default"]["outputs"],
        "method_name": "tensorflow/serving/predict",
        "defaults": {},
    }
    assert signatures["classify_x"]["method_name"] == "tensorflow/serving/classify"


@pytest.mark.parametrize("dtype", serving_support.TYPES, ids=lambda dtype: dtype.name)
def test_all_types_pass_through_both_protocols(client, dtype):
    value = serving_support.TYPES[dtype]
    body = {"signature_name": dtype.name, "inputs": [value]}
    assert client.rest(f"{ID}:predict", body) == (200, {"outputs": [value]})
    array = np.array([[value], [value]], dtype.as_numpy_dtype)
    response = client.predict("id", {"x": array}, dtype.name)
    np.testing.assert_array_equal(tf.make_ndarray(response.outputs["y"]), array)
    assert not response.outputs["y"].tensor_content


# Over gRPC.


def examples(*values):
    found = inference_pb2.MultiInferenceRequest().input
    for value in values:
        example = found.example_list.examples.add()
        example.features.feature["x"].float_list.value.append(value)
    return found


def refused(call):
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code().name, caught.value.details()


def test_predict(client):
    response = client.predict(inputs={"x": np.float32([[1.0], [2.0]])})
    assert response.model_spec.name == "half"
    assert response.model_spec.version.value == 124
    assert response.model_spec.signature_name == "serving_default"
    assert list(response.outputs["y"].float_val) == [3.5, 4.0]
    assert [dim.size for dim in response.outputs["y"].tensor_shape.dim] == [2, 1]


@pytest.mark.parametrize(
    "choice, number, y",
    [({"version": 123}, 123, 2.5), ({"label": "stable"}, 123, 2.5), ({}, 124, 3.5)],
)
def test_predict_of_a_version(client, choice, number, y):
    response = client.predict(inputs={"x": np.float32([1.0])}, **choice)
    assert response.model_spec.version.value == number
    assert list(response.outputs["y"].float_val) == [y]


def test_predict_with_an_output_filter(client):
    inputs = {"a": np.float32([1.0]), "b": np.int32([2])}
    assert set(client.predict("add", inputs).outputs) == {"b", "sum"}
    assert set(client.predict("add", inputs, outputs=["sum"]).outputs) == {"sum"}


def test_predict_by_a_signature_of_another_kind(client):
    # Predict takes any signature: the tensors are those that it names.
    given = np.array(
        [examples(2.0).example_list.examples[0].SerializeToString()], object
    )
    response = client.predict("half", {"inputs": given}, "regress_x")
    assert list(response.outputs["outputs"].float_val) == [4.0]


def test_predict_without_a_model(client):
    request = predict_pb2.PredictRequest()
    told = refused(lambda: client.predictions.Predict(request))
    assert told == ("INVALID_ARGUMENT", "Missing ModelSpec")


def test_predict_of_one_value_that_stands_for_many(client):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "half"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(1.0, shape=[4, 1]))
    assert len(request.inputs["x"].float_val) == 1
    response = client.predictions.Predict(request)
    assert list(response.outputs["y"].float_val) == [3.5] * 4


ONE = {"x": np.float32([1.0])}
PREDICT_ERRORS = [
    ({"model": "foo"}, "NOT_FOUND", "Servable not found for request: Latest(foo)"),
    ({"model": ""}, "INVALID_ARGUMENT", "ModelSpec has no name specified."),
    (
        {"version": 50},
        "NOT_FOUND",
        "Servable not found for request: Specific(half, 50)",
    ),
    (
        {"label": "prod"},
        "INVALID_ARGUMENT",
        "Unrecognized servable version label: prod",
    ),
    (
        {"signature": "x"},
        "FAILED_PRECONDITION",
        'Serving signature key "x" not found.',
    ),
    (
        {"inputs": {"z": np.float32([1.0])}},
        "INVALID_ARGUMENT",
        "input size does not match signature: 1!=1 len({z}) != len({x}). "
        "Sent extra: {z}. Missing but required: {x}.",
    ),
    (
        {"inputs": {}},
        "INVALID_ARGUMENT",
        "input size does not match signature: 0!=1 len({}) != len({x}). "
        "Sent extra: {}. Missing but required: {x}.",
    ),
    (
        {"inputs": {"x": np.int32([1])}},
        "INVALID_ARGUMENT",
        "input tensor `x` must be of type float32, got int32.",
    ),
    (
        {"outputs": ["z"]},
        "INVALID_ARGUMENT",
        "output tensor alias not found in signature: z "
        "Outputs expected to be in the set {y}.",
    ),
    ({"outputs": ["y", "y"]}, "INVALID_ARGUMENT", "duplicate output tensor alias: y"),
]


@pytest.mark.parametrize("arguments, code, message", PREDICT_ERRORS)
def test_predict_errors(client, arguments, code, message):
    arguments = {"inputs": ONE, **arguments}
    assert refused(lambda: client.predict(**arguments)) == (code, message)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda x: x.tensor_shape.dim.add(size=-1), "known shape"),
        (lambda x: setattr(x.tensor_shape, "unknown_rank", True), "known shape"),
        (lambda x: x.float_val.extend([1.0] * 9), "must have 2 values, got 9"),
        (lambda x: setattr(x, "tensor_content", b"abc"), "must have 8 bytes, got 3"),
        (lambda x: setattr(x.tensor_shape.dim[0], "size", 2**40), "at most 1048576"),
        (lambda x: [x.tensor_shape.dim.add(size=1) for _ in range(64)], "got 65"),
        (
            lambda x: [x.tensor_shape.dim.add(size=n) for n in (2**62, 2**62, 0)],
            "at most 1048576 bytes",
        ),
        (lambda x: setattr(x, "dtype", 20), "cannot be fed"),
        (lambda x: setattr(x, "dtype", 0), "cannot be fed"),
    ],
)
def test_tensors_that_are_not_valid(client, change, message):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "half"
    request.inputs["x"].dtype = tf.float32.as_datatype_enum
    request.inputs["x"].tensor_shape.dim.add(size=2)
    change(request.inputs["x"])
    code, details = refused(lambda: client.predictions.Predict(request))
    assert code == "INVALID_ARGUMENT" and message in details


def strings_of(client, content, *sizes):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "str"
    text = request.inputs["text"]
    text.dtype = tf.string.as_datatype_enum
    for size in sizes:
        text.tensor_shape.dim.add(size=size)
    text.tensor_content = content
    answer = client.predictions.Predict(request)
    return tf.make_ndarray(answer.outputs["echo"]).tolist()


def test_strings_in_the_content_of_a_tensor(client):
    # Their lengths, seven bits a byte, and then all of their bytes.
    assert strings_of(client, b"\x02\x00\x01abc", 3) == [b"ab", b"", b"c"]
    long = b"x" * 300
    assert strings_of(client, b"\xac\x02" + long, 1) == [long]
    for content in (b"\x02", b"\x02\x01ab", b"\x02\x01abcd", b"\xff" * 9 + b"\x01"):
        code, details = refused(lambda content=content: strings_of(client, content, 2))
        assert code == "INVALID_ARGUMENT" and "tensor_content" in details


def test_protos_of_tensors_without_values_are_zeros():
    proto = tf.make_tensor_proto(np.zeros([0], np.float32))
    proto.tensor_shape.dim[0].size = 2
    np.testing.assert_array_equal(tensors.to_array(proto, 100, "x"), [0.0, 0.0])


def test_classify(client):
    request = classification_pb2.ClassificationRequest(input=examples(1.0, 2.0))
    request.model_spec.name = "half"
    request.model_spec.signature_name = "named"
    response = client.predictions.Classify(request)
    assert response.model_spec.version.value == 124
    assert response.model_spec.signature_name == "named"
    found = [
        [(c.label, c.score) for c in r.classes] for r in response.result.classifications
    ]
    assert found == [[("half", 3.5)], [("half", 4.0)]]


def test_regress_with_a_context(client):
    request = regression_pb2.RegressionRequest()
    request.model_spec.name = "half"
    request.model_spec.signature_name = "regress_x"
    given = request.input.example_list_with_context
    given.context.features.feature["x"].float_list.value.append(4.0)
    given.examples.add()
    response = client.predictions.Regress(request)
    assert [r.value for r in response.result.regressions] == [5.0]


@pytest.mark.parametrize(
    "signature, given, code, message",
    [
        ("regress_x", (), "INVALID_ARGUMENT", "Input is empty."),
        ("x", (1.0,), "INVALID_ARGUMENT", "No signature was found with the name: x"),
        ("named", (1.0,), "INVALID_ARGUMENT", "Expected one output Tensor."),
        ("classify_x", (1.0,), "INVALID_ARGUMENT", "No regression outputs found"),
        ("", (1.0,), "INVALID_ARGUMENT", "No regression inputs found"),
    ],
)
def test_regress_errors(client, signature, given, code, message):
    request = regression_pb2.RegressionRequest(input=examples(*given))
    request.model_spec.name = "half"
    request.model_spec.signature_name = signature
    told = refused(lambda: client.predictions.Regress(request))
    assert told[0] == code and message in told[1]


@pytest.mark.parametrize(
    "signature, message",
    [
        ("", "No classification inputs found"),
        ("regress_x", "to contain at least one of"),
        ("x", "No signature was found with the name: x"),
    ],
)
def test_classify_errors(client, signature, message):
    request = classification_pb2.ClassificationRequest(input=examples(1.0))
    request.model_spec.name = "half"
    request.model_spec.signature_name = signature
    told = refused(lambda: client.predictions.Classify(request))
    assert told[0] == "INVALID_ARGUMENT" and message in told[1]


def multi_inference(client, *tasks, given=(1.0,)):
    request = inference_pb2.MultiInferenceRequest(input=examples(*given))
    for model, signature, method in tasks:
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name = model
        task.model_spec.signature_name = signature
    return client.predictions.MultiInference(request)


def test_multi_inference(client):
    response = multi_inference(
        client,
        ("half", "regress_x", "regress"),
        ("half", "classify_x", "classify"),
        given=(1.0, 2.0),
    )
    first, second = response.results
    assert first.model_spec.signature_name == "regress_x"
    assert first.model_spec.version.value == 124
    assert [r.value for r in first.regression_result.regressions] == [3.5, 4.0]
    scores = [
        c.score for r in second.classification_result.classifications for c in r.classes
    ]
    assert scores == [3.5, 4.0]


R = ("half", "regress_x", "regress")


@pytest.mark.parametrize(
    "tasks, code, message",
    [
        ([], "INVALID_ARGUMENT", "at least one task"),
        ([R, ("add", "x", "regress")], "INVALID_ARGUMENT", "the same model name"),
        ([R, R], "INVALID_ARGUMENT", "Duplicate evaluation of signature: regress_x"),
        (
            [("half", "x", "regress")],
            "INVALID_ARGUMENT",
            "signature not found in model",
        ),
        ([("half", "regress_x", "predict")], "UNIMPLEMENTED", "Unsupported signature"),
        (
            [R, ("half", "elsewhere", "regress")],
            "INVALID_ARGUMENT",
            "Input tensor must",
        ),
        ([("foo", "x", "regress")], "NOT_FOUND", "Latest(foo)"),
    ],
)
def test_multi_inference_errors(client, tasks, code, message):
    told = refused(lambda: multi_inference(client, *tasks))
    assert told[0] == code and message in told[1]


def test_metadata(client):
    request = get_model_metadata_pb2.GetModelMetadataRequest()
    request.model_spec.name = "half"
    request.metadata_field.append("signature_def")
    response = client.predictions.GetModelMetadata(request)
    assert response.model_spec.version.value == 124
    found = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(found)
    assert {"serving_default", "regress_x"} < set(found.signature_def)


def test_metadata_has_the_node_that_initializes_a_graph(client):
    # As TensorFlow 2 writes graphs.
    document = client.rest("/v1/models/two/metadata")[1]
    signatures = document["metadata"]["signature_def"]["signature_def"]
    assert set(signatures) == {"serving_default", "__saved_model_init_op"}
    request = get_model_metadata_pb2.GetModelMetadataRequest()
    request.model_spec.name = "two"
    request.metadata_field.append("signature_def")
    response = client.predictions.GetModelMetadata(request)
    found = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(found)
    assert set(found.signature_def) == set(signatures)
    assert client.predict("two", {"x": np.float32([1.0])}).outputs["y"].float_val == [2]
    with pytest.raises(grpc.RpcError) as caught:
        client.predict("two", {}, "__saved_model_init_op")
    assert caught.value.code().name in ("INVALID_ARGUMENT", "OUT_OF_RANGE")


@pytest.mark.parametrize(
    "model, fields, code, message",
    [
        ("half", [], "INVALID_ARGUMENT", "must specify at least one metadata_field"),
        ("half", ["x"], "INVALID_ARGUMENT", "Metadata field x is not supported"),
        ("foo", ["signature_def"], "NOT_FOUND", "Latest(foo)"),
        (None, ["signature_def"], "INVALID_ARGUMENT", "Missing ModelSpec"),
    ],
)
def test_metadata_errors(client, model, fields, code, message):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    if model:
        request.model_spec.name = model
    told = refused(lambda: client.predictions.GetModelMetadata(request))
    assert told[0] == code and message in told[1]


def test_status(client):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "half"
    found = client.models.GetModelStatus(request).model_version_status
    assert [(row.version, row.state) for row in found] == [(124, 30), (123, 30)]
    request.model_spec.version.value = 7
    told = refused(lambda: client.models.GetModelStatus(request))
    assert told == ("NOT_FOUND", "Could not find version 7 of model half")


def test_reload_refuses_what_it_cannot_take_and_changes_nothing(client):
    request = model_management_pb2.ReloadConfigRequest()
    reload = client.models.HandleReloadConfigRequest
    assert refused(lambda: reload(request))[0] == "INVALID_ARGUMENT"
    listed = request.config.model_config_list.config
    for base_path in ("", "/nowhere/at/all"):
        listed.add(name="new", base_path=base_path, model_platform="tensorflow")
        code, details = refused(lambda: reload(request))
        assert code in ("INVALID_ARGUMENT", "NOT_FOUND") and "nowhere" not in details
        del listed[:]
    assert client.rest(HALF)[0] == 200


def test_the_numbers_are_those_of_a_plain_session(client, folder):
    x = np.random.default_rng(0).normal(size=(5, 1)).astype(np.float32)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.saved_model.load(session, ["serve"], str(folder / "half" / "124"))
        expected = session.run("add:0", {"x:0": x})
    response = client.predict(inputs={"x": x})
    np.testing.assert_array_equal(tf.make_ndarray(response.outputs["y"]), expected)
    body = {"instances": x.tolist()}
    found = client.rest(f"{HALF}:predict", body)[1]["predictions"]
    np.testing.assert_array_equal(np.float32(found), expected)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_an_independent_client(client, protocol):
    ovmsclient = pytest.importorskip("ovmsclient")
    make = getattr(ovmsclient, f"make_{protocol}_client")
    one = make(f"127.0.0.1:{client.port if protocol == 'grpc' else client.rest_port}")
    # It asks for version 0 when it is given none.
    status = one.get_model_status("half", model_version=124)
    assert status[124]["state"] == "AVAILABLE"
    metadata = one.get_model_metadata("half", model_version=124)
    if protocol == "grpc":
        assert metadata["inputs"] == {"x": {"shape": [-1, 1], "dtype": "DT_FLOAT"}}
    else:  # It gives back the document.
        assert metadata["model_spec"]["version"] == "124"
    x = np.float32([[1.0], [2.0]])
    found = one.predict({"x": x}, "half", model_version=124)
    np.testing.assert_array_equal(found, [[3.5], [4.0]])
