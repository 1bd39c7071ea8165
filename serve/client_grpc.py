"""Asks a model server about images over gRPC, and prints one line of JSON for each.

    python serve/client_grpc.py PATH... [--server=localhost:8500] [--model=dfdetect]

PATH is an image or a folder (searched recursively). Lines come in the order of the
inputs, with what `dfdetect detect` says of an image but for its size and verdict:
`path`, `status`, `heads` and `fake_probability`. A file that got no answer has the
status `failed` and an `error`. With --crops each image is one head, cut out already:
the signature `classify_crops` judges it, and its head is the whole image, score null.

A server that answers for none of a few files one after the other ends the run.

Exit code: 0 every file was read, 3 some were not, 2 usage error, 1 the server answered
for none.

Needs grpcio and protobuf, nothing of dfdetect: copy it where you like. The few messages
that it sends and reads are described below, because those of tensorflow-serving-api
import the whole of TensorFlow.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import json
import math
import os
import random
import re
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

FAILED, USAGE, UNREAD, INTERRUPTED, PIPE_CLOSED = 1, 2, 3, 130, 141

_STATUS_NAMES = ("ok", "no_head", "unreadable", "too_large", "head_too_small")
_UNREAD = ("unreadable", "too_large", "failed")
# Endings of images, and how the content of images begins, a dot being any byte.
_SUFFIXES = (
    *(".apng", ".bmp", ".dib", ".gif", ".jfif", ".jif", ".jpe", ".jpeg", ".jpg"),
    *(".pjp", ".pjpeg", ".png", ".webp"),
)
_IMAGES = (
    *(rb"\xff\xd8\xff", rb"\x89PNG\r\n\x1a\n", rb"GIF8[79]a", rb"RIFF....WEBP"),
    rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0",
)
# Of what is often in folders of images, for those who ask where theirs are.
_OTHERS = {
    "AVIF": rb"....ftypavi[fs]",
    "HEIC": rb"....ftyp(hei[cxms]|hev[cx]|mif1|msf1)",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "JPEG XL": rb"\xff\x0a|\0\0\0\x0cJXL ",
    "JPEG 2000": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    "clips": rb"\0...(ftyp|moov|wide)|\x1a\x45\xdf\xa3|RIFF....AVI |\0\0\x01[\xb3\xba]",
}
_HEAD_BYTES = 64
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]", "unix")
_RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
_TOO_LARGE = "message larger than max"
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0  # seconds
# What gRPC says of a server that answers in HTTP/1.
_OF_REST = ("http1.x server", "Failed parsing HTTP/2")
_REST = (
    "the server speaks no gRPC at this port; --server must name its port of gRPC, by "
    "default 8500"
)
_MOST_LOST = 4  # files without an answer, one after the other
_DIGITS = 6  # what is sure of a float32
_WHOLE = [0.0, 0.0, 1.0, 1.0]  # the box of a head that is the whole image

_PREDICT = "/tensorflow.serving.PredictionService/Predict"
_FLOAT, _INT32, _STRING = 1, 3, 7  # of tensorflow.DataType

# Number and type of the fields that we use: of model.proto, predict.proto,
# tensor.proto and tensor_shape.proto. "+" is repeated, a message is named; maps are
# repeated entries, which is how they travel.
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


def _messages() -> dict[str, Any]:
    """The classes of `_MESSAGES`, apart from whatever else is loaded."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="client_grpc.proto", package="client_grpc", syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for key, (number, kind) in fields.items():
            described = message.field.add(name=key, number=number)
            repeated, kind = kind.endswith("+"), kind.rstrip("+")
            described.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            if kind in _MESSAGES:
                described.type = field.TYPE_MESSAGE
                described.type_name = f".client_grpc.{kind}"
            else:
                described.type = getattr(field, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"client_grpc.{name}")
        )
        for name in _MESSAGES
    }


_CLASSES = _messages()


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


