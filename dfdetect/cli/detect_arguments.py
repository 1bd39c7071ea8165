"""The arguments of `dfdetect detect`, and which of them do not go together.

Imports nothing heavy.
"""

import argparse
import os
from collections.abc import Sequence

from dfdetect import console, manifest
from dfdetect.cli import argument_types
from dfdetect.cli import parser as cli_parser
from dfdetect.media import file_kinds, source_files

# `aggregation.METHODS`, whose module is not imported here, as it is slow.
_AGGREGATES = ("mean", "median", "max", "top_k", "confident")


def add_image_arguments(parser: cli_parser.Parser) -> None:
    """Adds files, models and outputs."""
    parser.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help="image, clip, folder (recursive) or quoted pattern; "
        "by default a portrait that ships with matplotlib",
    )
    parser.add_argument(
        "--model",
        metavar="DIR",
        help="exported graph, or a folder of its versions, of which the newest is "
        "taken; by default that of the included weights",
    )
    parser.add_argument(
        "--classifier",
        metavar="FILE",
        help="judge with another classifier than the included one: a file packed by "
        "train/release.py, or the folder of a training run",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        default="",
        help="folder for copies with heads marked",
    )
    parser.add_argument(
        "--batch_size",
        metavar="N",
        type=argument_types.parse_positive,
        default=8,
        help="images, or frames of a clip, judged at once (default 8)",
    )
    parser.add_argument(
        "--threshold",
        metavar="P",
        type=argument_types.parse_probability,
        help="fake from this fake probability on, else real; by default from the "
        "model's own, with a band of uncertain below",
    )
    parser.add_argument(
        "--tile",
        action="store_true",
        help="also search overlapping tiles of large images for small heads; slower",
    )
    parser.add_argument(
        "--crops",
        action="store_true",
        help="each image is a crop of one head: judge it whole, without detection",
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        help="show in the copies and in the report where each head looks fake; needs "
        "--output or --report",
    )
    parser.add_argument(
        "--report",
        metavar="FILE",
        default="",
        help=".html: one page of all files with their images, for a person to read",
    )
    parser.add_argument(
        "--csv", action="store_true", help="a table with a row for each head"
    )
    parser.add_argument(
        "--index",
        metavar="DIR",
        help="index made by train/index.py: report the nearest known real and fake of "
        "each head",
    )


def add_clip_arguments(parser: cli_parser.Parser) -> None:
    """Adds what concerns clips alone."""
    parser.add_argument(
        "--frames",
        metavar="N",
        type=argument_types.parse_frames,
        default=32,
        help="frames of each clip to judge, spread over its duration, or 'all' "
        "(default 32)",
    )
    parser.add_argument(
        "--every",
        metavar="SECONDS",
        type=argument_types.parse_seconds,
        help="judge a frame of a clip every so many seconds instead",
    )
    parser.add_argument(
        "--aggregate",
        choices=_AGGREGATES,
        default=_AGGREGATES[0],
        help="how the probabilities of a person's frames in a clip are combined "
        "(default mean)",
    )


def add_run_arguments(parser: cli_parser.Parser) -> None:
    """Adds what resumes or divides a run, and the camera."""
    parser.add_argument(
        "--resume",
        metavar="FILE",
        help="record each result in FILE; if the same command is run again after an "
        "interruption, it skips what is recorded there",
    )
    parser.add_argument(
        "--camera",
        metavar="N|URL",
        help="judge a camera, by its number, or a stream until it ends; a line of JSON "
        "for each frame, and a window where there is a display",
    )
    parser.add_argument(
        "--shard",
        metavar="K/N",
        type=argument_types.parse_shard,
        help="judge the K-th of N parts of the files, K from 1 on; the N results "
        "together are those of one run",
    )


def check_crops(arguments: argparse.Namespace, parser: cli_parser.Parser) -> None:
    """Refuses what does not go with images that are one head each."""
    for name in ("camera", "tile", "frames", "every", "aggregate"):
        if getattr(arguments, name) != parser.get_default(name):
            parser.error(f"--crops does not go with --{name}")
    if not arguments.paths:
        parser.error("--crops needs a PATH: the sample portrait is not a crop")
    for path in arguments.paths:
        has_suffix = path.lower().endswith(source_files.CLIP_SUFFIXES)
        is_image = file_kinds.is_image(file_kinds.identify_file(path))
        if has_suffix and not is_image and not os.path.isdir(path):
            parser.error(f"--crops judges images, not clips: {path}")


def check_classifier(arguments: argparse.Namespace, parser: cli_parser.Parser) -> None:
    """Refuses what is not a classifier, before TensorFlow is imported."""
    if arguments.model is not None:
        parser.error("--classifier does not go with --model: a graph has its own")
    try:
        manifest.read(arguments.classifier, "classifier")
    except OSError as error:
        parser.error(
            "--classifier must be a packed file or a folder with a "
            f"{manifest.FILE_NAME}: {error.strerror}: {error.filename}"
        )
    except ValueError as error:
        parser.error(f"--classifier: {error}")


def check_report(
    arguments: argparse.Namespace,
    sources: Sequence[source_files.Source],
    parser: cli_parser.Parser,
) -> None:
    """Refuses what cannot be a report, and makes its folder."""
    if arguments.resume:
        parser.error("--report does not go with --resume: it is of one whole run")
    inputs = [source.path for source in sources]
    check_page(arguments.report, inputs, parser, option="--report")


def check_page(
    path: str, inputs: Sequence[str], parser: cli_parser.Parser, *, option: str
) -> None:
    """Refuses a path that cannot be a page, and makes its folder.

    Args:
        path: The page.
        inputs: Paths that it must not be.
        parser: Reports the error.
        option: Name of the option that names the page.
    """
    if not path.lower().endswith(".html"):
        parser.error(f"{option} must end in .html: {path}")
    check_output_file(path, inputs, parser, option=option)


def check_output_file(
    path: str, inputs: Sequence[str], parser: cli_parser.Parser, *, option: str
) -> None:
    """Refuses a path that cannot be written or is an input, and makes its folder.

    See `check_page` for the arguments.
    """
    if os.path.isdir(path):
        parser.error(f"{option} must be a file, not a folder: {path}")
    if os.path.realpath(path) in {os.path.realpath(each) for each in inputs}:
        parser.error(f"{option} must not be one of the inputs: {path}")
    folder = os.path.dirname(path) or os.curdir
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        parser.error(f"{option}: {error.strerror}: {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        parser.error(f"{option}: the folder cannot be written to: {folder}")


def check_camera(arguments: argparse.Namespace, parser: cli_parser.Parser) -> None:
    """Refuses what does not go with a stream that may have no end."""
    names = ("output", "csv", "resume", "explain", "report", "shard", "paths")
    others = [name for name in names if getattr(arguments, name)]
    if others:
        option = "PATH" if others[0] == "paths" else f"--{others[0]}"
        parser.error(f"--camera does not go with {option}")


def say_shard_is_empty(arguments: argparse.Namespace) -> None:
    """Tells that all files are in other shards, which is not an error."""
    number, total = arguments.shard
    console.say(f"0 files: all are in other shards than {number + 1}/{total}")
