"""Asks a model server about images, and prints one line of JSON for each.

    python client.py PATH... [--url=http://localhost:8501] [--model=dfdetect]
    python client.py PATH... --protocol=grpc [--server=localhost:8500]

PATH is an image or a folder (searched recursively). Lines come in the order of the
inputs, with what `dfdetect detect` says of an image except for its size: `path`,
`kind`, `status`, `heads`, `fake_probability` and `verdict`. An image that cannot be
read has a `warning` that says what came and what was wanted; a clip is one of these; an
animated one has a `warning` that only its first frame was judged. A
file that got no answer has the status `failed` and an `error`. `verdict` is the served
graph's own, by the thresholds that it was exported with; a graph that was exported
before it had one gives lines without. With --crops each image is one head, cut out
already: the signature `classify_crops` judges it, and its head is the whole image,
score null.

Standard error has a sentence about one image, and the numbers of several.

A server that does not answer for a few files one after the other ends the run.

Exit code: 0 every file was read, 3 some were not, 2 usage error, 1 the server answered
for no file or its answers could not be written.

This one file can be copied anywhere: it imports nothing of dfdetect. REST needs the
standard library only, gRPC also grpcio and protobuf.
"""

import argparse
import base64
import collections
import concurrent.futures
import contextlib
import http.client
import json
import math
import os
import random
import re
import ssl
import struct
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

# More than the usual 350 lines, because it has to work when it is copied alone.

FAILED, USAGE, UNREAD, INTERRUPTED, PIPE_CLOSED = 1, 2, 3, 130, 141

_STATUS_NAMES = ("ok", "no_head", "unreadable", "too_large", "head_too_small")
_UNREAD = ("unreadable", "too_large", "failed")
# Suffixes of image files, and how the content of images begins; a dot is any byte.
_SUFFIXES = (
    *(".apng", ".bmp", ".dib", ".gif", ".jfif", ".jif", ".jpe", ".jpeg", ".jpg"),
    *(".pjp", ".pjpeg", ".png", ".webp"),
)
_IMAGES = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "GIF": rb"GIF8[79]a",
    "BMP": rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0",
    "WebP": rb"RIFF....WEBP",
}
_WANTED = "JPEG, PNG, BMP (of 8, 24 or 32 bits), GIF or WebP"
# What else is often found in folders of images. Some begin as a clip does.
_OTHERS = {
    "AVIF": rb"....ftypavi[fs]",
    "HEIC": rb"....ftyp(hei[cxms]|hev[cx]|mif1|msf1)",
    "MPEG-4 audio": rb"....ftypM4[ABP] ",
    "Canon raw": rb"....ftypcrx ",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "JPEG XL": rb"\xff\x0a|\0\0\0\x0cJXL ",
    "JPEG 2000": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    "PDF": rb"%PDF-",
    "ZIP": rb"PK\x03\x04",
    "Git LFS pointer": rb"version https://git-lfs",
    "web page": rb"(?i)\s*(<!doctype html|<html|<head)",
    "SVG": rb"(?i)\s*(<\?xml[^>]*>\s*)?<svg",
}
_CLIPS = {
    "MP4 or QuickTime": rb"\0...(ftyp|moov|wide|pnot|skip|free)|....mdat",
    "Matroska or WebM": rb"\x1a\x45\xdf\xa3",
    "AVI": rb"RIFF....AVI[ X]",
    "ASF or WMV": rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
    "Flash video": rb"FLV\x01",
    "MPEG": rb"\0\0\x01[\xb3\xba]",
    "MPEG transport stream": rb"(.{4})?\x47.{187}(.{4})?\x47.{187}(.{4})?\x47",
}
_HEAD_BYTES = 1024
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0  # seconds
_MAX_LOST = 4  # files without an answer, one after the other
_DIGITS = 6  # those of a float32 that are exact
_WHOLE = [0.0, 0.0, 1.0, 1.0]  # the box of a head that is the whole image

_REST_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_REST_RETRIED = (429, 503)  # RESOURCE_EXHAUSTED, UNAVAILABLE
_PORT_IS_GRPC = (
    "the server speaks gRPC at this port; --url must name its port of REST, by default "
    "8501"
)

