"""Tiny SavedModels, and servers for them in this or another process."""

import asyncio
import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import grpc
import tensorflow as tf
from tensorflow_serving.apis import (
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from dfdetect.serving import options, server

ROOT = pathlib.Path(__file__).resolve().parents[2]

v1 = tf.compat.v1

_CLASSIFIER = {
    "kind": "classifier",
    "model": "xception",
    "image_size": 96,
    "crop_margin": 1.3,
    "temperature": 1.0,
    "thresholds": {"real_below": 0.25, "fake_from": 0.75, "rates": [0.1]},
    "labels": ["real", "fake"],
    "secret": "/home/someone/data",
}
_DETECTOR = {
    "kind": "detector",
    "phi": 0,
    "image_size": 128,
    "anchor_scale": 4.0,
    "num_classes": 1,
    "score_threshold": 0.3,
    "iou_threshold": 0.5,
    "max_detections": 10,
    "labels": ["head"],
}
# Manifest of a graph of ours.
PIPELINE = {
    "kind": "pipeline",
    "format": 1,
    "max_detections": 10,
    "min_head_size": 24,
    "detector": _DETECTOR,
    "classifier": _CLASSIFIER,
}


def save(folder, signatures):
    """Writes a SavedModel.

    Args:
        folder: New.
        signatures: Builds the graph, and gives inputs, outputs and method by name of
            the signature.
    """
    with tf.Graph().as_default(), v1.Session() as session:
        built = {
            name: v1.saved_model.build_signature_def(
                {k: v1.saved_model.build_tensor_info(v) for k, v in inputs.items()},
                {k: v1.saved_model.build_tensor_info(v) for k, v in outputs.items()},
                f"tensorflow/serving/{method}",
            )
            for name, (inputs, outputs, method) in signatures().items()
        }
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, ["serve"], built)
        builder.save()


def half_plus(number):
    """x / 2 + number as a prediction, and of examples as classes and regressions."""

    def signatures():
        half = v1.get_variable("half", initializer=0.5)
        x = v1.placeholder(tf.float32, [None, 1], "x")
        serialized = v1.placeholder(tf.string, [None], "tf_example")
        parsed = tf.io.parse_example(
            serialized, {"x": tf.io.FixedLenFeature([1], tf.float32, [0.0])}
        )["x"]
        y, of_example = x * half + number, parsed * half + number
        classes = tf.fill(tf.shape(of_example), "half")
        whole = v1.placeholder(tf.string, [None], "other_example")
        return {
            "serving_default": ({"x": x}, {"y": y}, "predict"),
            "regress_x": ({"inputs": serialized}, {"outputs": of_example}, "regress"),
            "classify_x": ({"inputs": serialized}, {"scores": of_example}, "classify"),
            "named": (
                {"inputs": serialized},
                {"scores": of_example, "classes": classes},
                "classify",
            ),
            "labels_only": ({"inputs": serialized}, {"classes": classes}, "classify"),
            "wide": (
                {"inputs": serialized},
                {"outputs": tf.concat([of_example, of_example], 1)},
                "regress",
            ),
            "elsewhere": (
                {"inputs": whole},
                {"outputs": tf.zeros(tf.shape(whole))},
                "regress",
            ),
        }

    return signatures


def adder():
    """Two inputs, several outputs, one of them without a first dimension."""
    a = v1.placeholder(tf.float32, [None], "a")
    b = v1.placeholder(tf.int32, [None], "b")
    total = a + tf.cast(b, tf.float32)
    pairs = {"a": a, "b": b}
    return {
        "serving_default": (pairs, {"sum": total, "b": b + 0}, "predict"),
        "total": (pairs, {"total": tf.reduce_sum(total)}, "predict"),
    }


def strings():
    """Builds signatures of strings by the name of the output."""
    text = v1.placeholder(tf.string, [None], "text")
    return {
        "serving_default": (
            {"text": text},
            {
                "echo": tf.identity(text),
                "echo_bytes": tf.identity(text),
                "size": tf.strings.length(text),
            },
            "predict",
        ),
        "decode": (
            {"text": text},
            {"number": tf.strings.to_number(text)},
            "predict",
        ),
    }


TYPES = {
    tf.float16: 1.5,
    tf.bfloat16: 1.5,
    tf.float32: 0.1,
    tf.float64: 0.1,
    tf.int8: -3,
    tf.uint8: 200,
    tf.int16: -300,
    tf.uint16: 60000,
    tf.int32: -70000,
    tf.uint32: 2**31 + 1,
    tf.int64: -(2**40),
    tf.uint64: 2**63 + 1,
    tf.bool: True,
}


def identities():
    """Builds a signature for each dtype that returns its input."""
    found = {}
    for dtype in [*TYPES, tf.complex64]:
        x = v1.placeholder(dtype, None, f"x_{dtype.name}")
        found[dtype.name] = ({"x": x}, {"y": tf.identity(x)}, "predict")
    return found


