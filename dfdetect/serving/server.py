"""Runs the server: models, both ports, and an end in which no request is lost."""

import asyncio
import contextlib
import functools
import logging
import signal
import ssl
import sys
import time
from collections.abc import Sequence
from typing import Any

import grpc
import tensorflow as tf
import tornado.netutil
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tensorflow.core.protobuf import config_pb2
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from dfdetect.serving import (
    config,
    errors,
    grpc_services,
    inference,
    metrics,
    model_store,
    options,
    rest,
    security,
    servable,
    service,
)

# How long both ports stay open behind the last request: one may be on its way.
_QUIET_SECONDS = 0.3
# How long gRPC calls are refused, where clients do not leave off.
_REFUSING_SECONDS = 2.0
_TICK = 0.1

_Status = health_pb2.HealthCheckResponse


class Server:
    """Models behind both ports.

    Args:
        settings: The flags.
        routes: See `rest.Application`.

    Raises:
        OSError: A file cannot be read.
        ValueError: A file is not what it should be.
    """

    def __init__(self, settings: options.Options, routes: Sequence[Any] = ()) -> None:
        self._settings = settings
        self._token = security.Token(settings.token) if settings.token else None
        self._tls: ssl.SSLContext | None = None
        self._credentials: grpc.ServerCredentials | None = None
        if settings.tls_certificate:
            files = settings.tls_certificate, settings.tls_key, settings.tls_client_ca
            self._tls = security.tls_context(*files)
            self._credentials = security.grpc_credentials(*files)
        self._models = _models(settings)
        parameters = None
        if settings.enable_batching:
            parameters = config.Batching()
            if settings.batching_parameters_file:
                parameters = config.batching(settings.batching_parameters_file)
        metrics_path: str | None = config.METRICS_PATH
        if settings.monitoring_config_file:
            metrics_path = config.metrics_path(settings.monitoring_config_file)

        self._metrics = metrics.Metrics()
        loader = servable.Loader(
            self._metrics,
            parameters,
            [tag for tag in settings.saved_model_tags.split(",") if tag],
            config_pb2.ConfigProto(
                intra_op_parallelism_threads=settings.tensorflow_intra_op_parallelism,
                inter_op_parallelism_threads=settings.tensorflow_inter_op_parallelism,
            ),
            functools.partial(inference.warm_up, most_bytes=settings.max_request_bytes),
        )
        self.store = model_store.ModelStore(
            loader.load,
            settings.file_system_poll_wait_seconds,
            settings.max_num_load_retries,
            settings.load_retry_interval_micros / 1e6,
            say,
        )
        self._service = service.Service(
            self.store,
            self._metrics,
            settings.max_request_bytes,
            settings.num_request_threads,
            settings.max_queued_requests,
            settings.allow_version_labels_for_unavailable_models,
        )
        self._application = rest.Application(
            rest.Api(self._service, settings.rest_api_timeout_in_ms / 1e3),
            self._metrics,
            metrics_path,
            self._token,
            settings.max_request_bytes,
            routes,
        )
        self._gate = grpc_services.Gate()
        self._health = health.aio.HealthServicer()
        self._tasks: list[asyncio.Task] = []

    async def start(self) -> None:
        """Loads the models and opens the ports.

        Raises:
            errors.ServingError: No model could be loaded.
            OSError: A port cannot be had.
        """
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self.store.configure, self._models)
        failed = await loop.run_in_executor(None, self.store.wait_until_settled)
        names = [model.name for model in self._models.model_config_list.config]
        if failed and len(failed) == len(names):
            name, reason = next(iter(failed.items()))
            raise errors.ServingError("UNKNOWN", f"no model loads; {name}: {reason}")
        label = self.store.unavailable_label()
        if label:
            say(label)
        self._rest, self._grpc = None, None
        if self._settings.rest_api_port:
            self._rest = self._start_rest()
        if self._settings.port:
            self._grpc = await self._start_grpc()
        self._tasks.append(asyncio.create_task(self._keep_health()))
        if self._settings.model_config_file_poll_wait_seconds:
            self._tasks.append(asyncio.create_task(self._keep_config()))
        say(f"serving {', '.join(names)} at {self._addresses()}")

    async def stop(self) -> None:
        """Takes no more requests, and answers those it has taken."""
        seconds = self._settings.drain_seconds
        for task in self._tasks:
            task.cancel()
        await self._health.enter_graceful_shutdown()
        await asyncio.gather(self._stop_rest(seconds), self._stop_grpc(seconds))

    def close(self) -> None:
        """Frees the models."""
        self._service.close()
        self.store.close()

    def _start_rest(self) -> rest.Server:
        settings = self._settings
        server = rest.Server(
            self._application,
            most_connections=settings.max_connections,
            ssl_options=self._tls,
            # A body without a length is bounded here, any other by the application,
            # which says so.
            max_body_size=settings.max_request_bytes + 1,
            max_buffer_size=settings.max_request_bytes + 2**20,
            idle_connection_timeout=settings.header_timeout_seconds,
            body_timeout=settings.body_timeout_seconds,
        )
        server.add_sockets(
            tornado.netutil.bind_sockets(settings.rest_api_port, settings.host)
        )
        return server

    async def _start_grpc(self) -> grpc.aio.Server:
        settings = self._settings
        interceptors: list[Any] = [self._gate]
        if self._token:
            interceptors.insert(0, security.Interceptor(self._token))
        server = grpc.aio.server(
            interceptors=interceptors,
            options=[
                ("grpc.max_receive_message_length", settings.max_request_bytes),
                ("grpc.max_send_message_length", -1),
                (
                    "grpc.max_concurrent_streams",
                    settings.num_request_threads + settings.max_queued_requests,
                ),
                ("grpc.server_handshake_timeout_ms", _millis(settings)),
                # Else a second server would share the port in silence.
                ("grpc.so_reuseport", 0),
            ],
        )
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            grpc_services.PredictionService(self._service), server
        )
        known = bool(self._token or settings.tls_client_ca)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(
            grpc_services.ModelService(
                self._service, known or security.is_loopback(settings.host)
            ),
            server,
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        address = f"{host}:{settings.port}"
        try:
            if self._credentials:
                server.add_secure_port(address, self._credentials)
            else:
                server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"cannot listen at {address}") from error
        await server.start()
        return server

    async def _stop_rest(self, seconds: float) -> None:
        if self._rest is None:
            return
        self._application.draining = True
        self._rest.stop()
        loop = asyncio.get_running_loop()
        end, quiet_since = loop.time() + seconds, loop.time()
        while loop.time() < min(end, quiet_since + _QUIET_SECONDS):
            await asyncio.sleep(_TICK / 10)
            if self._application.active or self._rest.writing():
                quiet_since = loop.time()
        await self._rest.close_all_connections()

    async def _stop_grpc(self, seconds: float) -> None:
        if self._grpc is None:
            return
        self._gate.draining = True
        loop = asyncio.get_running_loop()
        end, enough = loop.time() + seconds, loop.time() + _REFUSING_SECONDS
        while loop.time() < end:
            quiet = time.monotonic() > self._gate.last_call + _QUIET_SECONDS
            if not self._gate.active and (quiet or loop.time() > enough):
                break
            await asyncio.sleep(_TICK / 10)
        await self._grpc.stop(max(end - loop.time(), 0.0))

    async def _keep_health(self) -> None:
        """Tells the health service, and leaves clients that do not read."""
        while True:
            ready = self.store.ready()
            status = _Status.SERVING if ready else _Status.NOT_SERVING
            for name in ("", *grpc_services.NAMES):
                await self._health.set(name, status)
            if self._rest is not None:
                self._rest.close_stalled(self._settings.body_timeout_seconds)
            await asyncio.sleep(_TICK)

    async def _keep_config(self) -> None:
        """Reads the list of models again, and takes it when it has changed."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._settings.model_config_file_poll_wait_seconds)
            try:
                models = config.models(self._settings.model_config_file)
                if models != self._models:
                    await loop.run_in_executor(None, self.store.configure, models)
                    self._models = models
            except (OSError, ValueError, errors.ServingError) as error:
                say(f"the model config stays as it was: {error}")

    def _addresses(self) -> str:
        secure = "s" if self._tls else ""
        host = self._settings.host
        found = []
        if self._grpc:
            found.append(f"{host}:{self._settings.port} (gRPC{secure and ' over TLS'})")
        if self._rest:
            found.append(f"http{secure}://{host}:{self._settings.rest_api_port}")
        return " and ".join(found)


def run(settings: options.Options, routes: Sequence[Any] = ()) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit code.

    Args:
        settings: The flags.
        routes: See `rest.Application`.

    Raises:
        OSError, ValueError, errors.ServingError: It could not begin.
    """
    # What the graph's loader says of its own making is not for this person.
    tf.get_logger().setLevel("ERROR")
    for name in ("tornado.access", "tornado.general"):
        logging.getLogger(name).setLevel("ERROR")
    _warn(settings)
    return asyncio.run(_run(Server(settings, routes)))


