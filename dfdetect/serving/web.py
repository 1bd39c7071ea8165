"""The web server's handlers, and what is required of each request."""

import contextlib
import dataclasses
import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import tornado.iostream
import tornado.web

from dfdetect.serving import connections, errors, metrics, rest, security

_API = re.compile(r"/v1/.*", re.I)
_ABSOLUTE = re.compile(r"https?://([^/?#]*)", re.I)
_CORS: Mapping[str, str] = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type",
}

# Number of bodies of the largest size in memory; small ones always have room.
_HELD_BODIES = 4
_SMALL_BYTES = 2**20


@dataclasses.dataclass(frozen=True)
class Rules:
    """What is required of each request.

    Attributes:
        token: Required of each request of the API; None if none is.
        max_bytes: Largest body in bytes.
        hosts: See `security.Hosts`.
        cors: Whether pages of other sites may send requests.
    """

    token: security.Token | None
    max_bytes: int
    hosts: security.Hosts
    cors: bool = False


class Application(tornado.web.Application):
    """The web application: routes, and the requests in flight.

    Args:
        api: See `rest.Api`.
        counted: The metrics that are served.
        metrics_path: Path of the metrics; None serves none.
        rules: See `Rules`.
        routes: Other routes, such as static files; they come first and need no token.

    Attributes:
        active: Number of requests whose answer is not yet written.
        draining: If set, connections are closed after their next answer.
        held_bytes: Bytes of request bodies in memory.
    """

    def __init__(
        self,
        api: rest.Api,
        counted: metrics.Metrics,
        metrics_path: str | None,
        rules: Rules,
        routes: Sequence[Any] = (),
    ) -> None:
        self.active = 0
        self.draining = False
        self.held_bytes = 0
        self._rules = rules
        handler: dict[str, Any] = {
            "api": api,
            "counted": counted,
            "metrics_path": metrics_path,
            "rules": rules,
        }
        super().__init__(
            [*routes, (r".*", _Handler, handler)], log_function=lambda handler: None
        )

    def find_handler(self, request: Any, **kwargs: Any) -> Any:
        """Finds the handler as Tornado does, and refuses what no page may send."""
        host = request.headers.get("Host", "")
        # The absolute form, where the target's host counts: RFC 9112, 3.2.2.
        if found := _ABSOLUTE.match(request.uri):
            host = found[1]
            request.uri = request.uri[found.end() :] or "/"
            request.path, _, request.query = request.uri.partition("?")
        refused = None
        if not self._rules.hosts.allow(host):
            message = f"Not served here: {host[:100]}; see --allowed_hosts"
            refused = {"status": 421, "message": message}
        elif (
            self._rules.hosts.guarded
            and not self._rules.cors
            and request.headers.get("Sec-Fetch-Site", "").lower() == "cross-site"
        ):
            refused = {"status": 403, "message": "Pages of other sites may not ask"}
        if refused:
            return self.get_handler_delegate(request, _Refused, refused)
        return super().find_handler(request, **kwargs)


