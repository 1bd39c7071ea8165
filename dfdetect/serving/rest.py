"""The REST protocol, and the metrics, over HTTP."""

import functools
import json
import re
import time
import urllib.parse
from collections.abc import Sequence
from typing import Any

import tornado.httpserver
import tornado.web
from google.protobuf import json_format
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
)

from dfdetect.serving import errors, metrics, security, service

_API = re.compile(r"/v1/.*", re.I)
_MODEL = r"/v1/models/([^/:]+)(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?"
_PREDICT = re.compile(_MODEL + r":(classify|regress|predict)", re.I | re.A)
_STATUS = re.compile(
    r"/v1/models(?:/([^/:]+))?(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?"
    r"(?:/(metadata))?",
    re.I | re.A,
)


class Api:
    """Answers requests by their method and path, without a web server's part in it.

    Args:
        served: See `service.Service`.
        timeout: Seconds after which a request is not begun.
    """

    def __init__(self, served: service.Service, timeout: float) -> None:
        self._service = served
        self._timeout = timeout

    async def answer(self, method: str, path: str, body: bytes) -> bytes:
        """The JSON of an answer.

        Raises:
            errors.ServingError: There is none.
        """
        found = _PREDICT.fullmatch(path)
        if method == "POST" and found:
            name, version, label, verb = found.groups()
            spec = _spec(name, version, label)
            call = {
                "predict": self._service.predict_json,
                "classify": self._service.classify_json,
                "regress": self._service.regress_json,
            }[verb.lower()]
            deadline = time.monotonic() + self._timeout
            return await self._service.answer(
                verb.capitalize(),
                "REST",
                spec.name,
                functools.partial(call, spec, body, deadline),
            )
        found = _STATUS.fullmatch(path)
        if method == "GET" and found:
            name, version, label, wants_metadata = found.groups()
            if not name:
                raise errors.invalid("Missing model name in request.")
            spec = _spec(name, version, label)
            return self._metadata(spec) if wants_metadata else self._status(spec)
        raise errors.invalid(f"Malformed request: {method} {path}")

    def _status(self, spec: model_pb2.ModelSpec) -> bytes:
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=spec)
        return _written(self._service.status(request))

    def _metadata(self, spec: model_pb2.ModelSpec) -> bytes:
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=spec, metadata_field=["signature_def"]
        )
        answer = self._service.metadata(request)
        return _written(answer, preserving_proto_field_name=True)


class Server(tornado.httpserver.HTTPServer):
    """A web server with so many connections and no more."""

    def initialize(  # type: ignore[override]
        self, *args: Any, most_connections: int, **kwargs: Any
    ) -> None:
        super().initialize(*args, **kwargs)
        self._most = most_connections
        self._streams: set[Any] = set()
        self._writing: dict[Any, float] = {}

    def handle_stream(self, stream: Any, address: Any) -> None:
        if len(self._streams) >= self._most:
            stream.close()
            return
        self._streams.add(stream)
        super().handle_stream(stream, address)

    def on_close(self, server_conn: Any) -> None:
        self._streams.discard(server_conn.stream)
        super().on_close(server_conn)

    def writing(self) -> bool:
        """Whether an answer is on its way to a client."""
        return any(stream.writing() for stream in self._streams)

    def close_stalled(self, seconds: float) -> None:
        """Leaves clients that have not taken an answer; to be called now and then."""
        now = time.monotonic()
        self._writing = {
            stream: self._writing.get(stream, now)
            for stream in self._streams
            if stream.writing()
        }
        for stream, since in list(self._writing.items()):
            if now - since > seconds:
                stream.close()


