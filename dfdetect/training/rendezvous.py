"""Waits until all workers of a training are up, before TensorFlow connects them.

TensorFlow's own wait cannot be interrupted, has no timeout and does not name workers.
"""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

_TRY_EVERY = 0.5  # Seconds.
_SAY_EVERY = 30.0
# A worker that does not report that it found us is in TensorFlow's own wait already, as
# after a restart of this worker alone.
_GRACE = 5.0


class WorkerMissing(Exception):
    """A worker did not start in time."""


def wait_for_workers(
    tf_config: str, timeout: float, say: Callable[[str], None]
) -> None:
    """Returns once every other worker listens on its port and has found this one.

    Args:
        tf_config: Content of `TF_CONFIG`, see `distribute.check_tf_config`.
        timeout: Longest time to wait in seconds.
        say: Called now and then with a line that names the missing workers.

    Raises:
        OSError: The port of this worker is in use.
        WorkerMissing: Another worker did not start in time.
    """
    config = json.loads(tf_config)
    own, hosts = _own_name(config), _other_hosts(config)
    began = time.monotonic()
    said = began - _SAY_EVERY + 5  # The first line after five seconds.
    others = {*hosts}
    with _Listener(_own_port(config)) as heard:
        while True:
            # A worker that answered once may have gone on to TensorFlow's wait.
            hosts = missing = {
                name: host for name, host in hosts.items() if not _greet(host, own)
            }
            if not missing:
                break
            waited = time.monotonic() - began
            names = ", ".join(f"{name} ({host})" for name, host in missing.items())
            if waited >= timeout:
                raise WorkerMissing(f"{names} did not come within {timeout:g} s")
            if time.monotonic() - said >= _SAY_EVERY:
                said = time.monotonic()
                say(f"waits for {names} for {waited:.0f} s, at most {timeout:g} s")
            time.sleep(min(_TRY_EVERY, timeout))
        until = time.monotonic() + _GRACE
        while not others <= heard and time.monotonic() < until:
            time.sleep(_TRY_EVERY / 10)


class _Listener:
    """Collects the names that others send to a port, until its context ends."""

    def __init__(self, port: int) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind(("", port))
        except OSError as error:
            self._socket.close()
            raise OSError(
                f"port {port}, which TF_CONFIG gives this worker, cannot be opened: "
                f"{error.strerror}"
            ) from error
        self._socket.listen()
        self._heard: set[str] = set()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> set[str]:
        self._thread.start()
        return self._heard

    def __exit__(self, *_: object) -> None:
        # Only this wakes a thread that waits in `accept`.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                connection = self._socket.accept()[0]
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(1)
                self._heard.add(connection.recv(64).decode(errors="replace"))


def _own_name(config: Mapping[str, Any]) -> str:
    return f"{config['task']['type']} {int(config['task']['index'])}"


def _other_hosts(config: Mapping[str, Any]) -> dict[str, str]:
    """Returns hosts with ports by names such as "worker 1"."""
    hosts = {
        f"{kind} {index}": host
        for kind, listed in config["cluster"].items()
        for index, host in enumerate(listed)
    }
    return {name: hosts[name] for name in hosts if name != _own_name(config)}


def _own_port(config: Mapping[str, Any]) -> int:
    task = config["task"]
    host = config["cluster"][task["type"]][int(task["index"])]
    return int(host.rpartition(":")[2])


def _greet(host: str, own: str) -> bool:
    """Sends a worker our name; returns whether it listens."""
    name, _, port = host.rpartition(":")
    try:
        with socket.create_connection((name, int(port)), timeout=5) as connection:
            connection.sendall(own.encode())
    except OSError:
        return False
    return True
