"""The figures of the chain on drawn images, each worked out by hand."""

import csv
import io
import json
import re
import types

import numpy as np
import pytest

import tiny_heads
from dfdetect.data import given_heads
from dfdetect.evaluation import chain_answers, chain_evaluation
from drawn_faces import BAND, DRAWN, Others, look, prepare


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    return look(prepare(tmp_path_factory.mktemp("faces"), {"test": DRAWN}))


@pytest.fixture(scope="module")
def evaluated(judged):
    graph = tiny_heads.build()
    return chain_evaluation.evaluate_graph(
        "tiny", graph, sets=[judged], say=print, batch_size=4
    )[0]


def test_figures_over_all(evaluated):
    figures = evaluated.figures
    assert (figures["num_real"], figures["num_fake"]) == (3, 3)
    assert figures["num_groups"] == 3 and not figures["leaky_split"]
    # Reals .1, a guess, .9; fakes .9, a guess, .9.
    assert figures["chain"]["auc"] == pytest.approx(6.5 / 9)
    assert figures["crops"]["auc"] == 1.0
    assert figures["gap"]["auc"] == pytest.approx(-2.5 / 9)
    assert figures["chain"]["balanced_accuracy"] == pytest.approx(
        (1.5 / 3 + 2.5 / 3) / 2
    )
    assert figures["chain"]["accuracy"] == pytest.approx(4 / 6)
    assert figures["crops"]["accuracy"] == 1.0
    answered = figures["answered"]
    assert answered["num_images"] == 4
    assert answered["chain"]["auc"] == pytest.approx(3 / 4)
    assert answered["crops"]["auc"] == 1.0


def test_heads_and_verdicts(evaluated):
    heads = evaluated.figures["heads"]
    assert heads["counts"] == {"none": 2, "one": 2, "several": 2}
    assert heads["num_one_head"] == 6
    for name in ("none", "one", "several"):
        assert heads[name] == pytest.approx(1 / 3)
        # One group of three has it, in both of its images.
        low, high = heads[f"{name}_interval"]
        assert low == 0 and high in (pytest.approx(2 / 3), 1)
    verdicts = evaluated.figures["verdicts"]
    some = {"real": 1, "fake": 1, "no_head": 1}
    assert {x: n for x, n in verdicts["chain"]["real"].items() if n} == some
    assert {x: n for x, n in verdicts["chain"]["fake"].items() if n} == {
        "fake": 2,
        "no_head": 1,
    }
    assert verdicts["crops"]["real"]["real"] == verdicts["crops"]["fake"]["fake"] == 3


def test_strata(evaluated):
    strata = evaluated.figures["strata"]
    assert list(strata) == ["source", "head_size", "given_head_size"]
    source = strata["source"]
    assert np.isnan(source["camera"]["chain"]["auc"])
    assert source["camera"]["chain"]["accuracy"] == pytest.approx(0.5)
    swap = source["swap"]
    assert swap["against"] == "all reals" and swap["num_real"] == 0
    assert swap["chain"]["auc"] == pytest.approx(4 / 6)
    assert (swap["heads"]["one"], swap["heads"]["none"]) == (0.5, 0.5)
    assert sum(swap["verdicts"]["chain"]["real"].values()) == 0
    sizes = strata["head_size"]
    assert list(sizes) == ["1/4-1/2", "none found"]
    assert [sizes[name]["num_images"] for name in sizes] == [4, 2]
    assert sizes["none found"]["chain"]["auc"] == 0.5
    assert sizes["none found"]["gap"]["auc"] == -0.5
    assert list(strata["given_head_size"]) == ["1/4-1/2"]


def test_misses_are_told(evaluated):
    text = "\n".join(evaluated.figures["warnings"])
    assert "NO ANSWER: 2 of 6 images (33.3%) have no judged head" in text
    assert "SEVERAL HEADS: in 33.3% of the images" in text
    # Three groups cannot show that the gap is none of chance.
    assert "GAP" not in text and "UNREADABLE" not in text


def answers(count, **changes):
    """Images of which all is right and sure."""
    truths = np.arange(count) % 2
    said = np.where(truths == 1, 0.9, 0.1)
    columns = {
        "filenames": np.array([f"{i}.png" for i in range(count)]),
        "labels": truths,
        "groups": np.arange(count).astype(str),
        "datasets": np.full(count, "faces"),
        "sources": np.full(count, "faces"),
        "given_counts": np.ones(count, int),
        "given_shares": np.full(count, np.nan),
        "statuses": np.full(count, "ok"),
        "num_heads": np.ones(count, int),
        "head_shares": np.full(count, 0.5),
        "probabilities": said,
        "crop_probabilities": said,
    }
    return chain_answers.Answers(**{**columns, **changes})


def test_nothing_is_told_where_all_is_right():
    figures = chain_evaluation.measure(answers(40), BAND, 50)
    assert figures["chain"]["auc"] == 1 and figures["gap"]["auc_interval"] == [0, 0]
    assert list(figures["strata"]) == ["head_size"]
    assert chain_evaluation.find_warnings(figures) == []