@tornado.web.stream_request_body
class _Counted(tornado.web.RequestHandler):
    """Common base of the handlers: they are counted, and refuse early."""

    application: Application
    _is_counted = False
    _is_refused = False
    _held = 0

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        self.set_header("Content-Type", "application/json")
        self.set_header("X-Content-Type-Options", "nosniff")

    def finish(self, chunk: Any = None) -> Any:
        if self.application.draining and not self._headers_written:
            self.set_header("Connection", "close")
        return super().finish(chunk)

    def on_finish(self) -> None:
        self._uncount()

    def on_connection_close(self) -> None:
        super().on_connection_close()
        self._uncount()

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Writes errors that no handler saw: an unknown method, a fault."""
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"error": self._reason}))

    def data_received(self, chunk: bytes) -> None:
        """Drops the body of a refused request; see `_refuse`."""

    def _count(self) -> None:
        self.application.active += 1
        self._is_counted = True
        self._mark_idle(None)

    def _uncount(self) -> None:
        self._release()
        if self._is_counted:
            self.application.active -= 1
            self._is_counted = False
            self._mark_idle(time.monotonic())

    def _hold(self, size: int) -> None:
        self._held += size
        self.application.held_bytes += size

    def _release(self) -> None:
        self.application.held_bytes -= self._held
        self._held = 0

    def _mark_idle(self, since: float | None) -> None:
        stream = getattr(self.request.connection, "stream", None)
        if stream is not None:
            connections.mark_idle(stream, since)

    async def _refuse(
        self, error: errors.ServingError, status: int | None = None
    ) -> None:
        """Answers before the body is there, and reads on for a few seconds.

        Otherwise a client that is still sending would lose the connection and never see
        the answer.
        """
        self._is_refused = True
        body = json.dumps({"error": error.message}).encode()
        self.set_status(status or errors.HTTP_STATUS[error.code], error.code)
        self.set_header("Connection", "close")
        self.set_header("Content-Length", str(len(body)))
        connection: Any = self.request.connection
        connection.set_max_body_size(2**62)
        connection.set_body_timeout(connections.LINGER_SECONDS)
        self.write(body)
        with contextlib.suppress(tornado.iostream.StreamClosedError):
            await self.flush()


class _Refused(_Counted):
    def initialize(self, status: int, message: str) -> None:
        self._status = status
        self._message = message

    async def prepare(self) -> None:
        self._count()
        refusal = errors.ServingError("PERMISSION_DENIED", self._message)
        await self._refuse(refusal, self._status)

    async def _answer(self) -> None:
        self.finish()

    get = post = put = patch = delete = options = head = _answer


class _Handler(_Counted):
    def initialize(
        self,
        api: rest.Api,
        counted: metrics.Metrics,
        metrics_path: str | None,
        rules: Rules,
    ) -> None:
        self._api = api
        self._counted = counted
        self._metrics_path = metrics_path
        self._rules = rules
        self._chunks: list[bytes] = []

    async def prepare(self) -> None:
        # Before a byte of the body is read.
        self._count()
        if self._rules.cors:
            for name, value in _CORS.items():
                self.set_header(name, value)
        is_preflight = self._rules.cors and self.request.method == "OPTIONS"
        token = self._rules.token
        if token and not is_preflight:
            if not token.matches(self.request.headers.get("Authorization", "")):
                self.set_header("WWW-Authenticate", "Bearer")
                await self._refuse(
                    errors.ServingError("UNAUTHENTICATED", security.UNAUTHENTICATED)
                )
                return
        length = self.request.headers.get("Content-Length", "0")
        max_bytes = self._rules.max_bytes
        if length.isdecimal() and int(length) > max_bytes:
            await self._refuse(
                errors.invalid(
                    f"Request body must have at most {max_bytes} bytes, got {length}"
                ),
                status=413,
            )

    async def data_received(self, chunk: bytes) -> None:  # type: ignore[override]
        if self._is_refused:
            return
        self._hold(len(chunk))
        self._chunks.append(chunk)
        max_held = _HELD_BODIES * self._rules.max_bytes
        if self._held > _SMALL_BYTES and self.application.held_bytes > max_held:
            self._chunks.clear()
            self._release()
            await self._refuse(
                errors.ServingError(
                    "UNAVAILABLE", "The server holds too many bytes of requests"
                )
            )

    async def _answer(self) -> None:
        if self._is_refused:
            self.finish()
            return
        method, path = self.request.method or "", self.request.path
        if method == "GET" and path == self._metrics_path:
            self.set_header("Content-Type", metrics.CONTENT_TYPE)
            self.finish(self._counted.page())
            return
        # TensorFlow Serving takes a query for a part of the path.
        path = self.request.uri or ""
        try:
            if not _API.fullmatch(path):
                raise errors.ServingError("NOT_FOUND", f"Not found: {method} {path}")
            if method == "OPTIONS":
                self._preflight()
                return
            body = b"".join(self._chunks)
            self._chunks.clear()
            self.finish(await self._api.answer(method, path, body))
        except errors.ServingError as error:
            self._fail(error)

    get = post = put = patch = delete = options = head = _answer

    def _preflight(self) -> None:
        """Answers what a browser asks before a page of another site may."""
        if not re.search("https?://", self.request.headers.get("Origin", "")):
            message = "Origin header is missing in CORS preflight"
            raise errors.ServingError("FAILED_PRECONDITION", message)
        self.finish()

    def _fail(self, error: errors.ServingError) -> None:
        self.set_status(errors.HTTP_STATUS[error.code], error.code)
        self.finish(json.dumps({"error": error.message}))
