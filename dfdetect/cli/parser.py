"""The argument parser that the commands share; imports nothing heavy."""

import argparse
from typing import Any, NoReturn

from dfdetect import console

# The result of `add_subparsers`, whose type has no public name.
Commands = Any


class Parser(argparse.ArgumentParser):
    """Reports a usage error in one line."""

    def error(self, message: str) -> NoReturn:
        message = f"{self.prog}: {message} (see {self.prog} --help)"
        print(message, file=console.stream(), flush=True)
        self.exit(console.USAGE)


def add_verbose(parser: Parser) -> None:
    """Adds `--verbose`, see `console.captured`."""
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="show the messages of TensorFlow and other libraries, which are otherwise "
        "shown only if the command fails",
    )
