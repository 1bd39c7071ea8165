"""The console command `dfdetect`.

TensorFlow is imported when a command needs it, so that help and usage errors are
printed at once.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import dfdetect
from dfdetect import console, files
from dfdetect.cli import detect, report, search, serve
from dfdetect.cli.bench import command as bench
from dfdetect.cli.parser import Parser

_COMMANDS: dict[str, Any] = {
    "detect": detect,
    "report": report,
    "search": search,
    "serve": serve,
    "bench": bench,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code.

    Args:
        argv: The arguments; by default those of the process.
    """
    console.open_missing_streams()
    parser, commands = build_parsers()
    arguments, rest = parser.parse_known_args(argv)
    if arguments.command is None:
        parser.print_help(sys.stderr)
        return console.USAGE
    command = commands[arguments.command]
    # argparse returns paths that follow an option after another path unparsed.
    takes_paths = hasattr(arguments, "paths")
    if any(word.startswith("-") or not takes_paths for word in rest):
        command.error(f"unknown arguments: {' '.join(rest)}")
    if takes_paths:
        arguments.paths += rest
    arguments.command_line = list(sys.argv[1:] if argv is None else argv)
    try:
        # Commands without --verbose run long or start processes: messages of libraries
        # are shown there at once.
        has_log = hasattr(arguments, "verbose")
        log = (
            console.captured(arguments.verbose) if has_log else contextlib.nullcontext()
        )
        with log, _exit_on_sigterm() if has_log else contextlib.nullcontext():
            return arguments.run(arguments, command)
    except KeyboardInterrupt:
        console.say("interrupted")
        return console.INTERRUPTED
    except BrokenPipeError:
        _give_up_output()
        return console.PIPE_CLOSED
    except OSError as error:
        console.say(files.describe_error(error))
        try:
            sys.stdout.flush()
        except OSError:
            _give_up_output()
        return console.FAILED


@contextlib.contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """Lets SIGTERM end the command as an exit, so that it removes what lies aside."""
    # Only the main thread may set handlers.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = console.exit_on_sigterm()
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def build_parsers() -> tuple[Parser, dict[str, Parser]]:
    """Builds the parser of the command line; those of its commands are by name."""
    parser = Parser(prog="dfdetect", description=dfdetect.__doc__, allow_abbrev=False)
    parser.add_argument(
        "--version", action="version", version=f"dfdetect {dfdetect.__version__}"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    return parser, {
        name: module.add_arguments(commands) for name, module in _COMMANDS.items()
    }


def _give_up_output() -> None:
    """Replaces standard output, so that closing it does not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
