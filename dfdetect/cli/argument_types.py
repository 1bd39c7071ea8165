"""Numbers on a command line, as `argparse` takes them; imports nothing heavy."""

import argparse


def parse_positive(text: str) -> int:
    """Whole, from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 on, not {text!r}")
    return int(text)


def parse_count(text: str) -> int:
    """Whole, from 0 on."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"a whole number from 0 on, not {text!r}")
    return int(text)


def parse_frames(text: str) -> int:
    """Frames of a clip; -1 for all of them."""
    return -1 if text == "all" else parse_positive(text)


def parse_seconds(text: str) -> float:
    """Above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"a number of seconds above 0, not {text!r}")
    return value


def parse_probability(text: str) -> float:
    """In [0, 1]."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"a number from 0 to 1, not {text!r}")
    return value
