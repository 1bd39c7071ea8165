"""Terminal output: messages, exit codes, progress, and capture of library output.

TensorFlow and other libraries write notes to standard error that would hide our own
messages. During a capture the file descriptor is redirected to an unnamed log, while
`stream` still leads to the terminal. The log is shown if the process fails: after an
unexpected exception, or when it dies, which a small watching shell detects.

Imports nothing heavy, so that a capture can begin before TensorFlow is imported.
"""

import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, TextIO

# Exit codes.
FAILED, USAGE, UNREAD, INTERRUPTED, PIPE_CLOSED = 1, 2, 3, 130, 141

_STDOUT, _STDERR = 1, 2
_MAX_SHOWN = 65536  # Last bytes of the log.

# Waits for the process to end, and shows the log unless a line came before that.
_WATCH = 'trap "" HUP INT TERM; read -r _ || tail -c {most} <&{log} >&2'

# Exceptions that end a command with our own message, or none.
_EXPECTED = (SystemExit, KeyboardInterrupt, OSError)

# A note of absl's logging, and what it says before its first line.
_NOTE = re.compile(rb"I\d{4} |WARNING: All log messages before absl::InitializeLog")
_hiding = threading.RLock()  # One redirection at a time.

_LOGGER = "dfdetect"
_SECONDS_BETWEEN_LINES = 30  # Without a terminal for a progress bar.


class _Capture:
    """Redirects the descriptor of standard error to a log until `end`."""

    def __init__(self) -> None:
        descriptor, path = tempfile.mkstemp(prefix="dfdetect-", suffix=".log")
        self._log: BinaryIO = open(path, "rb", buffering=0)
        # A second file object, because each has its own position in the log.
        with open(path, "rb", buffering=0) as watched:
            os.unlink(path)
            sys.stderr.flush()
            self.person: TextIO = open(
                os.dup(_STDERR), "w", 1, "utf-8", errors="backslashreplace"
            )
            os.dup2(descriptor, _STDERR)
            os.close(descriptor)
            self._watcher: subprocess.Popen | None = None
            command = _WATCH.format(most=_MAX_SHOWN, log=watched.fileno())
            with contextlib.suppress(OSError):  # The system may have no shell.
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
        """Tells the watcher that the end of the process is not a failure."""
        if self._watcher:
            with contextlib.suppress(OSError):
                self._watcher.communicate(b"\n")
            self._watcher = None

    def end(self, show: bool) -> None:
        """Restores the descriptor of standard error.

        Args:
            show: Whether to write the captured log to it.
        """
        self.dismiss()
        sys.stderr.flush()
        self.person.flush()
        os.dup2(self.person.fileno(), _STDERR)
        if show:
            size = os.fstat(self._log.fileno()).st_size
            self._log.seek(max(size - _MAX_SHOWN, 0))
            with contextlib.suppress(OSError):
                os.write(_STDERR, self._log.read())
        ours = logging.getLogger(_LOGGER)
        ours.removeHandler(self._handler)
        ours.propagate = True
        self.person.close()
        self._log.close()


_capture: _Capture | None = None


def open_missing_streams() -> None:
    """Opens the null device where the process was started without a standard stream.

    Else the first file that is opened would get its number, and with it the messages
    of libraries; and Python would print messages to standard output, and fail to flush
    one that is missing.
    """
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= _STDERR:
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)
    if sys.stdout is None:
        sys.stdout = open(_STDOUT, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = open(_STDERR, "w", encoding="utf-8", closefd=False)


def exit_on_sigterm() -> Any:
    """Lets SIGTERM end the process as an exit, so that it removes what lies aside.

    Returns:
        The handler before.
    """
    return signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def stream() -> TextIO:
    """Returns the stream for messages to the user: the original standard error."""
    return _capture.person if _capture else sys.stderr


def capture() -> None:
    """Starts to capture what libraries write to standard error.

    Does nothing if a capture is active, if standard error has been replaced, as by a
    test, or if no log can be created. Environment variables of the user are kept.
    """
    global _capture
    # A script parses its flags only after importing TensorFlow. 1: no INFO messages.
    level = "0" if "--verbose" in sys.argv[1:] else "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", level)
    if _capture or not _is_original(sys.stderr):
        return
    with contextlib.suppress(OSError):
        _capture = _Capture()


