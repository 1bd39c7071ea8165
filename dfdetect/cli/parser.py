"""What `dfdetect` and its commands can be asked for; imports nothing heavy."""

import argparse
from collections.abc import Callable, Mapping
from typing import NoReturn

import dfdetect
from dfdetect import console
from dfdetect.cli import argument_types
from dfdetect.cli.bench import options as benchmark_options
from dfdetect.serving import options as serving_options

USAGE = 2  # Exit code of a command that was not understood.

# `aggregation.METHODS`, whose module is imported later.
_AGGREGATES = ("mean", "median", "max", "top_k", "confident")

# The arguments of a command and its parser, to the exit code.
Run = Callable[[argparse.Namespace, "Parser"], int]


class Parser(argparse.ArgumentParser):
    """Says a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        message = f"{self.prog}: {message} (see {self.prog} --help)"
        print(message, file=console.stream(), flush=True)
        self.exit(USAGE)


def build(commands_run: Mapping[str, Run]) -> tuple[Parser, dict[str, Parser]]:
    """The parser of the command line, and those of its commands by their names.

    Args:
        commands_run: What runs each command.
    """
    parser = Parser(prog="dfdetect", description=dfdetect.__doc__, allow_abbrev=False)
    parser.add_argument(
        "--version", action="version", version=f"dfdetect {dfdetect.__version__}"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    detect = commands.add_parser(
        "detect",
        allow_abbrev=False,
        help="find heads in pictures and clips and judge them",
        description="Finds heads in pictures and clips and says how likely each is a "
        "deepfake. Prints one line of JSON for each file.",
        epilog="Exit code: 0 every file was read, 3 some were not, or something about "
        "them could not be written, 2 usage error, 1 the command failed.",
    )
    detect.set_defaults(run=commands_run["detect"])
    detect.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help="picture, clip, folder (recursive) or quoted pattern; "
        "by default a portrait that ships with matplotlib",
    )
    detect.add_argument(
        "--model", metavar="DIR", help="exported graph; by default our own weights"
    )
    detect.add_argument(
        "--output",
        metavar="DIR",
        default="",
        help="folder for copies with heads marked",
    )
    detect.add_argument(
        "--batch_size",
        metavar="N",
        type=argument_types.positive,
        default=8,
        help="pictures, or frames of a clip, judged at once (default 8)",
    )
    detect.add_argument(
        "--threshold",
        metavar="P",
        type=argument_types.probability,
        help="fake from this fake probability on, else real; by default from the "
        "model's own, with a band of uncertain below",
    )
    detect.add_argument(
        "--tile",
        action="store_true",
        help="look for small heads in overlapping tiles of large pictures, too: slower",
    )
    detect.add_argument(
        "--crops",
        action="store_true",
        help="each image is one head, cut out already: judge it whole, look for none",
    )
    detect.add_argument(
        "--explain",
        action="store_true",
        help="lay over each head of the copies, and show in the report, where it looks "
        "fake; needs --output or --report",
    )
    detect.add_argument(
        "--report",
        metavar="FILE",
        default="",
        help=".html: one page of all files with their pictures, for a person to read",
    )
    detect.add_argument(
        "--csv", action="store_true", help="a table with a row for each head"
    )
    detect.add_argument(
        "--index",
        metavar="DIR",
        help="of train/index.py: tell for each head the nearest known real and fake",
    )
    detect.add_argument(
        "--frames",
        metavar="N",
        type=argument_types.frames,
        default=32,
        help="frames of each clip that are judged, spread over its time, or 'all' "
        "(default 32)",
    )
    detect.add_argument(
        "--every",
        metavar="SECONDS",
        type=argument_types.seconds,
        help="judge a frame of a clip every so many seconds instead",
    )
    detect.add_argument(
        "--aggregate",
        choices=_AGGREGATES,
        default=_AGGREGATES[0],
        help="how the probability of a person in a clip is made of those of the "
        "frames (default mean)",
    )
    detect.add_argument(
        "--resume",
        metavar="FILE",
        help="note each answer in FILE; started again after an interruption, the same "
        "command passes over what is noted there",
    )
    detect.add_argument(
        "--camera",
        metavar="N|URL",
        help="judge a camera, by its number, or a stream until it ends; a line of JSON "
        "for each frame, and a window where there is a display",
    )
    _add_verbose(detect)
    search = commands.add_parser(
        "search",
        allow_abbrev=False,
        help="find known pictures that are like the given ones",
        description="Finds the entries of an index that are most like each picture, or "
        "each head in it. Prints one line of JSON for each picture.",
        epilog="Exit code: 0 every file was read, 3 some were not, 2 usage error, "
        "1 the command failed.",
    )
    search.set_defaults(run=commands_run["search"])
    search.add_argument(
        "paths", nargs="+", metavar="QUERY", help="picture, folder or quoted pattern"
    )
    search.add_argument(
        "--index", metavar="DIR", required=True, help="made by train/index.py"
    )
    search.add_argument(
        "--top_k",
        metavar="K",
        type=argument_types.positive,
        default=10,
        help="neighbours of each query (default 10)",
    )
    search.add_argument(
        "--heads",
        action="store_true",
        help="look for each head in a picture rather than the whole of it",
    )
    search.add_argument(
        "--keep_self",
        action="store_true",
        help="let a query that is in the index itself count",
    )
    search.add_argument(
        "--output",
        metavar="FILE",
        default="",
        help=".jpg or .png: a contact sheet of the queries beside what was found",
    )
    search.add_argument(
        "--model", metavar="DIR", help="exported graph; by default our own weights"
    )
    _add_verbose(search)
    serve = commands.add_parser(
        "serve",
        allow_abbrev=False,
        help="answer for models over the network, as TensorFlow Serving does",
        description="Serves SavedModels over gRPC and REST, in TensorFlow Serving's "
        "protocols. Needs pip install 'dfdetect[serve]'.",
        epilog="SIGTERM and SIGINT end it once the requests in flight have been "
        "answered. Exit code: 0 it was stopped, 2 usage error, 1 it could not begin.",
    )
    serve.set_defaults(run=commands_run["serve"])
    serving_options.add_arguments(serve)
    bench = commands.add_parser(
        "bench",
        allow_abbrev=False,
        help="measure how fast the graph is on this machine",
        description="Times the chained graph from encoded bytes to verdicts, its "
        "stages, and both models alone, in turns; then the start and the memory of "
        "`dfdetect detect`. Prints tables in Markdown.",
        epilog="Exit code: 0, 2 usage error, 1 it could not measure.",
    )
    bench.set_defaults(run=commands_run["bench"])
    benchmark_options.add_arguments(bench)
    return parser, {
        "detect": detect,
        "search": search,
        "serve": serve,
        "bench": bench,
    }


def _add_verbose(parser: Parser) -> None:
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="show what TensorFlow and others say, too; else it is shown only if the "
        "command dies",
    )
