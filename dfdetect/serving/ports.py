"""The two ports: how they are opened, and closed without losing a request."""

import asyncio
import ssl
import time
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from dfdetect.serving import (
    connections,
    grpc_services,
    listening,
    options,
    security,
    web,
)

# How long a port stays open behind the last request: one may be on its way.
_QUIET_SECONDS = 0.3
# How long gRPC calls are refused, where clients do not leave off.
_REFUSING_SECONDS = 2.0
_TICK = 0.01


class RestPort:
    """REST and metrics.

    Args:
        settings: The flags.
        application: See `web.Application`.
        tls: None: in clear.
        held: The port.
    """

    def __init__(
        self,
        settings: options.Options,
        application: web.Application,
        tls: ssl.SSLContext | None,
        held: listening.HeldPort,
    ) -> None:
        self._settings = settings
        self._held = held
        self._application = application
        self._scheme = "https" if tls else "http"
        self._server = connections.BoundedServer(
            application,
            max_connections=settings.max_connections,
            ssl_options=tls,
            # A body without a length is bounded here, any other by the application,
            # which says so.
            max_body_size=settings.max_request_bytes + 1,
            max_buffer_size=settings.max_request_bytes + 2**20,
            idle_connection_timeout=settings.header_timeout_seconds,
            body_timeout=settings.body_timeout_seconds,
        )

    def __str__(self) -> str:
        host = listening.shown_host(self._settings.host)
        return f"{self._scheme}://{host}:{self._settings.rest_api_port}"

    async def start(self) -> None:
        """Opens it.

        Raises:
            OSError: It has been taken since it was held.
        """
        self._server.add_sockets(self._held.listen())

    def look_after(self) -> None:
        """Leaves clients that do not read."""
        self._server.close_stalled(self._settings.body_timeout_seconds)

    async def stop(self, seconds: float) -> None:
        """Closes it once the requests in flight have been answered, or by then."""
        self._application.draining = True
        self._server.stop()
        now = time.monotonic()
        end, quiet_since = now + seconds, now
        while time.monotonic() < min(end, quiet_since + _QUIET_SECONDS):
            await asyncio.sleep(_TICK)
            if self._application.active or self._server.writing():
                quiet_since = time.monotonic()
        await self._server.close_all_connections()


class GrpcPort:
    """PredictionService, ModelService and the health service.

    Args:
        settings: The flags.
        servicers: Of these services, in this order.
        token: See `security.Interceptor`; None: for all.
        credentials: None: in clear.
        held: The port.
    """

    def __init__(
        self,
        settings: options.Options,
        servicers: tuple[Any, Any, Any],
        token: security.Token | None,
        credentials: grpc.ServerCredentials | None,
        held: listening.HeldPort,
    ) -> None:
        self._settings = settings
        self._held = held
        self._servicers = servicers
        self._token = token
        self._credentials = credentials
        self._gate = grpc_services.Gate()
        self._address = f"{listening.shown_host(settings.host)}:{settings.port}"

    def __str__(self) -> str:
        return f"{self._address} (gRPC{' over TLS' if self._credentials else ''})"

    async def start(self) -> None:
        """Opens it.

        Raises:
            OSError: It has been taken since it was held.
        """
        settings = self._settings
        interceptors: list[Any] = [self._gate]
        if self._token:
            interceptors.insert(0, security.Interceptor(self._token))
        at_once = settings.num_request_threads + settings.max_queued_requests
        handshake = round(settings.header_timeout_seconds * 1000)
        self._server = grpc.aio.server(
            interceptors=interceptors,
            options=[
                ("grpc.max_receive_message_length", settings.max_request_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_concurrent_streams", at_once),
                ("grpc.server_handshake_timeout_ms", handshake),
                # Else a second server would share the port in silence.
                ("grpc.so_reuseport", 0),
                *options.parse_channel_arguments(settings.grpc_channel_arguments),
            ],
        )
        for add, servicer in zip(
            (
                prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server,
                model_service_pb2_grpc.add_ModelServiceServicer_to_server,
                health_pb2_grpc.add_HealthServicer_to_server,
            ),
            self._servicers,
            strict=True,
        ):
            add(servicer, self._server)
        self._held.close()  # gRPC binds for itself.
        try:
            if self._credentials:
                self._server.add_secure_port(self._address, self._credentials)
            else:
                self._server.add_insecure_port(self._address)
        except RuntimeError as error:
            raise self._held.describe() from error
        await self._server.start()

    def look_after(self) -> None:
        """Does nothing: gRPC looks after its clients."""

    async def stop(self, seconds: float) -> None:
        """Closes it once the calls in flight have been answered, or by then."""
        self._gate.draining = True
        now = time.monotonic()
        end, enough = now + seconds, now + _REFUSING_SECONDS
        while time.monotonic() < end:
            quiet = time.monotonic() > self._gate.last_call + _QUIET_SECONDS
            if not self._gate.active and (quiet or time.monotonic() > enough):
                break
            await asyncio.sleep(_TICK)
        await self._server.stop(max(end - time.monotonic(), 0.0))
