"""Runs the server: models, both ports, and a shutdown that loses no request."""

import asyncio
import contextlib
import functools
import logging
import math
import os
import signal
import sys
import time
from typing import Any

import tensorflow as tf
from grpc_health.v1 import health, health_pb2
from tensorflow.core.protobuf import config_pb2

from dfdetect import console
from dfdetect.serving import (
    config,
    demo_page,
    errors,
    grpc_services,
    inference,
    listening,
    metrics,
    model_store,
    options,
    ports,
    rest,
    security,
    servable,
    service,
    web,
)

_TICK = 0.1

_Status = health_pb2.HealthCheckResponse


class Server:
    """Models behind both ports.

    Args:
        settings: The flags.
        held: Its ports, see `listening.hold_ports`; by default they are taken here.

    Raises:
        OSError: A file cannot be read, or a port is taken.
        ValueError: A file is not what it should be.
    """

    def __init__(
        self,
        settings: options.Options,
        held: dict[str, listening.HeldPort] | None = None,
    ) -> None:
        self._settings = settings
        self._held = listening.hold_ports(settings) if held is None else held
        token = security.Token(settings.token) if settings.token else None
        tls, credentials = _read_tls(settings)
        self._models = _models(settings)
        metrics_path: str | None = config.METRICS_PATH
        if settings.monitoring_config_file:
            metrics_path = config.read_metrics_path(settings.monitoring_config_file)

        self._metrics = metrics.Metrics()
        self._loader = _build_loader(settings, self._metrics)
        self.store = model_store.ModelStore(
            self._loader.load,
            settings.file_system_poll_wait_seconds,
            settings.max_num_load_retries,
            settings.load_retry_interval_micros / 1e6,
            print_line,
            settings.allow_version_labels_for_unavailable_models,
        )
        self._service = service.Service(
            self.store,
            self._metrics,
            settings.max_request_bytes,
            settings.num_request_threads,
            settings.max_queued_requests,
        )
        self._health = health.aio.HealthServicer()
        known = bool(token or settings.tls_client_ca)
        reload_allowed = known or security.is_loopback(settings.host)
        application = web.Application(
            rest.Api(self._service, settings.rest_api_timeout_in_ms / 1e3),
            self._metrics,
            metrics_path,
            web.Rules(
                token,
                settings.max_request_bytes,
                security.Hosts(settings.host, settings.allowed_host_names),
                settings.rest_api_enable_cors_support,
            ),
            demo_page.build_routes(self.store, token, settings.max_request_bytes)
            if settings.demo
            else (),
        )
        self._ports: list[ports.RestPort | ports.GrpcPort] = []
        if settings.rest_api_port:
            rest_port = self._held["rest_api_port"]
            self._ports.append(ports.RestPort(settings, application, tls, rest_port))
        if settings.port:
            servicers = (
                grpc_services.PredictionService(self._service),
                grpc_services.ModelService(self._service, reload_allowed),
                self._health,
            )
            self._ports.append(
                ports.GrpcPort(
                    settings, servicers, token, credentials, self._held["port"]
                )
            )
        self._tasks: list[asyncio.Task] = []

    async def start(self) -> None:
        """Loads the models and opens the ports.

        Raises:
            errors.ServingError: No model could be loaded.
            OSError: A port is taken.
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
            print_line(label)
        for port in self._ports:
            await port.start()
        self._tasks.append(asyncio.create_task(self._keep_health()))
        if self._settings.model_config_file_poll_wait_seconds:
            self._tasks.append(asyncio.create_task(self._keep_config()))
        print_line(
            f"serving {', '.join(names)} at {' and '.join(map(str, self._ports))}"
        )
        if self._settings.demo:
            print_line(f"a page to try it: {self._ports[0]}{demo_page.PATH}")

    def give_up_loading(self) -> None:
        """Stops loading; versions that are being loaded are left as they are."""
        self.store.stop_loading()
        self._loader.give_up()

    async def stop(self) -> None:
        """Accepts no more requests, and answers those that it has accepted."""
        seconds = self._settings.drain_seconds
        for task in self._tasks:
            task.cancel()
        await self._health.enter_graceful_shutdown()
        await asyncio.gather(*(port.stop(seconds) for port in self._ports))

    def close(self, deadline: float = math.inf) -> bool:
        """Frees the models, and ports that were never opened.

        Args:
            deadline: Time of `time.monotonic` after which it waits no longer.

        Returns:
            Whether all has ended; else threads go on that cannot be told to stop.
        """
        for held in self._held.values():
            held.close()
        self.give_up_loading()
        ended = self._service.close(deadline)
        return self.store.close(deadline) and ended

    async def _keep_health(self) -> None:
        """Updates the health service, and lets the ports close stalled clients."""
        while True:
            ready = self.store.ready()
            status = _Status.SERVING if ready else _Status.NOT_SERVING
            for name in ("", *grpc_services.NAMES):
                await self._health.set(name, status)
            for port in self._ports:
                port.look_after()
            await asyncio.sleep(_TICK)

    async def _keep_config(self) -> None:
        """Reads the list of models again, and takes it when it has changed."""
        loop = asyncio.get_running_loop()
        told = ""
        while True:
            await asyncio.sleep(self._settings.model_config_file_poll_wait_seconds)
            try:
                models = config.read_models(self._settings.model_config_file)
                if models != self._models:
                    await loop.run_in_executor(None, self.store.configure, models)
                    self._models = models
                told = ""
            except (OSError, ValueError, errors.ServingError) as error:
                # It is tried again each time: a label's version may have come.
                if told != str(error):
                    told = str(error)
                    print_line(f"the model config stays as it was: {told}")


def run_server(
    settings: options.Options, held: dict[str, listening.HeldPort] | None = None
) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit code.

    Args:
        settings: The flags.
        held: See `Server`.

    Raises:
        OSError, ValueError, errors.ServingError: It could not begin.
    """
    # Messages of TensorFlow's own loader are not for users.
    tf.get_logger().setLevel("ERROR")
    for name in ("tornado.access", "tornado.general"):
        logging.getLogger(name).setLevel("ERROR")
    _hide_notes()
    _warn(settings)
    code, ended = asyncio.run(_run(Server(settings, held), settings.drain_seconds))
    if not ended:
        # A graph that is being read, or run, would hold the process.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


