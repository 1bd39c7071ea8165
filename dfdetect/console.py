"""The terminal: what is said to a person, apart from what libraries write there.

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
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import BinaryIO, TextIO

# Exit codes.
FAILED, USAGE, UNREAD, INTERRUPTED, PIPE_CLOSED = 1, 2, 3, 130, 141

_STDERR = 2
_MOST_SHOWN = 65536  # Bytes of the log, from its end.

# Waits for the process to end; without a line before that, it has not ended well.
_WATCH = 'trap "" HUP INT TERM; read -r _ || tail -c {most} <&{log} >&2'

# What ends a command with a line of ours, or none.
_EXPECTED = (SystemExit, KeyboardInterrupt, OSError)

_LOGGER = "dfdetect"
_SECONDS_BETWEEN_LINES = 30  # where there is no terminal for a bar


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


class Progress:
    """A bar on a terminal, elsewhere a line now and then, and a summary at the end.

    Args:
        total: Items in all.
        say: Prints a line.
        noun: What one item is.
        done: Items that an earlier run has finished.
        note: What else the summary says, or "".
    """

    def __init__(
        self,
        total: int,
        say: Callable[[str], None],
        noun: str = "file",
        done: int = 0,
        note: str = "",
    ) -> None:
        # Help and usage errors shall not wait for it.
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
        """While it lasts, others may write to the terminal."""
        return self._bar.external_write_mode(stream())

    def count(self, outcome: str, number: int = 1) -> None:
        """One item more, or several, and what became of them."""
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
    """Tells the person, on standard error."""
    print(f"dfdetect: {message}", file=stream(), flush=True)