def no_heads():
    """Signatures of our graph, which find no head in anything."""
    image_bytes = v1.placeholder(tf.string, [None], "image_bytes")
    zeros = tf.zeros(tf.shape(image_bytes))
    whole = tf.zeros(tf.shape(image_bytes), tf.int32)
    found = {
        "num_heads": whole + 0,
        "boxes": tf.zeros([tf.shape(image_bytes)[0], 10, 4]),
        "head_scores": tf.zeros([tf.shape(image_bytes)[0], 10]),
        "fake_probabilities": tf.zeros([tf.shape(image_bytes)[0], 10]),
        "fake_probability": zeros + float("nan"),
        "status": whole + 1,
    }
    maps = {"heat_map": zeros + 1.0, "fake_probability": zeros + 2.0}
    inputs = {"image_bytes": image_bytes}
    boxes = v1.placeholder(tf.float32, [None, 4], "boxes")
    of_boxes = {"heat_map": boxes[:, 0], "fake_probability": zeros + 2.0}
    return {
        "serving_default": (inputs, found, "predict"),
        "explain": (inputs, maps, "predict"),
        "explain_heads": ({**inputs, "boxes": boxes}, of_boxes, "predict"),
    }


def free_port():
    """Returns a port that is not in use."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def config_text(**models):
    """The text proto of models: by name the path, and what else is to be said."""
    rows = []
    for name, (base_path, rest) in models.items():
        rows.append(
            f'config {{ name: "{name}" base_path: "{base_path}" '
            f'model_platform: "tensorflow" {rest} }}'
        )
    return f"model_config_list {{ {' '.join(rows)} }}"


class Client:
    """Talks to a server over both protocols.

    Args:
        port: Of gRPC.
        rest_port: Of REST.
        token: Sent with each request, when given.
    """

    def __init__(self, port, rest_port, token="", credentials=None, context=None):
        self.port, self.rest_port = port, rest_port
        address = f"localhost:{port}" if credentials else f"127.0.0.1:{port}"
        self.channel = (
            grpc.secure_channel(address, credentials)
            if credentials
            else grpc.insecure_channel(address)
        )
        channel = self.channel
        self.predictions = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(channel)
        scheme = "https" if context else "http"
        host = "localhost" if context else "127.0.0.1"
        self.url = f"{scheme}://{host}:{rest_port}"
        self.context = context
        self.metadata = [("authorization", f"Bearer {token}")] if token else []
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def rest(self, path, body=None, method=None, headers=None):
        """Returns status and JSON, or text, of a response."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, body, self.headers | (headers or {}), method=method
        )
        try:
            with urllib.request.urlopen(
                request, timeout=300, context=self.context
            ) as got:
                status, text = got.status, got.read()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read()
        # Strings may have bytes that are not UTF-8, as with TensorFlow Serving.
        text = text.decode("utf-8", "surrogateescape")
        try:
            return status, json.loads(text)
        except ValueError:
            return status, text

    def predict(self, model="half", inputs=None, signature="", outputs=(), **spec):
        """The response to tensors by name."""
        request = predict_pb2.PredictRequest()
        request.model_spec.name = model
        request.model_spec.signature_name = signature
        if "version" in spec:
            request.model_spec.version.value = spec["version"]
        if "label" in spec:
            request.model_spec.version_label = spec["label"]
        for name, value in (inputs or {}).items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        request.output_filter.extend(outputs)
        return self.predictions.Predict(request, timeout=300, metadata=self.metadata)

    def close(self):
        self.channel.close()


class InProcess:
    """A server in a thread of this process, and its client."""

    def __init__(self, token="", **flags):
        self.port, self.rest_port = free_port(), free_port()
        self.options = options.Options(
            port=self.port,
            rest_api_port=self.rest_port,
            token=token,
            **{
                "file_system_poll_wait_seconds": 0.05,
                "tensorflow_intra_op_parallelism": 1,
                "tensorflow_inter_op_parallelism": 1,
                **flags,
            },
        )
        self.server = server.Server(self.options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._do(self.server.start())
        self.client = Client(self.port, self.rest_port, token)

    def stop(self):
        self._do(self.server.stop())

    def close(self):
        self.client.close()
        self.stop()
        self.server.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(300)


@contextlib.contextmanager
def in_process(**flags):
    """An `InProcess` server that is closed at the end."""
    started = InProcess(**flags)
    try:
        yield started
    finally:
        started.close()


def start_process(*arguments, environment=None):
    """Starts `dfdetect serve` with arguments, and waits until it serves."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dfdetect", "serve", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "serving " in line:
            return process
    process.wait()
    raise AssertionError(f"the server ended with {process.returncode}: {lines}")


def eventually(condition, seconds=20.0):
    """Waits until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.01)


def resident_bytes():
    """Returns the resident memory of this process."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
