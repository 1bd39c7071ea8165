import numpy as np
import pytest

from dfdetect.evaluation import classification_protocol
from dfdetect.evaluation.predictions import Predictions


def _predictions(rows, sizes=100.0, **fields):
    """Of (label, probability, group, video)."""
    labels, probabilities, groups, videos = map(np.array, zip(*rows, strict=True))
    count = len(rows)
    return Predictions(
        filenames=np.arange(count).astype(str),
        labels=labels,
        logits=np.zeros(count),
        probabilities=probabilities,
        groups=groups,
        videos=videos,
        sizes=np.broadcast_to(np.asarray(sizes, np.float64), count),
        fields={name: np.array(values) for name, values in fields.items()},
    )


# Two groups: a real of two frames, a fake of two, and in the second a third fake.
ROWS = [
    (0, 0.1, "g", "g/real"),
    (0, 0.7, "g", "g/real"),
    (1, 0.6, "g", "g/fake"),
    (1, 0.8, "g", "g/fake"),
    (0, 0.2, "h", "h/real"),
    (1, 0.3, "h", "h/fake"),
    (1, 0.9, "h", "h/other"),
]
METHODS = ["original", "original", "swap", "swap", "original", "swap", "talk"]


def test_both_levels_by_hand():
    found = classification_protocol.measure_both_levels(_predictions(ROWS), 200)
    images, videos = found["metrics"], found["video_metrics"]
    assert (images["num_real"], images["num_fake"]) == (3, 4)
    # Of twelve pairs, .6 and .3 are below .7.
    assert images["auc"] == pytest.approx(10 / 12)
    assert images["fpr"] == pytest.approx(1 / 3) and images["tpr"] == 0.75
    assert images["accuracy"] == pytest.approx(5 / 7)
    # Means of .4, .7, .2, .3 and .9: of six pairs, .3 is below .4.
    assert (videos["num_real"], videos["num_fake"], videos["num_groups"]) == (2, 3, 2)
    assert videos["auc"] == pytest.approx(5 / 6)
    assert videos["fpr"] == 0 and videos["tpr"] == pytest.approx(2 / 3)
    for figures in (images, videos):
        for name, value in figures.items():
            if name.endswith("_interval"):
                low, high = value
                assert low <= high, name
            elif not name.startswith("num_"):
                assert f"{name}_interval" in figures


def test_a_method_of_fakes_is_told_from_all_reals():
    found = classification_protocol.measure_strata(
        _predictions(ROWS, method=METHODS), 50
    )
    assert list(found) == ["method"]
    methods = found["method"]
    assert list(methods) == ["original", "swap", "talk"]
    swap = methods["swap"]
    assert swap["against"] == "all reals"
    assert (swap["metrics"]["num_real"], swap["metrics"]["num_fake"]) == (3, 3)
    # .6 and .3 are below .7, of nine pairs.
    assert swap["metrics"]["auc"] == pytest.approx(7 / 9)
    assert methods["talk"]["metrics"]["auc"] == 1


def test_reals_alone_have_a_false_positive_rate_and_no_area():
    found = classification_protocol.measure_strata(
        _predictions(ROWS, source=METHODS), 50
    )
    reals = found["source"]["original"]
    assert reals["against"] == "its own"
    assert reals["metrics"]["fpr"] == pytest.approx(1 / 3)
    assert reals["metrics"]["accuracy"] == pytest.approx(2 / 3)
    assert reals["metrics"]["fpr_interval"] == [0.0, 0.5]
    for name in ("auc", "ap", "eer", "tpr", "auc_interval", "log_loss"):
        assert np.isnan(reals["metrics"][name]).all(), name


def test_a_compression_is_compared_within_itself():
    levels = ["c23", "c23", "c23", "c40", "c40", "c40", "c40"]
    found = classification_protocol.measure_strata(
        _predictions(ROWS, compression=levels), 50
    )["compression"]
    assert found["c23"]["against"] == "its own"
    assert found["c23"]["metrics"]["auc"] == 0.5
    assert found["c40"]["metrics"]["num_real"] == 1


def test_sizes_are_binned_in_order_and_single_kinds_are_left_out():
    sizes = [31.9, 32, 64, 200, 300, 511, 512]
    found = classification_protocol.measure_strata(
        _predictions(ROWS, sizes, dataset=["x"] * 7), 20
    )
    assert list(found) == ["head_size"]
    counts = {
        name: figures["metrics"]["num_real"] + figures["metrics"]["num_fake"]
        for name, figures in found["head_size"].items()
    }
    expected = {"<32": 1, "32-64": 1, "64-128": 1, "128-256": 1, "256-512": 2}
    assert list(counts.items()) == [*expected.items(), (">=512", 1)]
    fake = found["head_size"]["64-128"]
    assert fake["against"] == "its own" and fake["metrics"]["num_real"] == 0
    assert np.isnan(fake["metrics"]["auc"]) and fake["metrics"]["tpr"] == 1


def test_a_field_of_names_is_no_kind():
    names = [str(i) for i in range(60)]
    rows = [(i % 2, 0.5, str(i), str(i)) for i in range(60)]
    assert (
        classification_protocol.measure_strata(_predictions(rows, source=names), 20)
        == {}
    )
