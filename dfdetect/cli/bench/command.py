"""The command `dfdetect bench`; imports nothing heavy before it runs."""

import argparse
import sys

from dfdetect import console
from dfdetect.cli.bench import options
from dfdetect.cli.parser import Commands, Parser


def add_arguments(commands: Commands) -> Parser:
    """Adds the command to those of `dfdetect` and returns its parser."""
    parser = commands.add_parser(
        "bench",
        allow_abbrev=False,
        help="measure how fast the graph is on this machine",
        description="Times the chained graph from encoded bytes to verdicts, its "
        "stages, and both models alone, in turns; then the start and the memory of "
        "`dfdetect detect`. Prints tables in Markdown.",
        epilog="Exit code: 0 success, 2 usage error, 1 the measurement failed.",
    )
    parser.set_defaults(run=run_command)
    options.add_arguments(parser)
    return parser


def run_command(arguments: argparse.Namespace, parser: Parser) -> int:
    """Runs the command; returns its exit code."""
    from dfdetect.cli.bench import run as measuring

    try:
        measuring.run_benchmark(arguments)
    except (RuntimeError, ValueError) as error:
        print(f"dfdetect bench: {error}", file=sys.stderr)
        return console.FAILED
    return 0
