"""What a report says about itself: terms, thresholds, models, versions and command."""

import datetime
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import markupsafe

from dfdetect import manifest
from dfdetect.media import image_status
from dfdetect.metrics import calibration
from dfdetect.models import model_directory
from dfdetect.pipeline import deciding_tracks
from dfdetect.reports import document, markdown_html
from dfdetect.reports.page import formatting
from dfdetect.retrieval import familiarity

_CARD = "MODEL_CARD.md"

_STATUSES = {
    "ok": "At least one head was found and judged.",
    "no_head": "The file was read, and no head was found in it.",
    "unreadable": "The file could not be read, or cannot be decoded.",
    "too_large": f"The image has more than {image_status.MAX_PIXELS // 10**6} "
    "megapixels and was not decoded.",
    "head_too_small": "Heads were found, and all are too small to be judged.",
}


def render(
    pipeline_manifest: Mapping[str, Any],
    thresholds: calibration.Thresholds,
    *,
    command: Sequence[str],
    has_heat_maps: bool = False,
    index_manifest: Mapping[str, Any] | None = None,
    given_crops: bool = False,
) -> markupsafe.Markup:
    """Renders the sections that follow the files.

    Args:
        pipeline_manifest: The graph's manifest, of kind "pipeline".
        thresholds: Thresholds of this run; see `calibration.decide_verdict`.
        command: The arguments of `dfdetect`.
        has_heat_maps: Whether heads are shown with heat maps.
        index_manifest: Manifest of the index that heads were looked up in, or None.
        given_crops: Whether each image is one head, see `given_crops`.
    """
    classifier = pipeline_manifest["classifier"]
    terms = _explain_terms(pipeline_manifest["min_head_size"])
    if given_crops:
        terms |= _GIVEN_CROP
    if has_heat_maps:
        terms |= _HEAT_MAP
    if index_manifest is not None:
        terms |= _explain_index()
    explanations = [
        document.Section(
            "What the words mean",
            [
                document.Table(
                    ["Verdict", "Meaning"], _rows(_explain_verdicts(thresholds))
                ),
                document.Table(["Status", "Meaning"], _rows(_STATUSES)),
                document.Table(["Term", "Meaning"], _rows(terms)),
            ],
        ),
        document.Section(
            "Thresholds and calibration",
            [_describe_calibration(classifier, thresholds)],
        ),
        document.Section("Models", [_describe_models(pipeline_manifest)]),
    ]
    return formatting.TEMPLATES.render(
        "about.html",
        explanations=document.render_sections(explanations),
        card=_convert_card(pipeline_manifest),
        origin=_render_origin(command),
    )


def render_of_lines(
    thresholds: calibration.Thresholds, *, command: Sequence[str]
) -> markupsafe.Markup:
    """Renders the sections that follow files whose result lines alone are known.

    Args:
        thresholds: As far as the lines tell them; see `result_files.Survey`.
        command: The arguments of `dfdetect`.
    """
    terms = _explain_terms(None) | _explain_index()
    words = [
        document.Table(["Verdict", "Meaning"], _rows(_explain_verdicts(thresholds))),
        document.Table(["Status", "Meaning"], _rows(_STATUSES)),
        document.Table(["Term", "Meaning"], _rows(terms)),
    ]
    source = (
        "The result lines do not say which model and which thresholds they are of. The "
        "thresholds above are those that the lines show: the lowest probabilities that "
        "are called uncertain and fake."
    )
    return formatting.TEMPLATES.render(
        "about.html",
        explanations=document.render_sections(
            [
                document.Section("What the words mean", words),
                document.Section("Thresholds", [document.Text(source)]),
            ]
        ),
        card=None,
        origin=_render_origin(command),
    )


def _render_origin(command: Sequence[str]) -> markupsafe.Markup:
    now = datetime.datetime.now().astimezone()
    origin = {
        "command": shlex.join(["dfdetect", *command]),
        "date": now.isoformat(" ", "seconds"),
        **manifest.collect_versions(),
    }
    return document.render_sections(
        [document.Section("How this was made", [document.Table([], _rows(origin))])]
    )


def _explain_verdicts(thresholds: calibration.Thresholds) -> dict[str, str]:
    low, high = (_format(thresholds[key]) for key in ("real_below", "fake_from"))
    return {
        "fake": f"The fake probability is {high} or more.",
        "real": f"The fake probability is below {low}. This does not say that an image "
        "is genuine, only that nothing was found that the model knows.",
        "uncertain": "There is no band between the thresholds of this run."
        if low == high
        else f"Between the two: at least {low}, below {high}. The model cannot tell; "
        "treat it as no answer, not as half a suspicion.",
        "no verdict (null)": "There is no probability: no head was found, none is "
        "large enough, or the file could not be read. See its status.",
    }


def _explain_terms(min_head_size: int | None) -> dict[str, str]:
    least = "a least size" if min_head_size is None else f"{min_head_size} pixels"
    return {
        "fake probability": "How likely a head is a deepfake, for data in which half "
        "of the heads are. An image has that of its most suspicious head; a clip has "
        "that of its most suspicious track among those that matter.",
        "box": "Where a head is; its number is that in the list. Green is real, red "
        "fake, dashed yellow uncertain, dotted gray not judged.",
        "detector": "The detector's confidence in a head, from 0 to 1.",
        "too small to be judged": f"Below {least} a head would be "
        "enlarged to a blur, which looks like a forgery.",
        "track": "One person's head over the time of a clip. The table counts tracks "
        "of a clip, and heads of an image.",
        "set aside": _explain_set_aside(deciding_tracks.DEFAULT_RULE),
        "main person": "The most prominent track of a clip: size times duration.",
    }