class Application(tornado.web.Application):
    """The routes of the server.

    Args:
        api: See `Api`.
        counted: Gives the metrics.
        metrics_path: Where; None: nowhere.
        token: Wanted of each request that is not for one of `routes`; None: of none.
        most_bytes: Bound of a body.
        routes: Others, such as static files; they come first and ask for no token.

    Attributes:
        active: Requests whose answer is not yet written.
        draining: Set it, and connections are closed behind their next answer.
    """

    def __init__(
        self,
        api: Api,
        counted: metrics.Metrics,
        metrics_path: str | None,
        token: security.Token | None,
        most_bytes: int,
        routes: Sequence[Any] = (),
    ) -> None:
        self.active = 0
        self.draining = False
        handler: dict[str, Any] = {
            "api": api,
            "counted": counted,
            "metrics_path": metrics_path,
            "token": token,
            "most_bytes": most_bytes,
        }
        super().__init__(
            [*routes, (r".*", _Handler, handler)], log_function=lambda handler: None
        )


@tornado.web.stream_request_body
class _Handler(tornado.web.RequestHandler):
    application: Application

    def initialize(
        self,
        api: Api,
        counted: metrics.Metrics,
        metrics_path: str | None,
        token: security.Token | None,
        most_bytes: int,
    ) -> None:
        self._api = api
        self._counted = counted
        self._metrics_path = metrics_path
        self._token = token
        self._most_bytes = most_bytes
        self._chunks: list[bytes] = []
        self._counted_in = False

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        self.set_header("Content-Type", "application/json")
        self.set_header("X-Content-Type-Options", "nosniff")

    async def prepare(self) -> None:
        # Before a byte of the body is read.
        self.application.active += 1
        self._counted_in = True
        if self._token and not self._token.matches(
            self.request.headers.get("Authorization", "")
        ):
            self.set_header("WWW-Authenticate", "Bearer")
            self._fail(errors.ServingError("UNAUTHENTICATED", security.UNAUTHENTICATED))
            return
        length = self.request.headers.get("Content-Length", "0")
        if length.isdecimal() and int(length) > self._most_bytes:
            self._fail(
                errors.invalid(
                    f"Request body must have at most {self._most_bytes} bytes, "
                    f"got {length}"
                ),
                status=413,
            )

    def data_received(self, chunk: bytes) -> None:
        self._chunks.append(chunk)

    async def _answer(self) -> None:
        method, path = self.request.method or "", self.request.path
        if method == "GET" and path == self._metrics_path:
            self.set_header("Content-Type", metrics.CONTENT_TYPE)
            self.finish(self._counted.page())
            return
        try:
            if not _API.fullmatch(path):
                raise errors.ServingError("NOT_FOUND", f"Not found: {method} {path}")
            body = b"".join(self._chunks)
            self._chunks.clear()
            self.finish(await self._api.answer(method, path, body))
        except errors.ServingError as error:
            self._fail(error)

    get = post = put = patch = delete = options = head = _answer

    def finish(self, chunk: Any = None) -> Any:
        if self.application.draining:
            self.set_header("Connection", "close")
        return super().finish(chunk)

    def on_finish(self) -> None:
        self._uncount()

    def on_connection_close(self) -> None:
        super().on_connection_close()
        self._uncount()

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Of what never reached us: an unknown method, a fault."""
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"error": self._reason}))

    def _fail(self, error: errors.ServingError, status: int | None = None) -> None:
        self.set_status(status or errors.HTTP_STATUS[error.code], error.code)
        self.finish(json.dumps({"error": error.message}))

    def _uncount(self) -> None:
        if self._counted_in:
            self.application.active -= 1
            self._counted_in = False


def _spec(name: str, version: str | None, label: str | None) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=_decoded(name))
    if version:
        digits = version.lstrip("0") or "0"
        # Python refuses to read very long numbers.
        if len(digits) > 19 or int(digits) >= 2**63:
            raise errors.invalid(f"Failed to convert version: {version} to numeric.")
        spec.version.value = int(digits)
    elif label:
        spec.version_label = _decoded(label)
    return spec


def _decoded(text: str) -> str:
    return urllib.parse.unquote(text)


def _written(message: Any, **how: Any) -> bytes:
    document = json_format.MessageToDict(
        message, always_print_fields_with_no_presence=True, **how
    )
    return json.dumps(document, indent=2).encode()