class Client:
    """Sends images to one model.

    Args:
        channel: To the server.
        spec: A "ModelSpec".
        token: Sent as bearer token unless empty.
    """

    def __init__(self, channel: grpc.Channel, spec: Any, token: str = "") -> None:
        self._call = channel.unary_unary(
            _PREDICT,
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=_CLASSES["Response"].FromString,
        )
        self._spec = spec
        self._metadata = [("authorization", f"Bearer {token}")] if token else None

    def predict(self, content: bytes, deadline: float) -> dict[str, Any]:
        """The outputs for one image.

        Args:
            content: The bytes of its file.
            deadline: On the clock of `time.monotonic`.

        Raises:
            RequestError: There is no answer, or an error.
        """
        request = _CLASSES["Request"](model_spec=self._spec)
        tensor = request.inputs.add(key="image_bytes").value
        tensor.dtype = _STRING
        tensor.tensor_shape.dim.add(size=1)
        tensor.string_val.append(content)
        left = max(deadline - time.monotonic(), 0.0)
        try:
            response = self._call(request, timeout=left, metadata=self._metadata)
        except grpc.RpcError as error:
            code, details = error.code(), error.details() or ""
            if any(words in details for words in _OF_REST):
                raise RequestError(_REST, lost=True) from error
            raise RequestError(
                f"{code.name}: {details}",
                passing=code in _RETRIED and _TOO_LARGE not in details,
                lost=code == grpc.StatusCode.DEADLINE_EXCEEDED,
            ) from error
        return {entry.key: values(entry.value)[0] for entry in response.outputs}