_GRPC_LOOPBACK = ("localhost", "127.0.0.1", "[::1]", "unix")
_GRPC_RETRIED = ("UNAVAILABLE", "RESOURCE_EXHAUSTED")
_TOO_LARGE = "message larger than max"
# What gRPC says of a server that answers in HTTP/1.
_HTTP1_ANSWERS = ("http1.x server", "Failed parsing HTTP/2")
_PORT_IS_REST = (
    "the server speaks no gRPC at this port; --server must name its port of gRPC, by "
    "default 8500"
)
_PREDICT = "/tensorflow.serving.PredictionService/Predict"
_FLOAT, _INT32, _STRING = 1, 3, 7  # values of tensorflow.DataType

# Number and type of the fields in use, from model.proto, predict.proto, tensor.proto
# and tensor_shape.proto. They are described here because the modules of
# tensorflow-serving-api import the whole of TensorFlow. "+" is repeated, a message is
# named; maps are repeated entries, which is how they travel.
_MESSAGES = {
    "Version": {"value": (1, "int64")},
    "ModelSpec": {
        "name": (1, "string"),
        "version": (2, "Version"),
        "signature_name": (3, "string"),
        "version_label": (4, "string"),
    },
    "Dim": {"size": (1, "int64")},
    "Shape": {"dim": (2, "Dim+")},
    "Tensor": {
        "dtype": (1, "int32"),
        "tensor_shape": (2, "Shape"),
        "tensor_content": (4, "bytes"),
        "float_val": (5, "float+"),
        "int_val": (7, "int32+"),
        "string_val": (8, "bytes+"),
    },
    "Entry": {"key": (1, "string"), "value": (2, "Tensor")},
    "Request": {"model_spec": (1, "ModelSpec"), "inputs": (2, "Entry+")},
    "Response": {"outputs": (1, "Entry+"), "model_spec": (2, "ModelSpec")},
}
_PACKAGE = "dfdetect_client"


class RequestError(Exception):
    """A request failed.

    Attributes:
        passing: Whether the same request may succeed later.
        lost: Whether the server gave no answer, or none in time.
    """

    def __init__(self, message: str, passing: bool = False, lost: bool = False) -> None:
        super().__init__(message)
        self.passing = passing
        self.lost = lost or passing


class Client(Protocol):
    """What asks one signature of one model, by either protocol."""

    def predict(self, content: bytes, deadline: float) -> dict[str, Any]:
        """Returns the outputs for one image by name, without the batch dimension.

        Args:
            content: The bytes of the image file.
            deadline: On the clock of `time.monotonic`.

        Raises:
            RequestError: The server gave no answer, or an error.
        """

    def close(self) -> None:
        """Closes the connections."""