def release(show: bool = False) -> None:
    """Ends the capture.

    Args:
        show: Whether to write the captured log to standard error.
    """
    global _capture
    if _capture:
        ended, _capture = _capture, None
        ended.end(show)


def dismiss() -> None:
    """Prevents the log from being shown: the end of the process is not a failure.

    The capture continues, because libraries also write at exit.
    """
    if _capture:
        _capture.dismiss()


@contextlib.contextmanager
def captured(verbose: bool = False) -> Iterator[None]:
    """Captures within a block; an unexpected exception shows the log.

    Args:
        verbose: Whether to capture nothing and to raise the log level of libraries.
    """
    if verbose:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "0")
        # Lower levels are written to standard output, which is for results.
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


@contextlib.contextmanager
def notes_hidden() -> Iterator[None]:
    """Hides the notes that absl's logging below Python writes within a block.

    No setting silences them, and a process that uses dfdetect as a library captures
    nothing. Whatever else is written to the descriptor of standard error within the
    block, also by other threads, appears when the block ends. With
    `TF_CPP_MIN_LOG_LEVEL=0` nothing is hidden.
    """
    with _hiding, contextlib.ExitStack() as opened:
        try:
            log = opened.enter_context(tempfile.TemporaryFile())
            shown = opened.enter_context(os.fdopen(os.dup(_STDERR), "wb", 0))
        except OSError:  # There is no room for a log, or no standard error.
            log = None
        wanted = os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0"
        if log is None or sys.stderr is None or wanted:
            yield
            return
        sys.stderr.flush()
        os.dup2(log.fileno(), _STDERR)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(shown.fileno(), _STDERR)
            log.seek(0)
            with contextlib.suppress(OSError):
                shown.write(b"".join(line for line in log if not _NOTE.match(line)))


def _is_original(file: TextIO) -> bool:
    """Whether a file is the standard error that the process started with."""
    try:
        return file is sys.__stderr__ and file.fileno() == _STDERR
    except (AttributeError, OSError, ValueError):
        return False


class Progress:
    """A progress bar on a terminal, or occasional lines elsewhere, and a summary.

    Args:
        total: Number of items.
        say: Prints a line.
        noun: Singular name of an item.
        done: Number of items finished by an earlier run.
        note: Addition to the summary, or "".
    """

    def __init__(
        self,
        total: int,
        say: Callable[[str], None],
        *,
        noun: str = "file",
        done: int = 0,
        note: str = "",
    ) -> None:
        # Imported here, because help and usage errors should not wait for it.
        import tqdm

        self._total = total
        self._say = say
        self._noun = noun
        self._note = f"; {note}" if note else ""
        self._before = self._done = done
        self._outcomes: Counter[str] = Counter()
        self._start = self._last_line = time.monotonic()
        self._bar = tqdm.tqdm(
            total=total,
            initial=done,
            unit=noun,
            file=stream(),
            disable=total < 2 or not stream().isatty(),
            leave=False,
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type | None, *rest: object) -> None:
        self._bar.close()
        if kind is None:
            number = self._done - self._before
            outcomes = ", ".join(f"{n} {name}" for name, n in self._outcomes.items())
            noun = self._noun if number == 1 else f"{self._noun}s"
            self._say(
                f"{number} {noun}: {outcomes or 'none left'}{self._note}; "
                f"{self._speed()}"
            )

    def paused(self) -> contextlib.AbstractContextManager:
        """Returns a context in which others may write to the terminal."""
        return self._bar.external_write_mode(stream())

    def count(self, outcome: str, number: int = 1) -> None:
        """Counts finished items.

        Args:
            outcome: Name of their outcome, for the summary.
            number: Number of items.
        """
        self._done += number
        self._outcomes[outcome] += number
        self._bar.update(number)
        now = time.monotonic()
        if self._bar.disable and now - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = now
            self._say(f"{self._done} of {self._total} {self._noun}s; {self._speed()}")

    def _speed(self) -> str:
        seconds = time.monotonic() - self._start
        speed = (self._done - self._before) / max(seconds, 1e-3)
        return f"{seconds:.1f} s, {speed:.1f} {self._noun}s/s"


def say(message: str) -> None:
    """Prints a message to the user on standard error."""
    print(f"dfdetect: {message}", file=stream(), flush=True)
