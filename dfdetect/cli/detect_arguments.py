"""Refuses arguments of `dfdetect detect` that do not go together, before the slow part.

Imports nothing heavy.
"""

import argparse
import os
from collections.abc import Sequence

from dfdetect import manifest
from dfdetect.cli import parser as cli_parser
from dfdetect.media import source_files


def check_crops(arguments: argparse.Namespace, parser: cli_parser.Parser) -> None:
    """Refuses what does not go with images that are one head each."""
    for name in ("camera", "tile", "frames", "every", "aggregate"):
        if getattr(arguments, name) != parser.get_default(name):
            parser.error(f"--crops does not go with --{name}")
    if not arguments.paths:
        parser.error("--crops needs a PATH: the sample portrait is no crop")
    for path in arguments.paths:
        if path.lower().endswith(source_files.CLIP_SUFFIXES) and not os.path.isdir(
            path
        ):
            parser.error(f"--crops judges images, not clips: {path}")


def check_classifier(arguments: argparse.Namespace, parser: cli_parser.Parser) -> None:
    """Refuses what is no classifier, before TensorFlow is imported."""
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
    path = arguments.report
    if arguments.resume:
        parser.error("--report does not go with --resume: it is of one whole run")
    if not path.lower().endswith(".html"):
        parser.error(f"--report must end in .html: {path}")
    if os.path.isdir(path):
        parser.error(f"--report must be a file, not a folder: {path}")
    if os.path.realpath(path) in {os.path.realpath(each.path) for each in sources}:
        parser.error(f"--report must not be one of the inputs: {path}")
    folder = os.path.dirname(path) or os.curdir
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        parser.error(f"--report: {error.strerror}: {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        parser.error(f"--report: the folder cannot be written to: {folder}")


def check_camera(arguments: argparse.Namespace, parser: cli_parser.Parser) -> None:
    """Refuses what does not go with a stream that may have no end."""
    names = ("output", "csv", "resume", "explain", "report", "paths")
    others = [name for name in names if getattr(arguments, name)]
    if others:
        option = "PATH" if others[0] == "paths" else f"--{others[0]}"
        parser.error(f"--camera does not go with {option}")