async def _run(server: Server, drain_seconds: float) -> tuple[int, bool]:
    """Serves; returns the exit code, and whether all threads have ended."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    deadline, ended = math.inf, True
    try:
        waiting = asyncio.create_task(stopped.wait())
        starting = asyncio.create_task(server.start())
        await asyncio.wait((starting, waiting), return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
            await waiting
        deadline = time.monotonic() + drain_seconds
        for number in (signal.SIGTERM, signal.SIGINT):
            # A second one ends at once.
            loop.remove_signal_handler(number)
        server.give_up_loading()
        if starting.done():
            print_line("draining")
            await server.stop()
        else:
            starting.cancel()
    finally:
        with contextlib.suppress(asyncio.CancelledError):
            ended = await loop.run_in_executor(None, server.close, deadline)
    print_line(
        "stopped" if ended else "stopped; what was being loaded or run is given up"
    )
    return 0, ended


def print_line(line: str) -> None:
    """Prints a line on standard error, if it can be written: serving goes on anyway."""
    with contextlib.suppress(OSError, ValueError):
        print(f"dfdetect serve: {line}", file=sys.stderr, flush=True)


def _models(settings: options.Options) -> Any:
    if settings.model_config_file:
        return config.read_models(settings.model_config_file)
    return config.build_models_config(settings.model_name, settings.model_base_path)


def _read_tls(settings: options.Options) -> tuple[Any, Any]:
    """Reads the certificates: the TLS context of REST and the credentials of gRPC."""
    if settings.tls_certificate:
        files = settings.tls_certificate, settings.tls_key, settings.tls_client_ca
        return security.tls_context(*files), security.grpc_credentials(*files)
    if settings.ssl_config_file:
        return None, config.read_grpc_credentials(settings.ssl_config_file)
    return None, None


def _build_loader(
    settings: options.Options, measured: metrics.Metrics
) -> servable.Loader:
    parameters = None
    if settings.enable_batching:
        parameters = config.Batching()
        if settings.batching_parameters_file:
            parameters = config.read_batching(settings.batching_parameters_file)
    parallelism = settings.tensorflow_session_parallelism
    session = config_pb2.ConfigProto(
        intra_op_parallelism_threads=settings.tensorflow_intra_op_parallelism
        or parallelism,
        inter_op_parallelism_threads=settings.tensorflow_inter_op_parallelism
        or parallelism,
    )
    warm_up = None
    if settings.enable_model_warmup:
        warm_up = functools.partial(
            inference.warm_up, max_bytes=settings.max_request_bytes
        )
    return servable.Loader(
        measured,
        parameters,
        [tag for tag in settings.saved_model_tags.split(",") if tag],
        session,
        warm_up,
        settings.max_run_seconds,
        settings.max_pixels,
    )


def _hide_notes() -> None:
    """Runs a small graph first, as TensorFlow tells some notes once, at the first run.

    What is written later is told: a server has no end at which a log could be shown.
    """
    with console.notes_hidden(), tf.Graph().as_default():
        with tf.compat.v1.Session() as session:
            session.run(tf.constant(0))


def _warn(settings: options.Options) -> None:
    for flag in settings.ignored:
        print_line(f"{flag} has no meaning here")
    if settings.ssl_config_file and settings.rest_api_port:
        print_line(
            "--ssl_config_file is for gRPC alone: REST is in clear; "
            "--tls_certificate is for both"
        )
    if security.is_loopback(settings.host):
        return
    if not settings.token and not settings.tls_client_ca:
        print_line(
            f"anyone who reaches {settings.host} may use this server: there is neither "
            "a token nor a client CA"
        )
    if settings.token and not settings.tls_certificate:
        print_line("the token travels in clear: there is no TLS certificate")