def values(tensor: Any) -> list:
    """The numbers of a "Tensor" as lists in lists.

    Raises:
        ValueError: It holds neither float32 nor int32, or not as many as it says.
    """
    if tensor.dtype not in (_FLOAT, _INT32):
        raise ValueError(f"dtype must be {_FLOAT} or {_INT32}, got {tensor.dtype}")
    is_float = tensor.dtype == _FLOAT
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    count = math.prod(shape)
    if tensor.tensor_content:
        if len(tensor.tensor_content) != 4 * count:
            raise ValueError(f"{count} numbers wanted")
        code = "f" if is_float else "i"
        flat = list(struct.unpack(f"<{count}{code}", tensor.tensor_content))
    else:
        flat = list(tensor.float_val if is_float else tensor.int_val)
        # The last number stands for all that follow; none at all for zeros.
        flat += [flat[-1] if flat else 0] * (count - len(flat))
    for size in reversed(shape[1:]):
        flat = [
            flat[i * size : (i + 1) * size] for i in range(len(flat) // (size or 1))
        ]
    return flat


def retried(
    request: Callable[[float], dict[str, Any]], seconds: float, retries: int
) -> dict[str, Any]:
    """Repeats what fails in passing, with exponential back-off and full jitter.

    Args:
        request: Takes a deadline.
        seconds: For all attempts together.
        retries: Attempts after the first.

    Raises:
        RequestError: Of the last attempt.
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
    """The name of a status.

    Raises:
        ValueError: There is none of that number.
    """
    if not 0 <= number < len(_STATUS_NAMES):
        raise ValueError(f"status must be 0 to {len(_STATUS_NAMES) - 1}, got {number}")
    return _STATUS_NAMES[number]


def result_line(path: str, outputs: dict[str, Any]) -> dict[str, Any]:
    """What is said of an image, by the outputs for it."""
    heads = zip(
        outputs["boxes"],
        outputs["head_scores"],
        outputs["fake_probabilities"],
        strict=True,
    )
    return {
        "path": path,
        "status": status_name(outputs["status"]),
        "heads": [
            {
                "box": [_number(x) for x in box],
                "score": _number(score),
                "fake_probability": _number(probability),
            }
            for box, score, probability in list(heads)[: outputs["num_heads"]]
        ],
        "fake_probability": _number(outputs["fake_probability"]),
    }


def crop_line(path: str, outputs: dict[str, Any]) -> dict[str, Any]:
    """What is said of an image that is one head, by the outputs of `classify_crops`."""
    status = status_name(outputs["status"])
    probability = _number(outputs["fake_probability"])
    head = {"box": _WHOLE, "score": None, "fake_probability": probability}
    return {
        "path": path,
        "status": status,
        "heads": [head] if status == "ok" else [],
        "fake_probability": probability,
    }


def failed_line(path: str, status: str, error: str) -> dict[str, Any]:
    """What is said of an image that got no outputs."""
    empty = {"heads": [], "fake_probability": None}
    return {"path": path, "status": status, **empty, "error": error}


def find(paths: Sequence[str], passed_over: collections.Counter[str]) -> Iterator[str]:
    """The images that paths name, in their order; of folders, in that of names.

    Args:
        paths: Files and folders; a file that is named outright is taken.
        passed_over: To it, the files in folders that are no images are added by kind.
    """
    for path in paths:
        if not os.path.isdir(path):
            yield path
            continue
        for folder, folders, names in os.walk(path):
            folders[:] = sorted(name for name in folders if name[0] != ".")
            for name in sorted(name for name in names if name[0] != "."):
                found = os.path.join(folder, name)
                other = _other_kind(found)
                if other:
                    passed_over[other] += 1
                else:
                    yield found


def _other_kind(path: str) -> str:
    """What a file is that is no image, by its content or else its ending; or ""."""
    head, ending = b"", os.path.splitext(path)[1].lower()
    # A pipe would be waited for; a file that cannot be opened is told later.
    with contextlib.suppress(OSError):
        if os.path.isfile(path):
            with open(path, "rb") as file:
                head = file.read(_HEAD_BYTES)
    if ending in _SUFFIXES or any(re.match(x, head, re.DOTALL) for x in _IMAGES):
        return ""
    for kind, pattern in _OTHERS.items():
        if re.match(pattern, head, re.DOTALL):
            return kind
    return ending or "without ending"


def run(
    ask: Callable[[str], tuple[dict[str, Any], bool]],
    paths: Iterator[str],
    concurrency: int,
    passed_over: collections.Counter[str],
) -> int:
    """Prints the line of each image as soon as those before it are known.

    Ends when the server has answered for none of a few images one after the other,
    each of which was asked for again and again.

    Args:
        ask: Gives the line of a path, and whether the server did not answer.
        paths: Of the images.
        concurrency: Requests at a time.
        passed_over: What `find` counts meanwhile.

    Returns:
        The exit code.
    """
    seen: collections.Counter[str] = collections.Counter()
    lost = 0  # One after the other.
    most_lost = max(_MOST_LOST, concurrency)
    with concurrent.futures.ThreadPoolExecutor(concurrency) as pool:
        waiting: collections.deque[concurrent.futures.Future] = collections.deque()

        def print_next() -> None:
            nonlocal lost
            line, is_lost = waiting.popleft().result()
            lost = lost + 1 if is_lost else 0
            seen[line["status"]] += 1
            seen["answered"] += "error" not in line
            print(json.dumps(line), flush=True)
            if "error" in line:
                say(f"{line['path']!r}: {line['error']}")
            elif line["status"] in _UNREAD:
                say(f"{line['path']!r}: {line['status'].replace('_', ' ')}")

        try:
            for path in paths:
                waiting.append(pool.submit(ask, path))
                if len(waiting) > 4 * concurrency:
                    print_next()
                if lost >= most_lost:
                    break
            while waiting and lost < most_lost:
                print_next()
            if waiting:
                say(f"gave up: no answer for {lost} files one after the other")
                pool.shutdown(wait=False, cancel_futures=True)
                return UNREAD if seen["answered"] else FAILED
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if passed_over:
        number = sum(passed_over.values())
        kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(passed_over.items()))
        say(f"passed over {number} file{'s' if number > 1 else ''}: {kinds}")
    if not seen:
        say("no images")
        return USAGE
    if seen["failed"] and not seen["answered"]:
        return FAILED
    return UNREAD if any(seen[status] for status in _UNREAD) else 0


def say(message: str) -> None:
    """Tells the person, on standard error."""
    print(f"client_grpc.py: {message}", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="+", metavar="PATH")
    parser.add_argument(
        "--server",
        default="localhost:8500",
        help="HOST:PORT; with dns:///HOST:PORT, requests go round all its addresses",
    )
    parser.add_argument("--model", default="dfdetect", help="its name on the server")
    parser.add_argument(
        "--crops", action="store_true", help="each image is one head, cut out already"
    )
    version = parser.add_mutually_exclusive_group()
    version.add_argument("--version", type=int, help="by default the server's choice")
    version.add_argument("--label", help="of a version, such as stable or canary")
    parser.add_argument(
        "--concurrency", type=_whole(1), default=8, help="requests at a time"
    )
    parser.add_argument(
        "--deadline", type=_seconds, default=60.0, help="seconds for one file in all"
    )
    parser.add_argument(
        "--retries",
        type=_whole(0),
        default=6,
        help="of UNAVAILABLE and RESOURCE_EXHAUSTED",
    )
    parser.add_argument("--tls", action="store_true", help="encrypt; see --ca")
    parser.add_argument("--ca", metavar="FILE", help="authorities; implies --tls")
    parser.add_argument("--cert", metavar="FILE", help="our certificate, for --tls")
    parser.add_argument("--key", metavar="FILE", help="its key")
    parser.add_argument(
        "--token_file",
        metavar="FILE",
        help="bearer token; by default the variable DFDETECT_TOKEN, if it is set",
    )
    flags = parser.parse_args(argv)
    tls = flags.tls or bool(flags.ca)
    if bool(flags.cert) != bool(flags.key):
        parser.error("--cert and --key go together")
    if flags.cert and not tls:
        parser.error("--cert and --key need --tls or --ca")
    try:
        token = read_token(flags.token_file)
        ca, cert, key = (_read(x) for x in (flags.ca, flags.cert, flags.key))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    host = flags.server.rsplit("/", 1)[-1].rsplit(":", 1)[0]
    if token and not tls and host not in _LOOPBACK:
        parser.error("a token is only sent to another machine with --tls or --ca")

    signature = "classify_crops" if flags.crops else "serving_default"
    describe = crop_line if flags.crops else result_line
    spec = _CLASSES["ModelSpec"](name=flags.model, signature_name=signature)
    if flags.version is not None:
        spec.version.value = flags.version
    elif flags.label:
        spec.version_label = flags.label
    options = [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        ("grpc.lb_policy_name", "round_robin"),
    ]
    if tls:
        credentials = grpc.ssl_channel_credentials(ca, key, cert)
        channel = grpc.secure_channel(flags.server, credentials, options)
    else:
        channel = grpc.insecure_channel(flags.server, options)
    client = Client(channel, spec, token)

    def ask(path: str) -> tuple[dict[str, Any], bool]:
        try:
            with open(path, "rb") as file:
                content = file.read()
        except OSError as error:
            reason = error.strerror or str(error)
            return failed_line(path, "unreadable", reason), False
        try:
            outputs = retried(
                lambda deadline: client.predict(content, deadline),
                flags.deadline,
                flags.retries,
            )
            return describe(path, outputs), False
        except RequestError as error:
            return failed_line(path, "failed", str(error)), error.lost
        except (KeyError, IndexError, TypeError, ValueError) as error:
            reason = f"not the outputs of dfdetect: {error}"
            return failed_line(path, "failed", reason), False

    try:
        with channel:
            passed_over: collections.Counter[str] = collections.Counter()
            paths = find(flags.paths, passed_over)
            return run(ask, paths, flags.concurrency, passed_over)
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED


def read_token(path: str | None) -> str:
    """The bearer token of a file, else of the environment, else "".

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


def _number(value: float) -> float | None:
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
