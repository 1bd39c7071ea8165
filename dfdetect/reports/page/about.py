"""What a report says of itself: words, thresholds, models, versions and command."""

import datetime
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import markdown

from dfdetect import manifest
from dfdetect.media import image_status
from dfdetect.metrics import calibration
from dfdetect.models import model_directory
from dfdetect.pipeline import deciding_tracks
from dfdetect.reports import document
from dfdetect.retrieval import familiarity

_CARD = "MODEL_CARD.md"

_STATUSES = {
    "ok": "At least one head was found and judged.",
    "no_head": "It was read, and no head was found in it.",
    "unreadable": "It could not be read, or is no image that can be decoded.",
    "too_large": f"More than {image_status.MAX_PIXELS // 10**6} megapixels; not "
    "looked at.",
    "head_too_small": "Heads were found, and all are too small to be judged.",
}


def html(
    described: Mapping[str, Any],
    thresholds: calibration.Thresholds,
    command: Sequence[str],
    explained: bool = False,
    index: Mapping[str, Any] | None = None,
    given_crops: bool = False,
) -> str:
    """The sections that follow the files.

    Args:
        described: The graph's manifest, of kind "pipeline".
        thresholds: Those of this run; see `calibration.decide_verdict`.
        command: The arguments of `dfdetect`.
        explained: Whether there are heat maps.
        index: The manifest of the index that heads were looked up in, or None.
        given_crops: Whether each image is one head, see `given_crops`.
    """
    classifier = described["classifier"]
    sections = [
        document.Section(
            "What the words mean",
            _words(described, thresholds, explained, index, given_crops),
        ),
        document.Section(
            "Thresholds and calibration", [_calibration(classifier, thresholds)]
        ),
        document.Section("Models", [_models(described)]),
    ]
    card = _card(described)
    parts = [document.sections_html(sections)]
    if card:
        parts.append(f'<section id="model-card"><h2>Model card</h2>{card}</section>')
    made = [
        *_rows({"command": shlex.join(["dfdetect", *command])}),
        ["date", datetime.datetime.now().astimezone().isoformat(" ", "seconds")],
        *_rows(manifest.collect_versions()),
    ]
    parts.append(
        document.sections_html(
            [document.Section("How this was made", [document.Table([], made)])]
        )
    )
    return "\n".join(parts)


def _words(
    described: Mapping[str, Any],
    thresholds: calibration.Thresholds,
    explained: bool,
    index: Mapping[str, Any] | None,
    given_crops: bool,
) -> list[document.Block]:
    low, high = (_number(thresholds[key]) for key in ("real_below", "fake_from"))
    verdicts = {
        "fake": f"The fake probability is {high} or more.",
        "real": f"The fake probability is below {low}. It does not say that an image "
        "is genuine: only that nothing the model knows of was found.",
        "uncertain": "No band is left between the thresholds of this run."
        if low == high
        else f"Between the two: at least {low}, below {high}. The model cannot tell; "
        "take it as no answer, not as half a suspicion.",
        "no verdict (null)": "There is no probability: no head was found, none is "
        "large enough, or the file could not be read. See its status.",
    }
    terms = {
        "fake probability": "Of a head: how likely it is a deepfake, for sets in which "
        "half of the heads are. Of an image: that of its most suspicious head; of a "
        "clip: that of its most suspicious track of those that matter.",
        "box": "Where a head is; its number is that in the list. Green is real, red "
        "fake, dashed yellow uncertain, dotted grey not judged.",
        "detector": "How sure the detector is of a head, from 0 to 1.",
        "too small to be judged": f"Below {described['min_head_size']} pixels a head "
        "would be enlarged to a blur, which looks like a forgery.",
        "track": "One person's head along the time of a clip. The table counts tracks "
        "of a clip, and heads of an image.",
        "set aside": _set_aside(deciding_tracks.DEFAULT_RULE),
        "main person": "The most prominent track of a clip: largest times longest.",
    }
    if given_crops:
        terms["given crop"] = (
            "The whole image, taken to be one head because the command says so "
            "(--crops). No detector looked at it, and no size is too small. What is no "
            "head, or is cut otherwise than the classifier's own crops, gets a "
            "probability, too, that means nothing."
        )
    if explained:
        terms["heat map"] = (
            "Where the classifier sees what speaks for a fake, red the most, whatever "
            "the probability (Grad-CAM by place). What moved the classifier, not what "
            "was forged."
        )
    if index is not None:
        share = f"{100 * familiarity.UNFAMILIAR_BELOW:.0f} %"
        terms |= {
            "nearest real, nearest fake": "The known images that are most like a "
            "head, with the cosine similarity: 1 is the same.",
            "familiarity": "The share of known images that are no nearer to another "
            f"one than this head to its nearest. Below {share} it is unfamiliar: "
            "unlike anything in the index; what looked real is then called uncertain.",
        }
    return [
        document.Table(["Verdict", "Meaning"], _rows(verdicts)),
        document.Table(["Status", "Meaning"], _rows(_STATUSES)),
        document.Table(["Word", "Meaning"], _rows(terms)),
    ]


