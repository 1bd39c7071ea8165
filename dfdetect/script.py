"""Runs the `main` function of a script, and reports its errors in one line.

The exit code is 2 for a usage error, 1 for unusable data, and 130 after an interrupt.
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
    "Show the messages of TensorFlow and other libraries, else shown only on failure.",
)


def run_main(main: Callable[[list[str]], None]) -> NoReturn:
    """Parses the flags, calls `main` with the remaining arguments, and exits.

    Output of libraries to standard error is captured, see `console`; a script that
    imports TensorFlow at its top calls `console.capture` before that.
    """
    console.open_missing_streams()
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
    """Prints a message to the user on standard error."""
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
    # An existing output was named by a flag.
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
