"""Starts of Python in which the heavy libraries are imported already.

Importing TensorFlow takes longer than most scripts of a test. A process imports it
once and forks itself for each start, before anything of TensorFlow runs. dfdetect is
not among what is imported: each start imports it anew, as that of a user.
"""

import gc
import importlib
import json
import os
import pathlib
import runpy
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Sequence

_IMPORTED = ("tensorflow", "tensorflow_datasets", "keras", "cv2", "scipy.stats")
_MOST = 2**18  # Bytes of a message, which holds the arguments of a start.


class WarmPython:
    """Runs Python in a folder, like `subprocess.run([sys.executable, ...])`.

    Args:
        folder: Working directory of each start.
        environment: Environment variables of each start.
    """

    def __init__(self, folder: pathlib.Path, environment: dict[str, str]) -> None:
        self.environment = environment
        self._lock = threading.Lock()
        self._channel, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(other.fileno())],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                pass_fds=(other.fileno(),),
            )

    def run(self, arguments: Sequence[str]) -> subprocess.CompletedProcess:
        """Runs it to its end; standard input is empty, and output is captured.

        Args:
            arguments: A script, `-c` and code or `-m` and a module, and what follows.
        """
        with self._lock:
            pipes = [os.pipe(), os.pipe()]
            message = json.dumps(arguments).encode()
            socket.send_fds(self._channel, [message], [write for _, write in pipes])
            shown = ["", ""]

            def read(place: int, descriptor: int) -> None:
                with open(descriptor, encoding="utf-8") as file:
                    shown[place] = file.read()

            readers = []
            for place, (descriptor, written) in enumerate(pipes):
                os.close(written)
                readers.append(threading.Thread(target=read, args=(place, descriptor)))
                readers[-1].start()
            for reader in readers:
                reader.join()
            code = int(self._channel.recv(_MOST))
        return subprocess.CompletedProcess(arguments, code, *shown)

    def close(self) -> None:
        """Ends the process that waits."""
        self._channel.close()
        self._process.wait()


def _wait_for_a_start(channel: socket.socket) -> list[str] | None:
    """Forks for each start; returns its arguments in the new process."""
    while True:
        message, pipes, _, _ = socket.recv_fds(channel, _MOST, 2)
        if not message:
            return None
        started = os.fork()
        if not started:
            channel.close()
            for descriptor, pipe in zip((1, 2), pipes, strict=True):
                os.dup2(pipe, descriptor)
                os.close(pipe)
            _open_streams()
            return json.loads(message)
        for pipe in pipes:
            os.close(pipe)
        _, status = os.waitpid(started, 0)
        channel.send(b"%d" % os.waitstatus_to_exitcode(status))


def _open_streams() -> None:
    """Makes standard output and error anew: those of before took them for files."""
    for name, descriptor, buffering, errors in (
        ("stdout", 1, -1, "strict"),
        ("stderr", 2, 1, "backslashreplace"),  # Line by line, as of Python itself.
    ):
        stream = open(  # noqa: SIM115
            descriptor, "w", buffering, "utf-8", errors, closefd=False
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _run(arguments: list[str]) -> None:
    """Runs what Python would run with these arguments."""
    first, *others = arguments
    if first == "-m":
        sys.argv, sys.path[0] = others, os.getcwd()
        runpy.run_module(others[0], run_name="__main__", alter_sys=True)
        return
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    if first == "-c":
        sys.argv, sys.path[0] = ["-c", *others[1:]], ""
        code = compile(others[0], "<string>", "exec")
    else:
        path = pathlib.Path(first)
        sys.argv, sys.path[0] = arguments, str(path.absolute().parent)
        main.__file__ = first
        code = compile(path.read_bytes(), first, "exec")
    exec(code, main.__dict__)


if __name__ == "__main__":
    for _name in _IMPORTED:
        importlib.import_module(_name)
    gc.collect()
    gc.freeze()  # Else each start would copy what it only looks through.
    _arguments = _wait_for_a_start(socket.socket(fileno=int(sys.argv[1])))
    if _arguments:
        _run(_arguments)