def _set_aside(rule: deciding_tracks.Rule) -> str:
    return (
        "A track that does not decide, as it may be a thing in the background: seen in "
        f"less than {100 * rule.share:.0f} % of the judged frames of its shot, of less "
        f"than {100 * rule.size:.0f} % of the size of the main person of the shot, or "
        f"with less than {100 * rule.score:.0f} % of the detector's score of the main "
        "person of the clip. Its box is faint."
    )


def _calibration(
    classifier: Mapping[str, Any], thresholds: calibration.Thresholds
) -> document.Table:
    own = classifier["thresholds"]
    rows = {
        "real below": _number(thresholds["real_below"]),
        "fake from": _number(thresholds["fake_from"]),
        "temperature": f"{_number(classifier['temperature'])}: the classifier's logits "
        "are divided by it, as validation images it was not trained on asked for",
    }
    if any(own[key] != thresholds[key] for key in ("real_below", "fake_from")):
        rows["set by"] = (
            f"the command; the model's own are {_number(own['real_below'])} and "
            f"{_number(own['fake_from'])}"
        )
    elif "false_positive_rate" in own:
        rows["wrong on validation"] = (
            f"{100 * own['false_positive_rate']:.1f} % of the reals were called fake"
            f"{_highest(own, 'positive', 'source')}, "
            f"{100 * own['false_negative_rate']:.1f} % of the fakes real"
            f"{_highest(own, 'negative', 'maker')}"
        )
    return document.Table([], _rows(rows))


def _highest(own: calibration.Thresholds, kind: str, origin: str) -> str:
    """Says how many of the worst source were judged wrongly, if that is known."""
    highest = own.get(f"highest_false_{kind}_rate")
    return (
        "" if highest is None else f", of no {origin} more than {100 * highest:.1f} %"
    )


def _models(described: Mapping[str, Any]) -> document.Table:
    detector, classifier = described["detector"], described["classifier"]
    rows = {
        "classifier": f"{classifier['model']}, {classifier['image_size']} px, "
        f"crop margin {classifier['crop_margin']}",
        "classifier trained on": _trained_on(classifier),
        "detector": f"EfficientDet-{'Lite' if detector.get('lite') else 'D'}"
        f"{detector['phi']}, {detector['image_size']} px",
        "detector trained on": _trained_on(detector),
        "detector's score threshold": _number(detector["score_threshold"]),
        "overlapping tiles": "looked at, too" if detector.get("tile_size") else "no",
        "least head": f"{described['min_head_size']} px",
    }
    for package, version in described.get("versions", {}).items():
        rows[f"made with {package}"] = version
    return document.Table([], _rows(rows))


def _trained_on(part: Mapping[str, Any]) -> str:
    data = part.get("data") or []
    names = [
        " ".join(
            str(each[key]) for key in ("name", "config", "version") if each.get(key)
        )
        for each in ([data] if isinstance(data, dict) else data)
    ]
    return ", ".join(names) or "unknown"


def _card(described: Mapping[str, Any]) -> str:
    """The card of the default weights as HTML; "" of other models."""
    for part in ("detector", "classifier"):
        folder = os.path.join(model_directory.DEFAULT_WEIGHTS, part)
        try:
            default = manifest.read(folder, part)
        except FileNotFoundError:
            return ""
        # A graph says more than its models, such as the size of tiles.
        if any(described[part].get(key) != value for key, value in default.items()):
            return ""
    with open(os.path.join(model_directory.DEFAULT_WEIGHTS, _CARD), "rb") as file:
        text = file.read().decode()
    # Below the page's own headings.
    text = re.sub(r"^#", "###", text, flags=re.MULTILINE)
    converted = markdown.markdown(text, extensions=["tables"])
    wide = '<div class="wide" tabindex="0">'
    return converted.replace("<table>", f"{wide}<table>").replace(
        "</table>", "</table></div>"
    )


def _rows(values: Mapping[str, Any]) -> list[list[str]]:
    return [[name, str(value)] for name, value in values.items()]


def _number(value: float) -> str:
    return f"{value:.4g}"
