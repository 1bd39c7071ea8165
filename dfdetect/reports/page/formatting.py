"""How a report writes names, numbers and verdicts; the filters of its templates."""

import base64
import hashlib
import pathlib
from collections.abc import Sequence

import markupsafe

from dfdetect import labels
from dfdetect.metrics import calibration
from dfdetect.reports import templates

_VERDICTS = (*labels.NAMES, calibration.UNCERTAIN)

# The classes t0 to t5 of the style sheet: a color and a dash each.
NUM_TRACK_STYLES = 6

_REASONS = {
    "brief": "seen in too few frames",
    "small": "small beside the main person",
    "doubtful": "the detector doubts it",
    "unjudged": "too small to be judged",
}


def escape_unprintable(path: str) -> str:
    """Writes out the characters of a file's name that cannot be seen.

    These are line ends, bytes that are not UTF-8, and marks that turn letters around
    and let one name look like another.
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in path
    )


def format_percent(probability: float | None) -> str:
    """Formats a probability in [0, 1], None as a dash."""
    return "–" if probability is None else f"{100 * probability:.1f} %"


def format_clock(seconds: float) -> str:
    """Formats a time in a clip as minutes and seconds, such as 1:02.5."""
    minutes, rest = divmod(round(10 * seconds), 600)
    return f"{minutes}:{rest / 10:04.1f}"


def format_count(number: int, noun: str) -> str:
    """Formats a number of things, such as "2 heads"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def describe_reasons(reasons: Sequence[str]) -> str:
    """Describes why a track of a clip does not decide."""
    return ", ".join(_REASONS.get(reason, reason) for reason in reasons)


def choose_style_class(verdict: str | None) -> str:
    """Returns the class of a verdict in the style sheet."""
    return verdict if verdict in _VERDICTS else "none"


def choose_track_style(track: int) -> str:
    """Returns the class of a track in the style sheet, for time line and legend."""
    return f"t{track % NUM_TRACK_STYLES}"


def encode_base64(content: bytes) -> str:
    """Encodes a file for a `data:` URI."""
    return base64.b64encode(content).decode()


def hash_for_policy(text: str) -> str:
    """Hashes a script or style, as the page's policy names what it allows."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def load_asset(name: str) -> markupsafe.Markup:
    """Loads a style sheet or script of this folder, to be written without escapes."""
    text = (pathlib.Path(__file__).parent / name).read_text("utf-8")
    return markupsafe.Markup(text)


TEMPLATES = templates.Templates(
    pathlib.Path(__file__).parent,
    {
        "base64": encode_base64,
        "clock": format_clock,
        "counted": format_count,
        "csp_hash": hash_for_policy,
        "percent": format_percent,
        "printable": escape_unprintable,
        "reasons": describe_reasons,
        "style_class": choose_style_class,
        "track_style": choose_track_style,
    },
)