class RestClient:
    """A `Client` over REST that keeps one connection for each thread.

    Args:
        url: URL of the server, `http://` or `https://`.
        path: Path of the model below `url`, with ":predict".
        signature: Name of the model's signature.
        context: Settings of TLS, for `https://`.
        token: Bearer token; "" sends none.
    """

    def __init__(
        self,
        url: str,
        path: str,
        *,
        signature: str,
        context: ssl.SSLContext | None,
        token: str,
    ) -> None:
        self._url = urllib.parse.urlsplit(url)
        self._path = self._url.path.rstrip("/") + path
        self._context = context
        self._signature = signature
        self._headers = {"Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._threads = threading.local()

    def predict(self, content: bytes, deadline: float) -> dict[str, Any]:
        encoded = base64.b64encode(content).decode()
        inputs = {"image_bytes": [{"b64": encoded}]}
        body = json.dumps({"signature_name": self._signature, "inputs": inputs})
        try:
            code, answer = self._post(body, deadline)
        except TimeoutError as error:
            self.close()
            raise RequestError("deadline exceeded", lost=True) from error
        except ssl.SSLCertVerificationError as error:
            self.close()
            raise RequestError(f"the server's certificate: {error}") from error
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if _may_be_grpc(error) and self._is_grpc(deadline):
                raise RequestError(_PORT_IS_GRPC, lost=True) from error
            raise RequestError(f"no answer: {error!r}", passing=True) from error
        try:
            document = json.loads(answer)
            if code == 200:
                return {key: rows[0] for key, rows in document["outputs"].items()}
            message = document["error"]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            message = "not the answer of a model server"
        raise RequestError(f"{code}: {message}", passing=code in _REST_RETRIED)

    def close(self) -> None:
        connection = getattr(self._threads, "connection", None)
        if connection:
            connection.close()

    def _post(self, body: str, deadline: float) -> tuple[int, bytes]:
        connection = getattr(self._threads, "connection", None) or self._connect()
        self._threads.connection = connection
        connection.timeout = _seconds_left(deadline)
        if connection.sock is not None:
            connection.sock.settimeout(connection.timeout)
        connection.request("POST", self._path, body, self._headers)
        response = connection.getresponse()
        parts = []
        while part := response.read1(2**16):
            parts.append(part)
            left = _seconds_left(deadline)
            if connection.sock is not None:
                connection.sock.settimeout(left)
        # Otherwise the connection would not take another request.
        response.close()
        return response.status, b"".join(parts)

    def _is_grpc(self, deadline: float) -> bool:
        """Whether the server answers a short request in HTTP/2, as gRPC does."""
        connection = self._connect()
        try:
            connection.timeout = _seconds_left(deadline)
            connection.request("GET", "/")
            connection.getresponse()
        except http.client.BadStatusLine as error:
            # A SETTINGS frame: a length of three bytes, then its type.
            line = error.args[0]
            return line[:1] == "\0" and line[3:4] == "\4"
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        return False

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._url.hostname or "", self._url.port
        if self._url.scheme == "https":
            return http.client.HTTPSConnection(host, port, context=self._context)
        return http.client.HTTPConnection(host, port)


def _may_be_grpc(error: Exception) -> bool:
    # A long request may be cut off before its answer is read.
    cut_off = isinstance(error, BrokenPipeError | ConnectionResetError)
    return cut_off or isinstance(error, http.client.BadStatusLine)


class GrpcClient:
    """A `Client` over gRPC.

    Args:
        server: Address of the server, `HOST:PORT` or another that gRPC knows.
        model: Name of the model.
        signature: Name of the model's signature.
        version: Version of the model; None leaves it to `label` or the server.
        label: Label of the version; None leaves it to the server.
        certificates: PEM texts of the authorities, our key and our certificate, each of
            which may be None; None instead of the tuple is no TLS.
        token: Bearer token; "" sends none.

    Raises:
        ImportError: grpcio or protobuf is not installed.
    """

    def __init__(
        self,
        server: str,
        model: str,
        *,
        signature: str,
        version: int | None,
        label: str | None,
        certificates: tuple[bytes | None, bytes | None, bytes | None] | None,
        token: str,
    ) -> None:
        import grpc

        self._classes = _message_classes()
        self._spec = self._classes["ModelSpec"](name=model, signature_name=signature)
        if version is not None:
            self._spec.version.value = version
        elif label:
            self._spec.version_label = label
        options = [
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
            ("grpc.lb_policy_name", "round_robin"),
        ]
        if certificates:
            credentials = grpc.ssl_channel_credentials(*certificates)
            self._channel = grpc.secure_channel(server, credentials, options)
        else:
            self._channel = grpc.insecure_channel(server, options)
        self._error = grpc.RpcError
        self._call = self._channel.unary_unary(
            _PREDICT,
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=self._classes["Response"].FromString,
        )
        self._metadata = [("authorization", f"Bearer {token}")] if token else None

    def predict(self, content: bytes, deadline: float) -> dict[str, Any]:
        request = self._classes["Request"](model_spec=self._spec)
        tensor = request.inputs.add(key="image_bytes").value
        tensor.dtype = _STRING
        tensor.tensor_shape.dim.add(size=1)
        tensor.string_val.append(content)
        left = max(deadline - time.monotonic(), 0.0)
        try:
            response = self._call(request, timeout=left, metadata=self._metadata)
        except self._error as error:
            code, details = error.code().name, error.details() or ""
            if any(words in details for words in _HTTP1_ANSWERS):
                raise RequestError(_PORT_IS_REST, lost=True) from error
            raise RequestError(
                f"{code}: {details}",
                passing=code in _GRPC_RETRIED and _TOO_LARGE not in details,
                lost=code == "DEADLINE_EXCEEDED",
            ) from error
        return {entry.key: tensor_values(entry.value)[0] for entry in response.outputs}

    def close(self) -> None:
        self._channel.close()


def _message_classes() -> dict[str, Any]:
    """Builds the classes of `_MESSAGES`, in a pool of their own.

    Raises:
        ImportError: protobuf is not installed.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{_PACKAGE}.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for key, (number, kind) in fields.items():
            described = message.field.add(name=key, number=number)
            repeated, kind = kind.endswith("+"), kind.rstrip("+")
            described.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            if kind in _MESSAGES:
                described.type = field.TYPE_MESSAGE
                described.type_name = f".{_PACKAGE}.{kind}"
            else:
                described.type = getattr(field, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")
        )
        for name in _MESSAGES
    }


def tensor_values(tensor: Any) -> list:
    """Returns the values of a "Tensor" message as nested lists; strings as text.

    Raises:
        ValueError: It holds no float32, int32 or strings, or not as many as it says.
    """
    if tensor.dtype not in (_FLOAT, _INT32, _STRING):
        known = f"{_FLOAT}, {_INT32} or {_STRING}"
        raise ValueError(f"dtype must be {known}, got {tensor.dtype}")
    is_float = tensor.dtype == _FLOAT
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    count = math.prod(shape)
    if tensor.dtype == _STRING:
        flat: list = [value.decode() for value in tensor.string_val]
        if len(flat) != count:
            raise ValueError(f"string_val must have {count} values, got {len(flat)}")
    elif tensor.tensor_content:
        if len(tensor.tensor_content) != 4 * count:
            raise ValueError(
                f"tensor_content must have {4 * count} bytes, "
                f"got {len(tensor.tensor_content)}"
            )
        code = "f" if is_float else "i"
        flat = list(struct.unpack(f"<{count}{code}", tensor.tensor_content))
    else:
        flat = list(tensor.float_val if is_float else tensor.int_val)
        # The last number stands for all that follow; no number at all for zeros.
        flat += [flat[-1] if flat else 0] * (count - len(flat))
    for size in reversed(shape[1:]):
        flat = [
            flat[i * size : (i + 1) * size] for i in range(len(flat) // (size or 1))
        ]
    return flat


def retry(
    request: Callable[[float], dict[str, Any]], *, seconds: float, retries: int
) -> dict[str, Any]:
    """Repeats what fails in passing, with exponential back-off and full jitter.

    Args:
        request: Called with a deadline on the clock of `time.monotonic`.
        seconds: Time of all attempts together.
        retries: Number of attempts after the first; 0 or more.

    Raises:
        RequestError: The error of the last attempt.
    """
    deadline = time.monotonic() + seconds
    for attempt in range(retries + 1):
        try:
            return request(deadline)
        except RequestError as error:
            longest = min(_FIRST_WAIT * 2**attempt, _LONGEST_WAIT)
            wait = random.uniform(0, longest)
            late = time.monotonic() + wait >= deadline
            if not error.passing or attempt == retries or late:
                raise
        time.sleep(wait)
    raise AssertionError("retries must be 0 or more.")


def status_name(number: int) -> str:
    """Returns the name of a status.

    Raises:
        ValueError: No status has that number.
    """
    if not 0 <= number < len(_STATUS_NAMES):
        raise ValueError(f"status must be 0 to {len(_STATUS_NAMES) - 1}, got {number}")
    return _STATUS_NAMES[number]


def result_line(path: str, outputs: dict[str, Any]) -> dict[str, Any]:
    """Builds the line of an image from the outputs of `serving_default`.

    Raises:
        KeyError, IndexError, TypeError, ValueError: They are not those of dfdetect.
    """
    heads = zip(
        outputs["boxes"],
        outputs["head_scores"],
        outputs["fake_probabilities"],
        strict=True,
    )
    return {
        "path": path,
        "kind": "image",
        "status": status_name(outputs["status"]),
        "heads": [
            {
                "box": [_round_number(x) for x in box],
                "score": _round_number(score),
                "fake_probability": _round_number(probability),
            }
            for box, score, probability in list(heads)[: outputs["num_heads"]]
        ],
        "fake_probability": _round_number(outputs["fake_probability"]),
        **_verdict(outputs),
    }


def crop_line(path: str, outputs: dict[str, Any]) -> dict[str, Any]:
    """Builds the line of an image that is one head from those of `classify_crops`."""
    status = status_name(outputs["status"])
    probability = _round_number(outputs["fake_probability"])
    head = {"box": _WHOLE, "score": None, "fake_probability": probability}
    return {
        "path": path,
        "kind": "image",
        "status": status,
        "heads": [head] if status == "ok" else [],
        "fake_probability": probability,
        **_verdict(outputs),
    }


def _verdict(outputs: dict[str, Any]) -> dict[str, str | None]:
    """Returns the verdict under its key; nothing of a graph that gives none."""
    if "verdict" not in outputs:
        return {}
    verdict = outputs["verdict"]
    if not isinstance(verdict, str):
        raise ValueError(f"verdict must be a string, got {verdict!r}")
    return {"verdict": verdict or None}


def failed_line(path: str, error: str) -> dict[str, Any]:
    """Builds the line of a file that got no answer."""
    return _empty_line(path, "image", "failed") | {"error": error}


def unread_line(path: str, kind: str, warning: str) -> dict[str, Any]:
    """Builds the line of a file that is not sent."""
    return _empty_line(path, kind, "unreadable") | {"warning": warning}


def _empty_line(path: str, kind: str, status: str) -> dict[str, Any]:
    empty: dict[str, Any] = {"heads": [], "fake_probability": None, "verdict": None}
    return {"path": path, "kind": kind, "status": status, **empty}


def describe_unread(status: str, content: bytes) -> str:
    """Says what came and what was wanted where an image has no result; else ""."""
    if status == "too_large":
        return "more megapixels than the server takes: 64, or its --max_pixels"
    if status != "unreadable":
        return ""
    kind = "an empty file" if not content else _kind(content)
    if kind in _IMAGES:
        came = f"{kind}, cut short, damaged or of a rare form"
    else:
        came = kind or "of an unknown kind"
    return f"no image that can be decoded: {came}; wanted is {_WANTED}"


def is_animated(content: bytes) -> bool:
    """Whether an image has more than one frame."""
    kind = _kind(content)
    if kind == "GIF":
        return _has_two_frames(content)
    if kind == "WebP":
        return content[12:16] == b"VP8X" and content.count(b"ANMF") > 1
    return kind == "PNG" and b"acTL" in content[: content.find(b"IDAT")]


def _has_two_frames(gif: bytes) -> bool:
    """Whether a GIF has a second frame; walks over the blocks up to it."""
    frames, end = 0, len(gif)
    gif += bytes(16)  # For one that is truncated.

    def skip_table(place: int, flags: int) -> int:
        return place + (3 << (flags % 8 + 1) if flags >= 128 else 0)

    place = skip_table(13, gif[10])
    while place < end and gif[place] in b"\x21\x2c":
        is_frame = gif[place] == 0x2C
        frames += is_frame
        if frames == 2:
            return True
        place = skip_table(place + 11, gif[place + 9]) if is_frame else place + 2
        while place < end and gif[place]:
            place += 1 + gif[place]
        place += 1
    return False


def describe_line(line: dict[str, Any]) -> str:
    """Says in a sentence, for a person, what was found in an image that was read."""
    num_heads, probability = len(line["heads"]), line["fake_probability"]
    if not num_heads:
        return "no head was found, so there is no verdict"
    heads = "1 head" if num_heads == 1 else f"{num_heads} heads"
    if probability is None:
        return f"{heads}, too small to be judged, so there is no verdict"
    whose = "" if num_heads == 1 else "the most suspicious with "
    verdict = line.get("verdict", "no verdict, as the served graph gives none")
    return (
        f"{heads}, {whose}fake probability {probability:.2f}: {verdict} "
        "(for research only)"
    )


def find_images(
    paths: Sequence[str], passed_over: collections.Counter[str]
) -> Iterator[str]:
    """Yields the images that paths name, in their order; those of folders by name.

    Args:
        paths: Files and folders; a file that is named itself is always yielded.
        passed_over: Counter to which the other files in folders are added by kind.

    A folder that cannot be listed is yielded as well, behind what can, for the error
    that opening it gives.
    """
    for path in paths:
        if not os.path.isdir(path):
            yield path
            continue
        unlisted: list[OSError] = []
        for folder, folders, names in os.walk(path, onerror=unlisted.append):
            folders[:] = sorted(name for name in folders if name[0] != ".")
            for name in sorted(name for name in names if name[0] != "."):
                found = os.path.join(folder, name)
                other = _other_kind(found)
                if other:
                    passed_over[other] += 1
                else:
                    yield found
        yield from (os.fspath(error.filename) for error in unlisted)


def _other_kind(path: str) -> str:
    """Names what a file is if not an image, by content or suffix; "" for images."""
    head, suffix = b"", os.path.splitext(path)[1].lower()
    # Reading a pipe would block; a file that cannot be opened is reported later.
    with contextlib.suppress(OSError):
        if os.path.isfile(path):
            with open(path, "rb") as file:
                head = file.read(_HEAD_BYTES)
    kind = _kind(head)
    if kind in _IMAGES or suffix in _SUFFIXES:
        return ""
    return kind or suffix or "without ending"


def _kind(content: bytes) -> str:
    """Names the kind of a file by how it begins; "" where it is not known."""
    for kinds in (_OTHERS, _IMAGES, _CLIPS):
        for kind, pattern in kinds.items():
            if re.match(pattern, content[:_HEAD_BYTES], re.DOTALL):
                return kind
    return ""


class Answer(NamedTuple):
    """What is known of a file.

    Attributes:
        line: Its line.
        problem: Why there is no result; "" where there is one.
        is_asked: Whether the server was asked about it.
        is_answered: Whether the server answered for it.
        is_lost: Whether the server was asked and did not answer.
    """

    line: dict[str, Any]
    problem: str = ""
    is_asked: bool = True
    is_answered: bool = False
    is_lost: bool = False


def ask_about_file(
    path: str,
    predict: Callable[[bytes], dict[str, Any]],
    build_line: Callable[[str, dict[str, Any]], dict[str, Any]],
) -> Answer:
    """Reads a file and asks the server about it.

    Args:
        path: Path of the file.
        predict: Returns the outputs for the bytes of an image.
        build_line: Builds the line from the path and the outputs.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_HEAD_BYTES)
            kind = _kind(content)
            if kind in _CLIPS:
                problem = (
                    f"a clip ({kind}); wanted is an image: {_WANTED}; "
                    "`dfdetect detect` judges clips"
                )
                line = unread_line(path, "video", problem)
                return Answer(line, problem, is_asked=False)
            content += file.read()
    except OSError as error:
        problem = error.strerror or str(error)
        line = unread_line(path, "image", problem)
        return Answer(line, problem, is_asked=False)
    try:
        line = build_line(path, predict(content))
    except RequestError as error:
        problem = str(error)
        return Answer(failed_line(path, problem), problem, is_lost=error.lost)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        problem = f"not the outputs of dfdetect: {error!r}"
        return Answer(failed_line(path, problem), problem)
    problem = describe_unread(line["status"], content)
    if problem:
        line["warning"] = problem
    elif is_animated(content):
        line["warning"] = "animated: only its first frame was judged"
    return Answer(line, problem, is_answered=True)


