"""A server to measure, and connections of clients that load it with images."""

import base64
import contextlib
import http.client
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from dfdetect.media import image_status

TIMEOUT = 300.0  # Seconds of a request.

_TICK = 0.02
_PAUSE = 0.05  # Of a client after an error.

# Sends an image; raises the error of the answer.
Ask = Callable[[bytes], None]


def connect(protocol: str, port: int, model: str, signature: str) -> Ask:
    """Opens a connection to a server on this machine.

    Args:
        protocol: "grpc" or "rest".
        port: Port of the protocol.
        model: Name of the model.
        signature: One of encoded images that gives a `status`.

    Returns:
        A function that sends an image and waits for its answer. It raises
        `grpc.RpcError`, `OSError`, `http.client.HTTPException`, or RuntimeError where
        the answer is an error or the image was not read.
    """
    open_connection = {"grpc": _connect_grpc, "rest": _connect_rest}[protocol]
    return open_connection(port, model, signature)


def connect_each_time(protocol: str, port: int, model: str, signature: str) -> Ask:
    """As `connect`, but every image is sent over a connection of its own."""
    return lambda image: connect(protocol, port, model, signature)(image)


class Answer(NamedTuple):
    """The answer to a request.

    Attributes:
        begun: When it was sent, of `time.monotonic`.
        seconds: How long it took.
        problem: The error; "" where there was none.
    """

    begun: float
    seconds: float
    problem: str


class Load:
    """Clients that each send one image after the other until they are stopped.

    Args:
        clients: What sends an image, of each client.
        images: Encoded images, which the clients send in turns.

    Attributes:
        answers: Of all clients, in the order in which they came.
    """

    def __init__(self, clients: Sequence[Ask], images: Sequence[bytes]) -> None:
        self.answers: list[Answer] = []  # Appending is atomic.
        self._images = images
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(
                target=self._send, args=(ask, i, len(clients)), daemon=True
            )
            for i, ask in enumerate(clients)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def problems(self) -> list[str]:
        """The errors so far."""
        return [answer.problem for answer in list(self.answers) if answer.problem]

    def wait_for(self, count: int) -> None:
        """Waits until so many requests have been answered or have failed."""
        while len(self.answers) < count:
            time.sleep(_TICK)

    def stop(self) -> None:
        """Stops the clients after their present requests."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _send(self, ask: Ask, number: int, step: int) -> None:
        while not self._stopping.is_set():
            begun, problem = time.monotonic(), ""
            try:
                ask(self._images[number % len(self._images)])
            except Exception as error:  # Whatever it is, the request is lost.
                problem = f"{type(error).__name__}: {error}"
            self.answers.append(Answer(begun, time.monotonic() - begun, problem))
            if problem:
                time.sleep(_PAUSE)
            number += step


class Server(NamedTuple):
    """A running `dfdetect serve`.

    Attributes:
        process: Its process.
        port: Its port of gRPC.
        rest_port: Its port of REST.
    """

    process: subprocess.Popen
    port: int
    rest_port: int


@contextlib.contextmanager
def run_server(base: str, model: str, *arguments: str) -> Iterator[Server]:
    """Runs a server on free ports, from when a version of its model is available.

    Args:
        base: Folder of the versions.
        model: Name of the model.
        *arguments: Further flags.

    Raises:
        RuntimeError: It ended before; the message has the end of what it said.
    """
    ports = []
    for _ in range(2):
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            ports.append(found.getsockname()[1])
    command = [sys.executable, "-m", "dfdetect", "serve", *arguments]
    command += [f"--model_base_path={base}", f"--model_name={model}"]
    command += [f"--port={ports[0]}", f"--rest_api_port={ports[1]}"]
    with tempfile.TemporaryFile("w+") as messages:
        process = subprocess.Popen(command, stderr=messages)
        try:
            while "AVAILABLE" not in read_states(ports[1], model).values():
                if process.poll() is not None:
                    messages.seek(0)
                    raise RuntimeError(f"no server: {messages.read()[-1000:]}")
                time.sleep(0.2)
            yield Server(process, *ports)
        finally:
            process.terminate()
            process.wait()


def read_states(rest_port: int, model: str) -> dict[int, str]:
    """Reads the states of a model's versions; none while the server does not answer."""
    url = f"http://127.0.0.1:{rest_port}/v1/models/{model}"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            rows = json.load(answer)["model_version_status"]
    except OSError:
        return {}
    return {int(row["version"]): row["state"] for row in rows}


def _connect_grpc(port: int, model: str, signature: str) -> Ask:
    # Imported here, as they are slow, and not needed over REST.
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    channel = grpc.insecure_channel(
        f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)]
    )
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def ask(image: bytes) -> None:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = model
        request.model_spec.signature_name = signature
        request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([image]))
        answer = stub.Predict(request, timeout=TIMEOUT)
        _check(answer.outputs["status"].int_val[0])

    return ask


def _connect_rest(port: int, model: str, signature: str) -> Ask:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)

    def ask(image: bytes) -> None:
        instances = [{"b64": base64.b64encode(image).decode()}]
        body = json.dumps({"signature_name": signature, "instances": instances})
        connection.request("POST", f"/v1/models/{model}:predict", body)
        answer = connection.getresponse()
        document = json.loads(answer.read())
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {document}")
        _check(document["predictions"][0]["status"])

    return ask


def _check(status: int) -> None:
    if status in (image_status.UNREADABLE, image_status.TOO_LARGE):
        raise RuntimeError(f"the image has the status {status}")