def test_a_gap_is_told_where_it_is_sure():
    blind = answers(40, probabilities=np.full(40, 0.5))
    figures = chain_evaluation.measure(blind, BAND, 50)
    warnings = chain_evaluation.find_warnings(figures)
    assert warnings == [
        "GAP: the AUC of whole images is 0.500 [0.500, 0.500] below that on the given "
        "heads of the same images: that is lost in finding heads, not in judging them."
    ]


def test_head_sizes_go_by_the_longer_side():
    shares = [0.06, 0.0625, 0.125, 0.2, 0.25, 0.499, 0.5, 1, np.nan, np.nan]
    figures = chain_evaluation.measure(
        answers(10, head_shares=np.array(shares)), BAND, 2
    )
    sizes = figures["strata"]["head_size"]
    assert {name: stratum["num_images"] for name, stratum in sizes.items()} == {
        "<1/16": 1,
        "1/16-1/8": 1,
        "1/8-1/4": 2,
        "1/4-1/2": 2,
        "1/2-1": 2,
        "none found": 2,
    }


def test_images_of_which_nobody_says_one_have_no_share():
    unknown = answers(4, given_counts=np.full(4, given_heads.UNKNOWN))
    heads = chain_evaluation.measure(unknown, BAND, 10)["heads"]
    assert heads["num_one_head"] == 0 and heads["counts"]["one"] == 4
    assert np.isnan(heads["one"]) and np.isnan(heads["one_interval"]).all()
    row = next(csv.DictReader(io.StringIO(unknown.to_csv(BAND).decode())))
    assert row["given_heads"] == ""


def test_what_the_detector_was_trained_on_is_told(tmp_path):
    graph = tiny_heads.build()
    described = {**graph.manifest["detector"], "data": {"fingerprint": "of the faces"}}
    trained = types.SimpleNamespace(
        detect=graph.detect,
        classify_crops=graph.classify_crops,
        manifest={**graph.manifest, "detector": described},
    )
    judged = look(prepare(tmp_path, {"validation": DRAWN[:2]}), split="validation")
    told = [
        any(text.startswith("SEEN BEFORE") for text in one.figures["warnings"])
        for model in (graph, trained)
        for one in chain_evaluation.evaluate_graph(
            "tiny", model, sets=[judged], say=print
        )[1]
    ]
    assert told == [False, True]


def test_several_sets_stand_together_and_alone(judged, tmp_path):
    groups = {"train": DRAWN[:1], "test": DRAWN}
    leaky = look(prepare(tmp_path, groups, Others), allow_leaky_split=True)
    together, results = chain_evaluation.evaluate_graph(
        "tiny", tiny_heads.build(), sets=[judged, leaky], say=print
    )
    figures = together.figures
    assert figures["num_images"] == 12 and figures["num_groups"] == 6
    assert figures["results"] == [result.figures for result in results]
    assert figures["datasets"] == ["faces, test", "others, test"]
    assert list(figures["strata"]["dataset"]) == ["faces", "others"]
    of_faces = figures["strata"]["dataset"]["faces"]["chain"]
    assert of_faces["auc"] == results[0].figures["chain"]["auc"]
    assert figures["leaky_split"] and not results[0].figures["leaky_split"]
    assert any(x.startswith("others, test: LEAKY SPLIT") for x in figures["warnings"])


def test_the_script_measures_prepared_sets(prepared, tmp_path, run_script, saved_tiny):
    done = run_script(
        "train/evaluate.py",
        "--task=chain",
        "--dataset=labeled_faces",
        f"--data_dir={prepared}",
        f"--graph={saved_tiny}",
        "--resamples=10",
        f"--output={tmp_path / 'measured'}",
        "--batch_size=3",
    )
    figures = json.loads((tmp_path / "measured" / "metrics.json").read_text())
    assert figures["task"] == "chain" and figures["data"]["name"] == "labeled_faces"
    assert figures["num_images"] == 4 and figures["heads"]["several"] == 1.0
    assert re.search(
        rf"AUC, whole images +{figures['chain']['auc']:.3f} \[", done.stdout
    )
    assert "WARNING: SEVERAL HEADS: in 100.0% of the images" in done.stderr
    with open(tmp_path / "measured" / "predictions.csv", encoding="utf-8") as file:
        assert [row["num_heads"] for row in csv.DictReader(file)] == ["3"] * 4
    assert "given heads" in (tmp_path / "measured" / "report.html").read_text()


def test_a_chain_is_no_model_directory(run_script):
    done = run_script(
        "train/evaluate.py",
        "--task=chain",
        "--data_dir=x",
        "--dataset=x",
        "--model_dir=default",
        check=False,
    )
    assert done.returncode == 2
    assert "--task=chain takes --graph instead of --model_dir" in done.stderr