def ask_about_files(
    ask: Callable[[str], Answer],
    paths: Iterator[str],
    *,
    concurrency: int,
    passed_over: collections.Counter[str],
) -> int:
    """Prints the line of each image as soon as those before it are known.

    Ends early when the server gave no answer for a few images one after the other, each
    of which was retried.

    Args:
        ask: Returns what is known of a path.
        paths: Paths of the images.
        concurrency: Number of requests at a time.
        passed_over: What `find_images` counts meanwhile.

    Returns:
        The exit code.
    """
    told = _Told()
    max_lost = max(_MAX_LOST, concurrency)
    with concurrent.futures.ThreadPoolExecutor(concurrency) as pool:
        waiting: collections.deque[concurrent.futures.Future] = collections.deque()
        try:
            for path in paths:
                waiting.append(pool.submit(ask, path))
                if len(waiting) > 4 * concurrency:
                    told.tell(waiting.popleft().result())
                if told.num_lost >= max_lost:
                    break
            while waiting and told.num_lost < max_lost:
                told.tell(waiting.popleft().result())
            if waiting:
                number = told.num_lost
                warn(f"gave up: no answer for {number} files one after the other")
                pool.shutdown(wait=False, cancel_futures=True)
                return UNREAD if told.num_answered else FAILED
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    told.sum_up(passed_over)
    return told.exit_code()


