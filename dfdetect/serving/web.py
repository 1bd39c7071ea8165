"""The web server: its connections, and what is wanted of each request."""

import contextlib
import dataclasses
import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import tornado.httpserver
import tornado.iostream
import tornado.web

from dfdetect.serving import errors, metrics, rest, security

_API = re.compile(r"/v1/.*", re.I)
_ABSOLUTE = re.compile(r"https?://([^/?#]*)", re.I)
_CORS: Mapping[str, str] = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type",
}

# Bodies of the largest size that are held at a time; small ones always find room.
_HELD_BODIES = 4
_SMALL_BYTES = 2**20
# How long a client whose request is refused may go on sending.
_LINGER_SECONDS = 3.0
# Kept at a stream: since when no request of it is being answered; None: one is.
_IDLE_SINCE = "dfdetect_idle_since"

_FULL_BODY = b'{"error": "The server has too many connections"}'
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(_FULL_BODY), _FULL_BODY)
)


class Server(tornado.httpserver.HTTPServer):
    """A web server with so many connections and no more.

    Where there is no room, the connection goes that has been idle for longest; where
    none is idle, the new one is told so.
    """

    def initialize(  # type: ignore[override]
        self, *args: Any, most_connections: int, **kwargs: Any
    ) -> None:
        super().initialize(*args, **kwargs)
        self._most = most_connections
        self._streams: dict[Any, float] = {}
        self._writing: dict[Any, float] = {}

    def handle_stream(self, stream: Any, address: Any) -> None:
        if len(self._streams) >= self._most and not self._close_idlest():
            answer = stream.write(_FULL)
            answer.add_done_callback(lambda done: (done.exception(), stream.close()))
            return
        self._streams[stream] = time.monotonic()
        super().handle_stream(stream, address)

    def on_close(self, server_conn: Any) -> None:
        self._streams.pop(server_conn.stream, None)
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

    def _close_idlest(self) -> bool:
        idle = {
            stream: getattr(stream, _IDLE_SINCE, since)
            for stream, since in self._streams.items()
            if getattr(stream, _IDLE_SINCE, since) is not None and not stream.writing()
        }
        if not idle:
            return False
        idlest = min(idle, key=idle.__getitem__)
        del self._streams[idlest]
        idlest.close()
        return True


@dataclasses.dataclass(frozen=True)
class Rules:
    """What is wanted of each request.

    Attributes:
        token: Wanted of each request of the API; None: of none.
        most_bytes: Bound of a body.
        hosts: See `security.Hosts`.
        cors: Whether pages of other sites may ask.
    """

    token: security.Token | None
    most_bytes: int
    hosts: security.Hosts
    cors: bool = False


class Application(tornado.web.Application):
    """The routes of the server.

    Args:
        api: See `rest.Api`.
        counted: Gives the metrics.
        metrics_path: Where; None: nowhere.
        rules: See `Rules`.
        routes: Others, such as static files; they come first and ask for no token.

    Attributes:
        active: Requests whose answer is not yet written.
        draining: Set it, and connections are closed behind their next answer.
        held_bytes: Of bodies, in memory.
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
        """As Tornado's, but for requests that no page may send."""
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
    """What the handlers have in common: they are counted, and refuse in time."""

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
        """Of what never reached us: an unknown method, a fault."""
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"error": self._reason}))

    def data_received(self, chunk: bytes) -> None:
        """Leaves what is refused; see `_refuse`."""

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
            setattr(stream, _IDLE_SINCE, since)

    async def _refuse(
        self, error: errors.ServingError, status: int | None = None
    ) -> None:
        """Answers before the body is there, and reads on for a little.

        A client that is still sending would else lose the connection and never see the
        answer.
        """
        self._is_refused = True
        body = json.dumps({"error": error.message}).encode()
        self.set_status(status or errors.HTTP_STATUS[error.code], error.code)
        self.set_header("Connection", "close")
        self.set_header("Content-Length", str(len(body)))
        connection: Any = self.request.connection
        connection.set_max_body_size(2**62)
        connection.set_body_timeout(_LINGER_SECONDS)
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
        most = self._rules.most_bytes
        if length.isdecimal() and int(length) > most:
            await self._refuse(
                errors.invalid(
                    f"Request body must have at most {most} bytes, got {length}"
                ),
                status=413,
            )

    async def data_received(self, chunk: bytes) -> None:  # type: ignore[override]
        if self._is_refused:
            return
        self._hold(len(chunk))
        self._chunks.append(chunk)
        most = _HELD_BODIES * self._rules.most_bytes
        if self._held > _SMALL_BYTES and self.application.held_bytes > most:
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
        """What a browser asks before it lets a page of another site ask."""
        if not re.search("https?://", self.request.headers.get("Origin", "")):
            message = "Origin header is missing in CORS preflight"
            raise errors.ServingError("FAILED_PRECONDITION", message)
        self.finish()

    def _fail(self, error: errors.ServingError) -> None:
        self.set_status(errors.HTTP_STATUS[error.code], error.code)
        self.finish(json.dumps({"error": error.message}))
