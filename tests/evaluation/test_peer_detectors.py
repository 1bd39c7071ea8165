"""Detectors of others on the records of a drawn set: by a table and by a function."""

import csv
import json

import numpy as np
import pytest

import sourced_faces
from dfdetect.data import export_lists
from dfdetect.evaluation import (
    classifiers,
    evaluation_set,
    leave_one_out,
    peer_detectors,
    source_pairs,
)


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    rng = np.random.default_rng(0)
    faces = {}
    for split, count in (("train", 4), ("test", 24)):
        faces[split] = []
        for number in range(count):
            label = number % 2
            image = rng.integers(0, 120, (40, 60, 3), np.uint8) + np.uint8(60 * label)
            source = ("camera", "studio", "GAN", "swap")[2 * label + number // 2 % 2]
            box = (0.2, 0.2, 0.6, 0.6) if number % 3 else (0, 0, 0, 0)
            name = f"{source}/{split}{number}"
            face = sourced_faces.face(name, label, source, box, image, f"g{number}")
            face["group"] = f"{split}{number // 2}"
            faces[split].append(face)
    return sourced_faces.prepare(tmp_path_factory.mktemp("data"), faces)


@pytest.fixture(scope="module")
def judged(builder):
    return evaluation_set.load_evaluation_set(
        builder, "test", say=lambda _: None, num_resamples=20
    )


def _write(path, rows, header=("path", "fake_probability")):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def _peer(path, say=lambda _: None, **options):
    tables, scripts = ([str(path)], []) if str(path).endswith(".csv") else ([], [path])
    (peer,) = peer_detectors.open_peers(tables, scripts, say=say, **options)
    return peer


def test_a_table_gets_the_figures_of_its_probabilities(judged, tmp_path):
    survey = judged.survey
    scores = 0.2 + 0.5 * survey.truths
    scores[0] = 0.5
    rows = [
        (f"/home/peer/faces/{n}", s)
        for n, s in zip(survey.filenames, scores, strict=True)
    ]
    rows.append(("another/set.png", 0.3))
    result = classifiers.measure_peer(
        _peer(_write(tmp_path / "theirs.csv", rows)), judged, guess_missing=False
    )
    np.testing.assert_allclose(result.predictions.probabilities, scores)
    figures = result.figures
    assert figures["metrics"]["auc"] == 1
    assert figures["metrics"]["auc_interval"][0] <= 1
    assert {*figures["strata"]["source"]} == {"camera", "studio", "GAN", "swap"}
    assert "no_pixels" in figures["baselines"]
    assert result.model == str(tmp_path / "theirs.csv")


def test_exported_lists_and_record_ids_name_records_too(builder, judged, tmp_path):
    export_lists.export_dataset(builder, str(tmp_path / "lists"), say=lambda _: None)
    lines = (tmp_path / "lists" / "test.txt").read_text().splitlines()
    rows = [line.rsplit(" ", 1) for line in lines]
    rows = [
        (f"{tmp_path}/lists/{name}", 0.1 + 0.8 * int(label)) for name, label in rows
    ]
    expected = 0.1 + 0.8 * judged.survey.truths
    peer = _peer(_write(tmp_path / "theirs.csv", rows))
    np.testing.assert_allclose(peer.judge(judged), expected)
    aliases = peer_detectors._aliases(builder, "test")
    ids = {name: alias for alias, name in aliases if "tfrecord" in alias}
    rows = [(ids[n], p) for n, p in zip(judged.survey.filenames, expected, strict=True)]
    peer = _peer(_write(tmp_path / "ids.csv", rows, ("id", "score")))
    np.testing.assert_allclose(peer.judge(judged), expected)


def test_gaps_are_refused_or_told_and_counted_as_guesses(judged, tmp_path):
    rows = [(name, 0.9) for name in judged.survey.filenames[2:]]
    rows.append((judged.survey.filenames[0], ""))
    peer = _peer(_write(tmp_path / "theirs.csv", rows))
    with pytest.raises(ValueError, match=r"no probability for 2 of 24 records .*guess"):
        classifiers.measure_peer(peer, judged, guess_missing=False)
    result = classifiers.measure_peer(peer, judged, guess_missing=True)
    np.testing.assert_array_equal(result.predictions.probabilities[:3], [0.5, 0.5, 0.9])
    assert "GAPS: " in result.figures["warnings"][0]


@pytest.mark.parametrize(
    ("rows", "header", "told"),
    [
        ([("a.png", "1.2")], ("path", "score"), r":2: .* in \[0, 1\], .* '1\.2'"),
        ([("a.png", "yes")], ("path", "score"), r":2: .* in \[0, 1\], .* 'yes'"),
        ([("a.png", ".1"), ("a.png", ".2")], ("id", "score"), ":3: 'a.png' has 0.1"),
        ([("a.png", ".1")], ("name", "score"), ":1: columns must be one of path, im"),
        ([("a.png", ".1")], ("path", "real"), ":1: columns must be .* fake_probabi"),
        ([("none.png", ".1")], ("path", "score"), "names no record of test of sourced"),
    ],
)
def test_a_table_that_is_none_is_refused(rows, header, told, judged, tmp_path):
    path = _write(tmp_path / "theirs.csv", rows, header)
    with pytest.raises(ValueError, match=told):
        _peer(path).judge(judged)


_BRIGHTNESS = """
import cv2
seen = []
def predict(paths):
    seen.append(len(paths))
    return [min(cv2.imread(path).mean() / 255, 1) for path in paths]
"""


@pytest.mark.parametrize("file_input", peer_detectors.INPUTS)
def test_a_function_gets_files_of_heads_or_of_whole_images(
    file_input, judged, tmp_path
):
    path = tmp_path / "brightness.py"
    sizes = "    open(__file__ + '.sizes', 'a').write(str([cv2.imread(p).shape for p in"
    path.write_text(
        f"{_BRIGHTNESS[:-1]}\n".replace("    return", f"{sizes} paths]))\n    return")
    )
    found = _peer(str(path), file_input=file_input).judge(judged)
    assert np.all((found > 0.36) == judged.survey.truths)
    sizes = json.loads(open(f"{path}.sizes").read().replace("(", "[").replace(")", "]"))
    assert len(sizes) == 24
    whole = sizes.count([40, 60, 3])
    assert whole == (24 if file_input == "image" else 8)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("def judge(paths): pass", "must have a function predict"),
        ("import nothing_like_it", "fails: ModuleNotFoundError: No module named"),
        ("def predict(paths): return [0.5]", "must return 24 probabilities .*(1,)"),
        ("def predict(paths): return [3.0] * len(paths)", r"in \[0, 1\].*got 3\.0"),
        ("def predict(paths): return paths[99]", "fails: IndexError"),
    ],
)
def test_a_function_that_is_none_is_refused(content, told, judged, tmp_path):
    path = tmp_path / "theirs.py"
    path.write_text(content)
    with pytest.raises(ValueError, match=told):
        _peer(str(path)).judge(judged)


