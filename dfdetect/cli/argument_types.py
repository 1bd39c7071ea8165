"""Types of `argparse` for numbers; imports nothing heavy."""

import argparse


def parse_positive(text: str) -> int:
    """Parses an integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 on, not {text!r}")
    return int(text)


def parse_count(text: str) -> int:
    """Parses an integer of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"a whole number from 0 on, not {text!r}")
    return int(text)


def parse_frames(text: str) -> int:
    """Parses a number of frames of a clip; "all" gives -1."""
    return -1 if text == "all" else parse_positive(text)


def parse_seconds(text: str) -> float:
    """Parses a number of seconds above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"a number of seconds above 0, not {text!r}")
    return value


def parse_probability(text: str) -> float:
    """Parses a number in [0, 1]."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"a number from 0 to 1, not {text!r}")
    return value


def parse_shard(text: str) -> tuple[int, int]:
    """Parses "K/N", a shard from 1 on of so many; returns K - 1 and N."""
    number, _, total = text.partition("/")
    if not (number.isdecimal() and total.isdecimal()) or not (
        1 <= int(number) <= int(total)
    ):
        raise argparse.ArgumentTypeError(
            f"K/N with K from 1 to N, such as 3/100, not {text!r}"
        )
    return int(number) - 1, int(total)