class _Told:
    """Prints lines, and counts them.

    Attributes:
        num_answered: Files that the server answered for.
        num_lost: Files without an answer, one after the other, up to now.
    """

    def __init__(self) -> None:
        self.num_answered = self.num_lost = 0
        self._outcomes: collections.Counter[str] = collections.Counter()
        self._statuses: collections.Counter[str] = collections.Counter()
        self._last: dict[str, Any] = {}

    def tell(self, answer: Answer) -> None:
        """Prints a line, and its warning, or why it has no result."""
        line = self._last = answer.line
        self.num_answered += answer.is_answered
        if answer.is_asked:
            self.num_lost = self.num_lost + 1 if answer.is_lost else 0
        self._outcomes[line.get("verdict") or line["status"]] += 1
        self._statuses[line["status"]] += 1
        try:
            print(json.dumps(line), flush=True)
        except OSError as error:  # A full disk.
            raise type(error)(error.errno, error.strerror, "standard output") from error
        if told := answer.problem or line.get("warning"):
            warn(f"{line['path']!r}: {told}")

    def sum_up(self, passed_over: collections.Counter[str]) -> None:
        """Says what was found in all, or in the only image."""
        number = sum(self._statuses.values())
        if number > 1:
            found = ", ".join(f"{n} {name}" for name, n in self._outcomes.items())
            warn(f"{number} files: {found}")
        elif number and self._last["status"] not in _UNREAD:
            warn(f"{self._last['path']!r}: {describe_line(self._last)}")
        if passed_over:
            number = sum(passed_over.values())
            kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(passed_over.items()))
            warn(f"passed over {number} file{'s' if number > 1 else ''}: {kinds}")

    def exit_code(self) -> int:
        """Returns the exit code of a run that came to its end."""
        if not self._statuses:
            warn("no images")
            return USAGE
        if self._statuses["failed"] and not self.num_answered:
            return FAILED
        return UNREAD if any(self._statuses[name] for name in _UNREAD) else 0


