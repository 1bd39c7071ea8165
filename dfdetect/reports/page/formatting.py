"""How a report writes names, numbers and verdicts.

Nothing from outside is written into a page but escaped, or as a number.
"""

import base64
import html
from collections.abc import Sequence

from dfdetect import labels
from dfdetect.metrics import calibration

# What stands where there is no number, and no verdict.
NOTHING = "–"

_VERDICTS = (*labels.NAMES, calibration.UNCERTAIN)


def text(value: object) -> str:
    """Any text, for an element or an attribute in double quotes."""
    return html.escape(str(value))


def name(path: str) -> str:
    """The name of a file, escaped, in a direction of its own.

    What cannot be seen is written out: line ends, bytes that are no UTF-8, and marks
    that turn letters around and let one name look like another.
    """
    return f"<bdi>{text(visible(path))}</bdi>"


def visible(path: str) -> str:
    """The name of a file with everything that cannot be seen written out."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in path
    )


def percent(probability: float | None) -> str:
    """A probability in [0, 1], or a dash for none."""
    return NOTHING if probability is None else f"{100 * probability:.1f} %"


def clock(seconds: float) -> str:
    """Minutes and seconds of a clip, such as 1:02.5."""
    minutes, rest = divmod(round(10 * seconds), 600)
    return f"{minutes}:{rest / 10:04.1f}"


def count(number: int, noun: str) -> str:
    """A number of things."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


_SET_ASIDE = {
    "brief": "seen in too few frames",
    "small": "small beside the main person",
    "doubtful": "the detector doubts it",
    "unjudged": "too small to be judged",
}


def set_aside(reasons: Sequence[str]) -> str:
    """Why a track of a clip does not decide, in words."""
    return ", ".join(text(_SET_ASIDE.get(reason, reason)) for reason in reasons)


def kind(verdict: str | None) -> str:
    """The class of a verdict in the style sheet."""
    return verdict if verdict in _VERDICTS else "none"


def tag(verdict: str | None) -> str:
    """A verdict, or that there is none, so that it stands out."""
    return f'<span class="tag {kind(verdict)}">{text(verdict or "no verdict")}</span>'


def image(content: bytes, description: str, size: str = "") -> str:
    """A JPEG inside the page.

    Args:
        content: The file.
        description: For who does not see it; escaped here.
        size: Attributes, such as `width="64" height="48"`.
    """
    data = base64.b64encode(content).decode()
    return f'<img alt="{text(description)}" {size} src="data:image/jpeg;base64,{data}">'
