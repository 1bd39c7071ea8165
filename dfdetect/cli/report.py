"""The command `dfdetect report`; imports nothing heavy before it runs."""

import argparse
import os

from dfdetect import console
from dfdetect.cli import detect_arguments
from dfdetect.cli.parser import Commands, Parser, add_verbose
from dfdetect.export import runtime


def add_arguments(commands: Commands) -> Parser:
    """Adds the command to those of `dfdetect` and returns its parser."""
    parser = commands.add_parser(
        "report",
        allow_abbrev=False,
        help="make a page of result lines, of any number of runs",
        description="Makes a page of the lines that `dfdetect detect` and "
        "serve/batch_detect.py write. Above 2,000 files it shows numbers and the 500 "
        "most suspicious, and a folder of further pages beside it lists all.",
        epilog="Exit code: 0 all lines are shown, 3 some were no result lines, "
        "2 usage error, 1 the command failed.",
    )
    parser.set_defaults(run=run_command)
    parser.add_argument(
        "paths", nargs="+", metavar="RESULTS", help="a file of JSON Lines"
    )
    parser.add_argument(
        "--output", metavar="FILE", required=True, help=".html: the page"
    )
    parser.add_argument(
        "--no_images",
        action="store_true",
        help="do not read the images and clips for small copies of them",
    )
    add_verbose(parser)
    return parser


def run_command(arguments: argparse.Namespace, parser: Parser) -> int:
    """Runs the command; returns its exit code."""
    for path in arguments.paths:
        if not os.path.isfile(path):
            parser.error(f"RESULTS must be files, got {path}")
    detect_arguments.check_page(
        arguments.output, arguments.paths, parser, option="--output"
    )
    runtime.set_variables()
    from dfdetect.reports import results_report

    try:
        num_wrong = results_report.write_report(
            arguments.paths,
            arguments.output,
            command=arguments.command_line,
            say=console.say,
            with_images=not arguments.no_images,
        )
    except (FileExistsError, ValueError) as error:
        parser.error(str(error))
    if num_wrong:
        console.say(f"{num_wrong:,} lines are not result lines and left out")
    return console.UNREAD if num_wrong else 0