def warn(message: str) -> None:
    """Prints a message on standard error."""
    print(f"client.py: {message}", file=sys.stderr, flush=True)


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("paths", nargs="+", metavar="PATH")
    add("--protocol", choices=("rest", "grpc"), default="rest", help="default: rest")
    add("--url", help="of the server, for REST; default: http://localhost:8501")
    add(
        "--server",
        help="HOST:PORT, for gRPC; with dns:///HOST:PORT, requests go round all its "
        "addresses; default: localhost:8500",
    )
    add("--model", default="dfdetect", help="its name on the server")
    add("--crops", action="store_true", help="each image is one head, cut out already")
    version = parser.add_mutually_exclusive_group()
    version.add_argument("--version", type=int, help="by default the server's choice")
    version.add_argument("--label", help="of a version, such as stable or canary")
    add("--concurrency", type=_whole(1), default=8, help="requests at a time")
    add("--deadline", type=_seconds, default=60.0, help="seconds for one file in all")
    add(
        "--retries",
        type=_whole(0),
        default=6,
        help="of what is unavailable or exhausted (429, 503) and of lost connections",
    )
    add("--tls", action="store_true", help="encrypt gRPC; see --ca")
    add(
        "--ca",
        metavar="FILE",
        help="authorities, for https or gRPC; implies --tls with gRPC",
    )
    add("--cert", metavar="FILE", help="our certificate, for https or --tls")
    add("--key", metavar="FILE", help="its key")
    add(
        "--token_file",
        metavar="FILE",
        help="bearer token; by default the variable DFDETECT_TOKEN, if it is set",
    )
    return parser