_GIVEN_CROP = {
    "given crop": "The whole image, taken to be one head because the command says so "
    "(--crops). No detector looked at it, and no size is too small. An image that is "
    "not a head, or is cut in another way than the classifier's own crops, gets a "
    "probability too, which means nothing."
}
_HEAT_MAP = {
    "heat map": "Where the classifier sees evidence of a fake, red the most, whatever "
    "the probability (Grad-CAM by place). It shows what influenced the classifier, not "
    "what was forged."
}


def _explain_index() -> dict[str, str]:
    share = f"{100 * familiarity.UNFAMILIAR_BELOW:.0f} %"
    return {
        "nearest real, nearest fake": "The known images that are most similar to a "
        "head, with the cosine similarity: 1 is the same.",
        "familiarity": "The share of known images that are no nearer to another "
        f"one than this head is to its nearest. Below {share} it is unfamiliar: "
        "unlike anything in the index; a verdict of real then becomes uncertain.",
    }


def _explain_set_aside(rule: deciding_tracks.Rule) -> str:
    return (
        "A track that does not decide, as it may be in the background: seen in "
        f"less than {100 * rule.share:.0f} % of the judged frames of its shot, of less "
        f"than {100 * rule.size:.0f} % of the size of the main person of the shot, or "
        f"with less than {100 * rule.score:.0f} % of the detector's score of the main "
        "person of the clip. Its box is faint."
    )


def _describe_calibration(
    classifier: Mapping[str, Any], thresholds: calibration.Thresholds
) -> document.Table:
    own = classifier["thresholds"]
    rows = {
        "real below": _format(thresholds["real_below"]),
        "fake from": _format(thresholds["fake_from"]),
        "temperature": f"{_format(classifier['temperature'])}: the classifier's logits "
        "are divided by it; fitted to validation images it was not trained on",
    }
    if any(own[key] != thresholds[key] for key in ("real_below", "fake_from")):
        rows["set by"] = (
            f"the command; the model's own are {_format(own['real_below'])} and "
            f"{_format(own['fake_from'])}"
        )
    elif "false_positive_rate" in own:
        rows["wrong on validation"] = (
            f"{100 * own['false_positive_rate']:.1f} % of the reals were called fake"
            f"{_describe_highest(own, 'positive', 'source')}, "
            f"{100 * own['false_negative_rate']:.1f} % of the fakes real"
            f"{_describe_highest(own, 'negative', 'maker')}"
        )
    return document.Table([], _rows(rows))


def _describe_highest(own: calibration.Thresholds, kind: str, origin: str) -> str:
    """Describes how many of the worst source were judged wrongly, if known."""
    highest = own.get(f"highest_false_{kind}_rate")
    return (
        "" if highest is None else f", of no {origin} more than {100 * highest:.1f} %"
    )


def _describe_models(pipeline_manifest: Mapping[str, Any]) -> document.Table:
    detector, classifier = (
        pipeline_manifest["detector"],
        pipeline_manifest["classifier"],
    )
    rows = {
        "classifier": f"{classifier['model']}, {classifier['image_size']} px, "
        f"crop margin {classifier['crop_margin']}",
        "classifier trained on": _list_data(classifier),
        "detector": f"EfficientDet-{'Lite' if detector.get('lite') else 'D'}"
        f"{detector['phi']}, {detector['image_size']} px",
        "detector trained on": _list_data(detector),
        "detector's score threshold": _format(detector["score_threshold"]),
        "overlapping tiles": "searched as well" if detector.get("tile_size") else "no",
        "smallest head": f"{pipeline_manifest['min_head_size']} px",
    }
    for package, version in pipeline_manifest.get("versions", {}).items():
        rows[f"made with {package}"] = version
    return document.Table([], _rows(rows))


def _list_data(part: Mapping[str, Any]) -> str:
    data = part.get("data") or []
    names = [
        " ".join(
            str(each[key]) for key in ("name", "config", "version") if each.get(key)
        )
        for each in ([data] if isinstance(data, dict) else data)
    ]
    return ", ".join(names) or "unknown"


def _convert_card(pipeline_manifest: Mapping[str, Any]) -> markupsafe.Markup | None:
    """Converts the card of the default weights to HTML; None for other models."""
    for part in ("detector", "classifier"):
        folder = os.path.join(model_directory.DEFAULT_WEIGHTS, part)
        try:
            default = manifest.read(folder, part)
        except FileNotFoundError:
            return None
        # A graph has more settings than its models, such as the size of tiles.
        own = pipeline_manifest[part]
        if any(own.get(key) != value for key, value in default.items()):
            return None
    with open(os.path.join(model_directory.DEFAULT_WEIGHTS, _CARD), "rb") as file:
        text = file.read().decode()
    # Below the page's own headings.
    return markdown_html.convert(re.sub(r"^#", "###", text, flags=re.MULTILINE))


def _rows(values: Mapping[str, Any]) -> list[list[str]]:
    return [[name, str(value)] for name, value in values.items()]


def _format(value: float) -> str:
    return f"{value:.4g}"
