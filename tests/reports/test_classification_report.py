"""What people get of a classifier's evaluation: figures, warnings and images."""

import csv
import re

import cv2
import numpy as np
import pytest

import clips
from dfdetect.data import classifier_input
from dfdetect.evaluation import classifiers, evaluation_set, robustness
from dfdetect.reports import (
    classification_plots,
    classification_report,
    classification_tables,
)


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    whole = clips.prepare(tmp_path_factory.mktemp("whole"))
    groups = {"train": [("a", 20), ("b", 20)], "test": [("b", 20), ("c", 20)]}
    leaky = clips.prepare(tmp_path_factory.mktemp("leaky"), groups)
    return [
        evaluation_set.load_evaluation_set(whole, "test", say=print, num_resamples=30),
        evaluation_set.load_evaluation_set(
            leaky,
            "test",
            say=print,
            where=["frame=0"],
            allow_leaky_split=True,
            num_resamples=30,
        ),
    ]


def _result(name, judged):
    model = clips.brightness, clips.MANIFEST
    return classifiers.measure_classifier(
        name, model, judged=judged, say=print, batch_size=8
    )


def _files(folder):
    return sorted(path.name for path in folder.iterdir())


PLOTS = ["reliability.png", "roc.png", "scores.png"]


def test_report_of_one_model_on_one_set(judged, tmp_path):
    result = _result("default", judged[0])
    figures = result.figures
    classification_report.write_report(str(tmp_path), [result])
    assert _files(tmp_path) == sorted(
        [*PLOTS, "predictions.csv", "report.html", "report.md"]
    )
    pages = {
        name: (tmp_path / name).read_text().replace("\N{NO-BREAK SPACE}", " ")
        for name in ("report.md", "report.html")
    }
    for page in pages.values():
        assert "default weights on clips, test" in page
        assert "LEAKY" not in page and "Robustness" not in page
        for level in ("metrics", "video_metrics"):
            for name in ("auc", "ap", "eer", "ece", "log_loss", "brier"):
                low, high = figures[level][f"{name}_interval"]
                shown = f"{figures[level][name]:.3f} [{low:.3f}, {high:.3f}]"
                assert shown in page
        for text in ("By method", "By head size", "majority class", "no pixels"):
            assert text in page
        # Papers compute the equal error rate otherwise.
        assert "straight lines between thresholds" in page and "Fawcett 2006" in page
        assert "the nearest threshold differ by up to half an example" in page
    lines = pages["report.md"].splitlines()
    assert any(line.startswith("| swap, videos | 6 (all) | 6 | ") for line in lines)
    original = next(line for line in lines if line.startswith("| original, images"))
    assert original.startswith("| original, images | 12 | 0 | – | – | – | – | – | 0.")
    html = pages["report.html"]
    assert not re.search(r"url\(|https?:", html)
    assert set(re.findall(r'src="([^,]*),', html)) == {"data:image/png;base64"}
    for name in PLOTS:
        assert cv2.imread(str(tmp_path / name)).shape[0] > 300
        assert f"({name})" in pages["report.md"]
    rows = list(csv.DictReader((tmp_path / "predictions.csv").open()))
    assert len(rows) == 36 and "leaky_split" not in rows[0]


def test_robustness_is_part_of_the_report(judged, tmp_path):
    result = _result("default", judged[0])
    survey = judged[0].survey
    result.figures["robustness"] = robustness.measure_robustness(
        classifiers.build_logits_function(clips.brightness),
        clips.MANIFEST,
        images=classifier_input.read_encoded_files(
            judged[0].builder, "test", judged[0].wanted
        ),
        truths=survey.truths,
        groups=survey.groups,
        names=["mirror", "gamma"],
    )
    clean = result.figures["robustness"]["clean"]
    assert clean["auc"] == result.figures["metrics"]["auc"]
    classification_report.write_report(str(tmp_path), [result])
    assert (tmp_path / "robustness.png").stat().st_size > 1000
    page = (tmp_path / "report.html").read_text()
    assert "AUC of altered crops" in page and "gamma" in page


def test_two_models_on_two_sets_make_a_matrix_and_leaks_are_told(judged, tmp_path):
    results = [_result(name, one) for name in ("default", "runs/b") for one in judged]
    titles = []
    original = classification_plots.draw_scores
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            classification_plots,
            "draw_scores",
            lambda p, t: titles.append(t) or original(p, t),
        )
        classification_report.write_report(str(tmp_path), results)
    assert len(_files(tmp_path)) == 4 * 4 + 2
    for name in ("report.md", "report.html"):
        page = (tmp_path / name).read_text()
        assert "LEAKY SPLIT" in page.splitlines()[0 if name == "report.md" else 5]
        assert page.count("LEAKY SPLIT: 1 group") == 3  # The matrix and two sections.
        assert "clips, test, where frame=0" in page
    html = (tmp_path / "report.html").read_text()
    links = re.findall(r'<a href="#([^"]*)">', html)
    assert len(links) == 8 and set(links) <= set(re.findall(r'id="([^"]*)"', html))
    assert ["LEAKY" in title for title in titles] == [False, True, False, True]
    rows = list(csv.DictReader((tmp_path / "2_predictions.csv").open()))
    assert {row["leaky_split"] for row in rows} == {"yes"}


def test_one_class_has_a_report_too(judged, tmp_path):
    reals = evaluation_set.load_evaluation_set(
        judged[0].builder,
        "test",
        say=print,
        where=["method=original"],
        num_resamples=10,
    )
    result = _result("default", reals)
    assert np.isnan(result.figures["metrics"]["auc"])
    assert result.figures["metrics"]["fpr"] >= 0
    classification_report.write_report(str(tmp_path), [result])
    text = (tmp_path / "report.md").read_text()
    assert "All images have one label" in text
    assert "no figures: all images have the same label" in text


@pytest.mark.parametrize(
    "value, ends, expected",
    [
        (0.5, [0.25, 0.75], "0.500 [0.250,\N{NO-BREAK SPACE}0.750]"),
        (0.5, [np.nan, np.nan], "0.500 [–]"),
        (np.nan, [np.nan, np.nan], "–"),
    ],
)
def test_a_figure_with_its_interval(value, ends, expected):
    figures = {"auc": value, "auc_interval": ends}
    assert classification_tables.format_figure(figures, "auc") == expected


def test_every_column_has_a_meaning():
    meanings = classification_tables.explain_figures().blocks[0].rows
    named = {name for name, _ in meanings}
    columns = {
        *classification_tables.COLUMNS.values(),
        *classification_tables.FURTHER_COLUMNS.values(),
        *classification_tables.BASELINES.values(),
    }
    assert columns <= named