def connect_rest(flags: argparse.Namespace, signature: str) -> Client:
    """Returns the client over REST that flags ask for.

    Raises:
        ValueError: Flags do not go together.
        OSError: A file that they name cannot be read.
    """
    if flags.server or flags.tls:
        raise ValueError("--server and --tls need --protocol=grpc")
    base = "http://localhost:8501" if flags.url is None else flags.url
    url = urllib.parse.urlsplit(base)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError(f"--url must begin with http:// or https://, got {base}")
    if bool(flags.cert) != bool(flags.key):
        raise ValueError("--cert and --key go together")
    if url.scheme == "http" and (flags.ca or flags.cert):
        raise ValueError("--ca, --cert and --key need --url=https://...")
    token = read_token(flags.token_file)
    context = ssl.create_default_context(cafile=flags.ca)
    if flags.cert:
        context.load_cert_chain(flags.cert, flags.key)
    if token and url.scheme == "http" and url.hostname not in _REST_LOOPBACK:
        raise ValueError("a token is only sent to another machine by --url=https://...")
    path = f"/v1/models/{urllib.parse.quote(flags.model, safe='')}"
    if flags.version is not None:
        path += f"/versions/{flags.version}"
    elif flags.label:
        path += f"/labels/{urllib.parse.quote(flags.label, safe='')}"
    return RestClient(
        base, f"{path}:predict", signature=signature, context=context, token=token
    )


