"""The parser that the commands share; imports nothing heavy."""

import argparse
from typing import Any, NoReturn

from dfdetect import console

# What `add_subparsers` gives, which has no public name.
Commands = Any


class Parser(argparse.ArgumentParser):
    """Says a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        message = f"{self.prog}: {message} (see {self.prog} --help)"
        print(message, file=console.stream(), flush=True)
        self.exit(console.USAGE)


def add_verbose(parser: Parser) -> None:
    """Adds `--verbose`, see `console.captured`."""
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="show what TensorFlow and others say, too; else it is shown only if the "
        "command dies",
    )