async def _run(server: Server) -> int:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    try:
        waiting = asyncio.create_task(stopped.wait())
        starting = asyncio.create_task(server.start())
        await asyncio.wait((starting, waiting), return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
            await waiting
        for number in (signal.SIGTERM, signal.SIGINT):
            # A second one ends at once.
            loop.remove_signal_handler(number)
        if starting.done():
            say("draining")
            await server.stop()
        else:
            starting.cancel()
    finally:
        with contextlib.suppress(asyncio.CancelledError):
            await loop.run_in_executor(None, server.close)
    say("stopped")
    return 0


def say(line: str) -> None:
    """Tells the person, on standard error."""
    print(f"dfdetect serve: {line}", file=sys.stderr, flush=True)


def _models(settings: options.Options) -> Any:
    if settings.model_config_file:
        return config.models(settings.model_config_file)
    return config.one_model(settings.model_name, settings.model_base_path)


def _warn(settings: options.Options) -> None:
    if security.is_loopback(settings.host):
        return
    if not settings.token and not settings.tls_client_ca:
        say(
            f"anyone who reaches {settings.host} may use this server: there is neither "
            "a token nor a client CA"
        )
    if settings.token and not settings.tls_certificate:
        say("the token travels in clear: there is no TLS certificate")


def _millis(settings: options.Options) -> int:
    return round(settings.header_timeout_seconds * 1000)
