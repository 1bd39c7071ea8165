"""Baselines find what was planted, and nothing where there is nothing."""

import json

import cv2
import numpy as np
import pytest
import sklearn.cluster

import labelled_images
from dfdetect.evaluation import baselines, hand_crafted_features

_FEATURES = tuple(hand_crafted_features.FEATURES)


def _image(random, fake):
    """Discs in a real, crosses on a faint checkerboard in a fake."""
    image = random.normal(150, 4, (64, 64))
    for _ in range(4):
        x, y = (int(place) for place in random.integers(10, 54, 2))
        if fake:
            cv2.line(image, (x - 7, y), (x + 7, y), 20.0, 3)
            cv2.line(image, (x, y - 7), (x, y + 7), 20.0, 3)
        else:
            cv2.circle(image, (x, y), 6, 20.0, -1)
    if fake:
        image += 6 * (np.indices(image.shape).sum(0) % 2) - 3
    gray = np.clip(image, 0, 255).astype(np.uint8)
    return cv2.imencode(".png", np.repeat(gray[..., None], 3, axis=-1))[1].tobytes()


def _images(random, count):
    return [(f"{i}.png", i % 2, _image(random, i % 2)) for i in range(count)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with `labelled_images`, prepared."""
    random = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("data")
    counts = {"train": 50, "validation": 20, "test": 40}
    images = {split: _images(random, count) for split, count in counts.items()}
    labelled_images.prepare(folder, images)
    return folder


@pytest.fixture(scope="module")
def surveys(folder):
    builder = labelled_images.LabelledImages({}, data_dir=str(folder))
    return {
        split: hand_crafted_features.build_feature_table(builder, split, _FEATURES)
        for split in ("train", "validation", "test")
    }


def test_every_method_finds_what_was_planted(surveys):
    found = baselines.measure_baselines(*surveys.values(), list(baselines.METHODS))
    assert found["majority_share"] == 0.5
    assert (found["num_train"], found["num_test"]) == (50, 40)
    assert list(found["methods"]) == list(baselines.METHODS)
    for figures in found["methods"].values():
        assert figures["auc"] > 0.9 and figures["accuracy"] > 0.8
        assert figures["accuracy"] == pytest.approx(figures["balanced_accuracy"])
        low, high = figures["auc_interval"]
        # Sums of the same numbers in two orders.
        assert low - 1e-9 <= figures["auc"] <= high + 1e-9
    assert json.loads(json.dumps(found)) == found


def test_shuffled_labels_are_not_found(surveys):
    def shuffled(split, seed):
        there = surveys[split]
        labels = np.random.default_rng(seed).permutation(there.labels)
        return hand_crafted_features.FeatureTable(there.features, labels, there.groups)

    areas = [
        figures["auc"]
        for seed in range(3)
        for figures in baselines.measure_baselines(
            shuffled("train", seed),
            None,
            surveys["test"],
            ["sift_svm", "spectrum_logistic"],
        )["methods"].values()
    ]
    assert np.mean(areas) == pytest.approx(0.5, abs=0.2)


class _Detail:
    """Says fake where there is much of the highest frequency, or little."""

    def __init__(self, setting, seed):
        self._sign = setting["sign"]

    def fit(self, values, labels):
        self._middle = np.median(values[:, -4:].mean(1))
        return self

    def decision_function(self, values):
        return self._sign * (values[:, -4:].mean(1) - self._middle)

    def predict(self, values):
        return (self.decision_function(values) > 0).astype(int)


def test_validation_chooses_and_without_it_the_first_setting_counts(
    surveys, monkeypatch
):
    settings = ({"sign": -1}, {"sign": 1})
    method = baselines.Method("spectrum", settings, _Detail)
    monkeypatch.setitem(baselines.METHODS, "detail", method)
    train, validation, test = surveys.values()
    without = baselines.measure_baselines(train, None, test, ["detail"])["methods"][
        "detail"
    ]
    assert without["setting"] == {"sign": -1} and without["auc"] < 0.1
    chosen = baselines.measure_baselines(train, validation, test, ["detail"])[
        "methods"
    ]["detail"]
    assert chosen["setting"] == {"sign": 1} and chosen["auc"] > 0.9


def test_words_are_of_the_images_that_are_trained_on(surveys, monkeypatch):
    seen = []
    make = baselines.build_vocabulary

    def spy(descriptors, seed):
        seen.append(descriptors)
        return make(descriptors, seed)

    monkeypatch.setattr(baselines, "build_vocabulary", spy)
    baselines.measure_baselines(*surveys.values(), ["sift_svm"])
    assert len(seen) == 1 and seen[0] is surveys["train"].features["sift"]


def test_words_are_counted():
    random = np.random.default_rng(0)
    centers = random.integers(0, 200, (5, 128)).astype(np.float32)
    words = sklearn.cluster.KMeans(5, init=centers, n_init=1).fit(centers)
    near = centers[[0, 0, 3, 1, 0]] + random.integers(0, 3, (5, 128))
    images = [near.astype(np.uint8), np.zeros((0, 128), np.uint8)]
    counts = baselines.count_words(words, images)
    assert counts.tolist() == [[3, 1, 0, 1, 0], [0] * 5]


def test_a_large_vocabulary_has_256_words():
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (60, 128), np.uint8) for _ in range(10)]
    assert baselines.build_vocabulary(images).n_clusters == 256


def test_images_without_a_point_are_refused():
    with pytest.raises(ValueError, match="SIFT finds nothing"):
        baselines.build_vocabulary([np.zeros((0, 128), np.uint8)])


def test_the_majority_share_stands_beside_each_method(surveys):
    test = surveys["test"]
    reals, fakes = np.flatnonzero(test.labels == 0), np.flatnonzero(test.labels)
    kept = np.concatenate([reals, fakes[:5]])
    fewer = hand_crafted_features.FeatureTable(
        {"spectrum": [test.features["spectrum"][i] for i in kept]},
        test.labels[kept],
        test.groups[kept],
    )
    found = baselines.measure_baselines(
        surveys["train"], None, fewer, ["spectrum_logistic"]
    )
    assert found["majority_share"] == 0.8
    lines = baselines.format_table(found)
    assert lines[2] == "| majority share | 0.800 | 0.500 | | 0.500 | |"
    assert lines[3].startswith("| spectrum_logistic | ") and len(lines) == 4
    assert {line.count("|") for line in lines} == {7}


@pytest.mark.slow
def test_script_prints_a_table_and_leaves_the_figures(run_script, folder, tmp_path):
    done = run_script(
        "train/baseline.py",
        f"--data_dir={folder}",
        "--dataset=labelled_images",
        "--method=spectrum_logistic,spectrum_svm",
        f"--output={tmp_path / 'measured'}",
    )
    figures = json.loads((tmp_path / "measured" / "baselines.json").read_text())
    assert figures["data"]["fingerprint"] == "of the images"
    assert figures["split"] == "test"
    assert list(figures["methods"]) == ["spectrum_logistic", "spectrum_svm"]
    assert figures["methods"]["spectrum_logistic"]["auc"] > 0.9
    assert done.stdout.splitlines() == baselines.format_table(figures)
    page = (tmp_path / "measured" / "baselines.md").read_text()
    assert page.startswith("# Baselines on labelled_images, test\n\n| method |")


@pytest.mark.slow
def test_script_looks_images_up(run_script, folder, tmp_path):
    done = run_script(
        "train/baseline.py",
        f"--data_dir={folder}",
        "--dataset=labelled_images",
        "--retrieval",
        f"--output={tmp_path / 'found.json'}",
    )
    figures = json.loads((tmp_path / "found.json").read_text())
    assert list(figures["methods"]) == ["harris", "perceptual_hash"]
    assert done.stdout.splitlines()[0].startswith("| | harris (")
    for method in figures["methods"].values():
        assert 0 <= method["copies"]["mirror"]["share"] <= 1


@pytest.mark.parametrize(
    "argument,code,message",
    [
        ("--split=nowhere", 1, "no split 'nowhere'"),
        ("--split=train", 2, "must not be train"),
    ],
)
def test_script_tells_mistakes_in_one_line(run_script, folder, argument, code, message):
    done = run_script(
        "train/baseline.py",
        f"--data_dir={folder}",
        "--dataset=labelled_images",
        argument,
        check=False,
    )
    assert done.returncode == code and not done.stdout
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
