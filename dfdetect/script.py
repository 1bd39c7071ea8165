"""Runs the `main` of a script so that a mistake is told in one line.

The exit code is 2 for a usage error, 1 where data cannot be used, and 130 after an
interrupt.
"""

import os
import sys
from collections.abc import Callable
from typing import NoReturn

from absl import app, flags

from dfdetect import console

_VERBOSE = flags.DEFINE_bool(
    "verbose",
    False,
    "Show what TensorFlow and others say, too, which is else shown only if this dies.",
)


def run(main: Callable[[list[str]], None]) -> NoReturn:
    """Parses the flags and calls `main` with the arguments that are left.

    What libraries write to standard error is kept apart, see `console`; a script that
    imports TensorFlow at its top begins with `console.capture` before that.
    """
    console.capture()
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS["verbose"])
    try:
        app.run(lambda argv: _guarded(main, argv), flags_parser=_parse)
    except SystemExit:
        console.dismiss()
        raise
    except BaseException:
        console.release(show=True)
        raise


def say(message: str) -> None:
    """Tells the person, on standard error."""
    name = os.path.basename(sys.argv[0])
    line = f"{name}: {' '.join(message.split())}"
    print(line, file=console.stream(), flush=True)


def _guarded(main: Callable[[list[str]], None], argv: list[str]) -> None:
    if _VERBOSE.value:
        console.release(show=True)
    try:
        if len(argv) > 1:
            raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
        main(argv)
    # Whatever is in the way of the output was named by a flag.
    except (app.UsageError, FileExistsError) as error:
        _exit(2, str(error))
    except (ValueError, OSError, ImportError) as error:
        _exit(1, str(error))
    except KeyboardInterrupt:
        _exit(130, "interrupted; start the same command again")


def _parse(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        _exit(2, str(error))


def _exit(code: int, message: str) -> NoReturn:
    say(message)
    sys.exit(code)
