"""The summaries that an evaluation prints, of figures of drawn images."""

import re

import numpy as np
import pytest

import clips
import sourced_faces
import tiny_heads
from dfdetect.evaluation import (
    chain_evaluation,
    classifier_comparison,
    clip_evaluation,
    evaluation_set,
)
from dfdetect.metrics import coco, detection_protocol
from dfdetect.reports import terminal_summary
from drawn_faces import BAND, DRAWN, look, prepare


def _show(figures, name):
    low, high = figures[f"{name}_interval"]
    return f"{figures[name]:.3f} [{low:.3f}, {high:.3f}]"


def _find_values(lines):
    """Returns the values of the rows of a summary by their names."""
    rows = (re.fullmatch(r"  (\S.*?)  +(\S.*)", line) for line in lines)
    return {row[1]: row[2] for row in rows if row}


def _measure(builder, models=1):
    judged = evaluation_set.load_evaluation_set(
        builder, "test", say=print, num_resamples=20
    )
    named = [(f"model {i}", (clips.brightness, clips.MANIFEST)) for i in range(models)]
    results = classifier_comparison.measure_each(named, [judged], say=print)
    by_makers = classifier_comparison.measure_makers(
        named, [], [judged], results, leave_out=None, say=print, num_resamples=20
    )
    return classifier_comparison.join_figures(results, [judged], by_makers)


def test_a_classifier_on_videos(tmp_path):
    figures = _measure(clips.prepare(tmp_path))
    lines = terminal_summary.summarize_figures(figures)
    assert lines[0] == "model 0 on clips, test"
    assert lines[1] == "  36 images, 18 videos, 6 groups; 12 real, 24 fake"
    values = _find_values(lines[2:])
    assert values["AUC"] == _show(figures["metrics"], "auc")
    assert values["EER, of videos"] == _show(figures["video_metrics"], "eer")
    of_methods = figures["strata"]["method"]
    lowest = min(("swap", "talk"), key=lambda n: of_methods[n]["metrics"]["auc"])
    shown = _show(of_methods[lowest]["metrics"], "auc")
    assert values["lowest AUC by method"] == f"{shown}: {lowest}"


def test_classifiers_on_makers_of_fakes(tmp_path):
    dark, bright = (
        np.full((30, 30, 3), 40, np.uint8),
        np.full((30, 30, 3), 220, np.uint8),
    )
    faces = [
        sourced_faces.face(f"{source}{i}", label, source, image=image)
        for source, label, image in (
            ("street", 0, dark),
            ("studio", 0, bright),
            ("lab", 1, bright),
            ("works", 1, dark),
        )
        for i in range(3)
    ]
    builder = sourced_faces.prepare(tmp_path, {"test": faces})
    lines = terminal_summary.summarize_figures(_measure(builder, models=2))
    assert [line for line in lines if line[:1].strip()] == [
        "model 0 on sourced_faces, test",
        "model 1 on sourced_faces, test",
    ]
    values = _find_values(lines)
    assert values["lowest pair of model 1"].endswith(
        "0.000 [0.000, 0.000]: works against reals of studio"
    )
    # Bright fakes are found, dark ones are not: half of the reals are brighter.
    assert values["lowest AUC by source"].endswith(": works")


def test_a_detector():
    box, plain = np.array([[0.2, 0.2, 0.6, 0.6]]), np.zeros(1, bool)
    found = [(box, np.array([0.9])), (box / 4, np.array([0.8]))]
    truth, extents = [(box, plain)] * 2, np.full((2, 2), 100)
    metrics = {
        **detection_protocol.compute_metrics(found, truth, extents),
        "coco": coco.compute_metrics(found, truth, extents),
    }
    data = {"name": "heads", "config": "scut"}
    lines = terminal_summary.summarize_figures(
        {
            "task": "detect",
            "model": "run",
            "step": 30,
            "split": "test",
            "data": data,
            "metrics": metrics,
        }
    )
    assert lines[:2] == [
        "run step 30 on heads/scut, test",
        "  2 images, 2 heads to find",
    ]
    values = _find_values(lines[2:])
    assert values["AP at IoU .5"] == _show(metrics, "ap")
    assert values["AP at IoU .5"].startswith("0.500 [")
    assert values["recall at 1 false boxes an image"] == "0.500"
    assert values["highest F1"] == "0.667 from a score of 0.90"


def test_a_chain(tmp_path):
    judged = look(prepare(tmp_path, {"test": DRAWN}))
    together, _ = chain_evaluation.evaluate_graph(
        "tiny", tiny_heads.build(), [judged], say=lambda _: None
    )
    figures = together.figures
    lines = terminal_summary.summarize_figures(figures)
    assert lines[0] == "tiny on faces, test"
    values = _find_values(lines[2:])
    for key, way in (("chain", "whole images"), ("crops", "given heads")):
        assert values[f"AUC, {way}"] == _show(figures[key], "auc")
    assert values["AUC, gap"] == _show(figures["gap"], "auc")

    # Images of a set without makers, beside those of one with some.
    figures["strata"]["source"] = {"": figures, "maker": figures}
    values = _find_values(terminal_summary.summarize_figures(figures)[2:])
    named = {"AUC, no source", "AUC, maker"}
    assert {values[name] for name in named} == {_show(figures["chain"], "auc")}


@pytest.mark.parametrize("labels", [(0, 1), (1, 1)])
def test_clips(labels):
    clips_of = [
        clip_evaluation.LabeledClip(name, name, label, name)
        for name, label in zip("ab", labels, strict=True)
    ]
    unread = {"status": "unreadable", "fake_probability": None}
    figures = clip_evaluation.measure_clips(
        clips_of, [unread, unread], aggregate="mean", thresholds=BAND, num_resamples=5
    )
    lines = terminal_summary.summarize_figures(
        {
            "task": "video",
            "model": "tiny",
            "clips": "folder",
            "split": "test",
            **figures,
        }
    )
    assert lines[0] == "tiny on folder"
    values = _find_values(lines[2:])
    assert values["no answer: unreadable"] == "2" and values["AUC"] == "–"
