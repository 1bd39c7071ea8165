"""Keeps what libraries write to standard error apart from what is said to a person.

TensorFlow, the libraries below it and their Python parts write notes to standard error
in which our own lines get lost. While they are captured, the descriptor leads into a
log without a name, and `stream` to where it led before. The log is shown when the
process fails: after an exception that nobody expected, or when it dies, which a small
shell waits for.

Imports nothing heavy, so that the capture can begin before TensorFlow is imported.
"""

import contextlib
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import BinaryIO, TextIO

_STDERR = 2
_MOST_SHOWN = 65536  # Bytes of the log, from its end.

# Waits for the process to end; without a line before that, it has not ended well.
_WATCH = 'trap "" HUP INT TERM; read -r _ || tail -c {most} <&{log} >&2'

# What ends a command with a line of ours, or none.
_EXPECTED = (SystemExit, KeyboardInterrupt, OSError)

_LOGGER = "dfdetect"


class _Capture:
    """The descriptor of standard error, led into a log until `end`."""

    def __init__(self) -> None:
        descriptor, path = tempfile.mkstemp(prefix="dfdetect-", suffix=".log")
        self._log: BinaryIO = open(path, "rb", buffering=0)
        # Another, as each has a place of its own in the log.
        with open(path, "rb", buffering=0) as watched:
            os.unlink(path)
            sys.stderr.flush()
            self.person: TextIO = open(
                os.dup(_STDERR), "w", 1, "utf-8", errors="backslashreplace"
            )
            os.dup2(descriptor, _STDERR)
            os.close(descriptor)
            self._watcher: subprocess.Popen | None = None
            command = _WATCH.format(most=_MOST_SHOWN, log=watched.fileno())
            with contextlib.suppress(OSError):  # There may be no shell.
                self._watcher = subprocess.Popen(
                    ["/bin/sh", "-c", command],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=self.person,
                    pass_fds=(watched.fileno(),),
                )
        self._handler = logging.StreamHandler(self.person)
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%X"))
        ours = logging.getLogger(_LOGGER)
        ours.addHandler(self._handler)
        ours.propagate = False

    def dismiss(self) -> None:
        """Tells the watcher that whatever ends the process now is no failure."""
        if self._watcher:
            with contextlib.suppress(OSError):
                self._watcher.communicate(b"\n")
            self._watcher = None

    def end(self, show: bool) -> None:
        """Leads the descriptor to where it led before.

        Args:
            show: Whether to write what was captured there.
        """
        self.dismiss()
        sys.stderr.flush()
        self.person.flush()
        os.dup2(self.person.fileno(), _STDERR)
        if show:
            size = os.fstat(self._log.fileno()).st_size
            self._log.seek(max(size - _MOST_SHOWN, 0))
            with contextlib.suppress(OSError):
                os.write(_STDERR, self._log.read())
        ours = logging.getLogger(_LOGGER)
        ours.removeHandler(self._handler)
        ours.propagate = True
        self.person.close()
        self._log.close()


_capture: _Capture | None = None


def stream() -> TextIO:
    """Where a person is told something: standard error, captured or not."""
    return _capture.person if _capture else sys.stderr


def capture() -> None:
    """Begins to keep apart what libraries write to standard error.

    Nothing happens where that is done already, where standard error has been replaced,
    as by a test, and where no log can be made. What the user has set in the environment
    stays.
    """
    global _capture
    # A script knows its flags only once TensorFlow is imported. 1: no mere notes.
    level = "0" if "--verbose" in sys.argv[1:] else "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", level)
    if _capture or not _is_original(sys.stderr):
        return
    with contextlib.suppress(OSError):
        _capture = _Capture()


def release(show: bool = False) -> None:
    """Ends the capture.

    Args:
        show: Whether to write what was captured to standard error.
    """
    global _capture
    if _capture:
        ended, _capture = _capture, None
        ended.end(show)


def dismiss() -> None:
    """Keeps the log from being shown: whatever ends the process now is no failure.

    The capture goes on, as libraries write something at their end, too.
    """
    if _capture:
        _capture.dismiss()


@contextlib.contextmanager
def captured(verbose: bool = False) -> Iterator[None]:
    """Captures within a block; an exception that nobody expected shows the log.

    Args:
        verbose: Captures nothing, and asks libraries to say more.
    """
    if verbose:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "0")
        # Notes of lower levels go to standard output, which is for result lines.
        os.environ.setdefault("OPENCV_LOG_LEVEL", "WARNING")
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "24")  # AV_LOG_WARNING
        yield
        return
    capture()
    try:
        yield
    except _EXPECTED:
        release()
        raise
    except BaseException:
        release(show=True)
        raise
    release()


def _is_original(file: TextIO) -> bool:
    """Whether it is the standard error that the process began with."""
    try:
        return file is sys.__stderr__ and file.fileno() == _STDERR
    except (AttributeError, OSError, ValueError):
        return False