def connect_grpc(flags: argparse.Namespace, signature: str) -> Client:
    """Returns the client over gRPC that flags ask for.

    Raises:
        ValueError: Flags do not go together.
        OSError: A file that they name cannot be read.
        ImportError: grpcio or protobuf is not installed.
    """
    if flags.url is not None:
        raise ValueError("--url needs --protocol=rest; gRPC has --server=HOST:PORT")
    server = "localhost:8500" if flags.server is None else flags.server
    tls = flags.tls or bool(flags.ca)
    if bool(flags.cert) != bool(flags.key):
        raise ValueError("--cert and --key go together")
    if flags.cert and not tls:
        raise ValueError("--cert and --key need --tls or --ca")
    token = read_token(flags.token_file)
    files = _read(flags.ca), _read(flags.key), _read(flags.cert)
    host = server.rsplit("/", 1)[-1].rsplit(":", 1)[0]
    if token and not tls and host not in _GRPC_LOOPBACK:
        raise ValueError("a token is only sent to another machine with --tls or --ca")
    try:
        return GrpcClient(
            server,
            flags.model,
            signature=signature,
            version=flags.version,
            label=flags.label,
            certificates=files if tls else None,
            token=token,
        )
    except ImportError as error:
        raise ImportError(
            f"--protocol=grpc needs grpcio and protobuf (pip install grpcio protobuf): "
            f"{error}"
        ) from error


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    flags = parser.parse_args(argv)
    signature = "classify_crops" if flags.crops else "serving_default"
    build_line = crop_line if flags.crops else result_line
    connect = {"rest": connect_rest, "grpc": connect_grpc}[flags.protocol]
    try:
        client = connect(flags, signature)
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))

    def predict(content: bytes) -> dict[str, Any]:
        return retry(
            lambda deadline: client.predict(content, deadline),
            seconds=flags.deadline,
            retries=flags.retries,
        )

    try:
        passed_over: collections.Counter[str] = collections.Counter()
        return ask_about_files(
            lambda path: ask_about_file(path, predict, build_line),
            find_images(flags.paths, passed_over),
            concurrency=flags.concurrency,
            passed_over=passed_over,
        )
    except KeyboardInterrupt:
        warn("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        _give_up_output()
        return PIPE_CLOSED
    except OSError as error:
        warn(f"{error.filename}: {error.strerror}")
        _give_up_output()
        return FAILED
    finally:
        client.close()


def _give_up_output() -> None:
    """Replaces standard output, so that closing it does not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def read_token(path: str | None) -> str:
    """Reads the bearer token from a file, else from the environment; "" if neither.

    Raises:
        OSError: The file cannot be read.
        ValueError: The token is empty or no single word.
    """
    token = os.environ.get("DFDETECT_TOKEN", "")
    if path:
        with open(path, encoding="utf-8") as file:
            token = file.read().strip()
        if not token:
            raise ValueError(f"no token in {path}")
    if not all("!" <= character <= "~" for character in token):
        raise ValueError("the token must be one word of ASCII")
    return token


def _read(path: str | None) -> bytes | None:
    if path is None:
        return None
    with open(path, "rb") as file:
        return file.read()


def _seconds_left(deadline: float) -> float:
    """Returns the seconds until the deadline.

    Raises:
        TimeoutError: It has passed.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _round_number(value: float) -> float | None:
    value = round(float(value), _DIGITS)
    return None if math.isnan(value) else value


def _whole(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(
                f"a whole number from {least} on, not {text!r}"
            )
        return int(text)

    return parse


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"seconds above 0, not {text!r}")
    return value


if __name__ == "__main__":
    sys.exit(main())
