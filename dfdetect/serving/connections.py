"""The web server's connections: how many there may be, and which are closed."""

import asyncio
import contextlib
import time
from typing import Any

import tornado.httpserver
import tornado.ioloop
import tornado.iostream

# How long a client that is refused may go on sending before its connection is closed.
LINGER_SECONDS = 3.0

_READ_BYTES = 2**16
# Attribute of a stream: since when none of its requests is being answered, on the clock
# of `time.monotonic`; None while one is.
_IDLE_SINCE = "dfdetect_idle_since"

_FULL_BODY = b'{"error": "The server has too many connections"}'
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(_FULL_BODY), _FULL_BODY)
)


def mark_idle(stream: Any, since: float | None) -> None:
    """Notes since when a stream is idle; None while it is not."""
    setattr(stream, _IDLE_SINCE, since)


class BoundedServer(tornado.httpserver.HTTPServer):
    """A web server with a bounded number of connections.

    A new connection takes the place of the one that has been idle for longest; while
    none is idle, it is answered 503.
    """

    def initialize(  # type: ignore[override]
        self, *args: Any, max_connections: int, **kwargs: Any
    ) -> None:
        super().initialize(*args, **kwargs)
        self._max_connections = max_connections
        self._streams: dict[Any, float] = {}
        self._writing: dict[Any, float] = {}
        self._num_refused = 0

    def handle_stream(self, stream: Any, address: Any) -> None:
        if len(self._streams) >= self._max_connections and not self._close_idlest():
            tornado.ioloop.IOLoop.current().spawn_callback(self._refuse, stream)
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
        """Closes connections that do not take their answer; to be called repeatedly.

        Args:
            seconds: How long an answer may wait for the client.
        """
        now = time.monotonic()
        self._writing = {
            stream: self._writing.get(stream, now)
            for stream in self._streams
            if stream.writing()
        }
        for stream, since in list(self._writing.items()):
            if now - since > seconds:
                stream.close()

    async def _refuse(self, stream: Any) -> None:
        """Answers that there is no room, and reads on for a few seconds.

        Otherwise a client that is still sending would lose the connection and never see
        the answer.
        """
        lingers = self._num_refused < self._max_connections
        self._num_refused += 1
        end = asyncio.get_running_loop().time() + LINGER_SECONDS
        try:
            with contextlib.suppress(
                tornado.iostream.StreamClosedError, asyncio.TimeoutError, OSError
            ):
                async with asyncio.timeout_at(end):
                    await stream.write(_FULL)
                    while lingers:
                        await stream.read_bytes(_READ_BYTES, partial=True)
        finally:
            self._num_refused -= 1
            stream.close()

    def _close_idlest(self) -> bool:
        """Closes the connection that has been idle for longest, if one is idle."""
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