def test_makers_that_a_peer_was_trained_on_are_told_apart(judged, tmp_path):
    rows = [(name, 0.5) for name in judged.survey.filenames]
    peer = _peer(_write(tmp_path / "theirs.csv", rows), makers=["GAN"])
    pooled = source_pairs.pool_sets([judged], 1.3)
    assert leave_one_out.is_seen(peer.manifest, pooled, "GAN")
    assert not leave_one_out.is_seen(peer.manifest, pooled, "swap")


@pytest.mark.slow  # A quarter of a minute: runs the script twice.
def test_evaluate_measures_a_peer_beside_ours(run_script, prepared, tmp_path):
    rows = [
        (f"test{i}_{x}.png", {"real": 0.4, "fake": 0.6}[x])
        for i in (0, 1)
        for x in ("real", "fake")
    ]
    theirs = _write(tmp_path / "theirs.csv", rows)
    script = tmp_path / "smooth.py"
    script.write_text(
        "import cv2\n"
        "def predict(paths):\n"
        "    images = [cv2.imread(path).astype(float) for path in paths]\n"
        "    return [float(abs(x[1:] - x[:-1]).mean() < 40) for x in images]\n"
    )
    flags = [
        "--task=classify",
        f"--data_dir={prepared}",
        "--dataset=labeled_faces",
        f"--predictions={theirs}",
        "--resamples=10",
    ]
    output = tmp_path / "measured"
    run_script(
        "train/evaluate.py", *flags, f"--detector={script}", f"--output={output}"
    )
    figures = json.loads((output / "metrics.json").read_text())
    assert [x["model"] for x in figures["results"]] == [theirs, str(script)]
    assert [x["metrics"]["accuracy"] for x in figures["results"]] == [1, 1]
    report = (output / "report.md").read_text()
    assert "theirs.csv" in report and "smooth.py" in report
    assert (output / "2_predictions.csv").exists()
    failed = run_script("train/evaluate.py", *flags, "--leave_out=source", check=False)
    assert failed.returncode == 2
    assert "--leave_out needs --peer_makers" in failed.stderr
    # A table of another set is refused before our classifier is measured.
    _write(tmp_path / "theirs.csv", [("none.png", 0.5)])
    failed = run_script("train/evaluate.py", *flags, "--model_dir=default", check=False)
    assert failed.returncode == 1 and "names no record of test" in failed.stderr
    assert "classified" not in failed.stderr
