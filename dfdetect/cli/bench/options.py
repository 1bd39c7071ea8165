"""The flags of `dfdetect bench`; imports nothing heavy."""

import argparse

from dfdetect.cli import argument_types

_MOST_HEADS = 10  # `samples.MOST_HEADS`, whose module is imported later.


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags to the parser of the command."""
    _add_models(parser)
    _add_inputs(parser)
    _add_rounds(parser)


def _add_models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--detector",
        metavar="DIR",
        help="model directory or packed file; by default the included weights",
    )
    parser.add_argument(
        "--classifier",
        metavar="FILE|NAME",
        help="model directory or packed file, or the name of a classifier (xception, "
        "...) with random weights; by default the included weights",
    )
    parser.add_argument(
        "--image_size",
        metavar="PIXELS",
        type=argument_types.parse_positive,
        default=299,
        help="side of the crops of a classifier with random weights (default 299)",
    )
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=("float32", "bfloat16"),
        default=["float32", "bfloat16"],
        help="precision of the exported graph (default both)",
    )


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--batch_size",
        nargs="+",
        metavar="N",
        type=argument_types.parse_positive,
        default=[1, 4, 8, 16],
        help="images at once (default 1 4 8 16)",
    )
    parser.add_argument(
        "--heads",
        nargs="+",
        metavar="N",
        type=_heads,
        default=[1, 10],
        help="heads in each image, up to 10, at batch size 8 (default 1 10)",
    )
    parser.add_argument(
        "--width",
        nargs="+",
        metavar="PIXELS",
        type=argument_types.parse_positive,
        default=[640],
        help="width of the images, whose height is 3/4 of it (default 640); further "
        "ones are measured at batch size 8",
    )


def _add_rounds(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threads",
        nargs="+",
        metavar="N",
        type=argument_types.parse_count,
        default=[0],
        help="threads of TensorFlow, each number in a separate process; 0 lets it "
        "choose (default)",
    )
    parser.add_argument(
        "--rounds",
        metavar="N",
        type=argument_types.parse_positive,
        default=10,
        help="calls of each case; the median counts (default 10)",
    )
    parser.add_argument(
        "--start",
        metavar="N",
        type=argument_types.parse_count,
        default=3,
        help="starts of `dfdetect detect` to time, 0 for none (default 3)",
    )
    parser.add_argument(
        "--compare",
        action="store_true",
        help="measure beside it Keras's predict, onnxruntime, OpenVINO and MTCNN, of "
        "what is installed (pip install 'dfdetect[bench]')",
    )


def _heads(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MOST_HEADS:
        raise argparse.ArgumentTypeError(
            f"a whole number from 1 to {_MOST_HEADS}, not {text!r}"
        )
    return int(text)
