"""Linear probes on makers that they were not fitted to, of features one can count."""

import dataclasses

import numpy as np
import pytest

from dfdetect import labels
from dfdetect.evaluation import linear_probe, probe_features

PROTOCOL = linear_probe.Protocol(least_crops=2, num_resamples=20)


def table(*kinds, count=4):
    """Crops of (origin, label, value, blended), `count` of each."""
    rows = [(*kind, number) for kind in kinds for number in range(count)]
    values = np.array([[row[2] + 0.01 * row[-1]] for row in rows], np.float32)
    return probe_features.Table(
        {"stages": values, "spectrum": 1000 * values + 7},
        np.array([row[1] for row in rows]),
        np.array([row[0] for row in rows]),
        np.array([f"{row[0]}/{row[-1]}" for row in rows]),
        np.array([row[3] for row in rows]),
    )


def real(origin, value):
    return origin, labels.REAL, value, False


def fake(origin, value):
    return origin, labels.FAKE, value, False


def blended(origin, value):
    return origin, labels.FAKE, value, True


def test_weights_are_those_of_a_training_without_the_maker():
    train = table(
        real("street", 0), real("shop", 0), fake("lab", 1), fake("works", 1), count=2
    )
    more = table(blended("street", 2), real("shop", 0), count=1)
    train = probe_features.join([train, more])
    found = linear_probe.weigh(train, frozenset({"lab"}), 0.4)
    # Tenths of 9: 2.5 for each source of reals, 3 for the other maker, 2 for the
    # blended.
    street, shop = [1.25] * 2, [2.5 / 3] * 2
    expected = [*street, *shop, 0, 0, 1.5, 1.5, 2, 2.5 / 3]
    assert found == pytest.approx(0.9 * np.array(expected))
    without = linear_probe.weigh(train, frozenset({"lab"}), 0)
    assert without[8] == 0 and without[6:8].tolist() == [2.25, 2.25]
    with pytest.raises(ValueError, match="fakes of other makers .* got none"):
        linear_probe.weigh(train, frozenset({"lab", "works"}), 0.4)
    assert linear_probe.weigh(train, frozenset({"lab", "works"}), 1)[8] == 4.5


def test_a_maker_is_judged_by_a_probe_that_has_not_seen_it():
    train = table(real("street", 0), fake("lab", 3), fake("works", 3), fake("odd", -9))
    test = table(
        real("street", 0), real("shop", 4), fake("lab", 3), fake("works", 3),
        fake("odd", -9), fake("new", 3),
    )  # fmt: skip
    found = linear_probe.measure(train, test, ["stages"], protocol=PROTOCOL)
    assert found.makers == ("lab", "new", "odd", "works")
    assert found.sources == ("shop", "street")
    # Of "lab" and "works" alone the probe learns that fakes have high values.
    assert found.areas[2].tolist() == [0, 0]
    apart = linear_probe.Protocol(
        least_crops=2, num_resamples=20, families=(frozenset({"lab", "works"}),)
    )
    together = linear_probe.measure(train, test, ["stages"], protocol=apart)
    # Only "odd" is left to fit to: fakes have low values.
    assert together.areas[0].tolist() == [1, 0] == together.areas[3].tolist()
    assert together.areas[2].tolist() == [0, 0]


def test_blended_fakes_are_learned_from_by_their_share():
    train = table(real("street", 0), fake("lab", 3), fake("works", 3))
    train = probe_features.join([train, table(blended("street", -6))])
    test = table(real("street", 0), fake("lab", 3))
    areas = [
        linear_probe.measure(train, test, ["stages"], share, PROTOCOL).areas[0, 0]
        for share in (0.0, 1.0)
    ]
    assert areas == [1, 0]


def test_in_folds_no_crop_is_judged_by_a_probe_that_has_seen_its_group():
    train = table(real("street", 0), fake("lab", 3), fake("works", 3), count=8)
    found = linear_probe.measure_folds(train, ["stages"], protocol=PROTOCOL)
    assert found.makers == ("lab", "works")
    assert found.areas.tolist() == [[1], [1]]
    # Each group has a value of its own, which tells nothing of the others.
    own = dataclasses.replace(
        train, features={"stages": 100 * np.eye(24, dtype=np.float32)}
    )
    within = linear_probe.measure(own, own, ["stages"], protocol=PROTOCOL)
    assert np.all(within.areas > 0.9)  # The reals that are judged were fitted to.
    blind = linear_probe.measure_folds(own, ["stages"], protocol=PROTOCOL)
    assert np.all(blind.areas < 0.9)


def test_in_folds_blended_fakes_are_fitted_to_and_not_judged():
    train = table(real("street", 0), fake("lab", 3), count=8)
    train = probe_features.join([train, table(blended("street", -6), count=8)])
    found = linear_probe.measure_folds(train, ["stages"], 1.0, PROTOCOL)
    assert (found.makers, found.areas.tolist()) == (("lab",), [[0]])


def test_the_scale_of_a_kind_of_features_does_not_matter():
    train = table(real("street", 0), fake("lab", 1), fake("works", 2), real("shop", 1))
    weights = linear_probe.weigh(train, frozenset({"lab"}), 0)
    found = [
        linear_probe.score(train, train, [name], weights)
        for name in ("stages", "spectrum")
    ]
    assert found[0] == pytest.approx(found[1], abs=1e-2)
    assert np.ptp(found[0]) > 1


def test_figures_are_told_with_intervals_and_differences():
    train = table(real("street", 0), fake("lab", 1), fake("works", 1), count=6)
    test = table(real("street", 0), real("shop", 1), fake("lab", 1), count=6)
    found = linear_probe.measure(train, test, ["stages"], protocol=PROTOCOL)
    described = found.describe(found, {"lab"})
    assert described["rows"][0] == {
        "maker": "lab",
        "least": 0.5,
        "source": "shop",
        "seen": True,
        "against": {"shop": 0.5, "street": 1.0},
    }
    assert (described["mean_least"], described["mean"]) == (0.5, 0.75)
    low, high = described["mean_least_interval"]
    assert 0 <= low < 0.5 < high <= 1
    assert described["difference_interval"] == [0, 0]
    lines = linear_probe.format_table(
        [{"name": "stages, 224", "stored": described, "altered": described}]
    )
    assert lines[2].startswith("| stages, 224 (1 of 1 makers SEEN) | 0.500 | ")
    assert lines[2].count("| 0.500 | ") == 2
    assert {line.count("|") for line in lines[:3]} == {8}
    assert lines[4:] == ["| least, stored | lab |", "|---|---|", lines[6]]
    assert lines[6] == "| stages, 224 | 0.500 |"


def test_too_few_crops_are_said():
    train = table(real("street", 0), fake("lab", 1))
    with pytest.raises(ValueError, match="at least 9 crops each, got 0 and 0"):
        linear_probe.measure(
            train, train, ["stages"], 0.0, linear_probe.Protocol(least_crops=9)
        )


def test_two_logits_find_fakes_on_both_sides_of_the_reals():
    train = table(
        real("street", 0), fake("swap", -3), fake("lab", 3), fake("works", 3),
        blended("street", -3),
    )  # fmt: skip
    weights = linear_probe.weigh(train, frozenset({"lab"}), 0.2)
    kinds = dataclasses.replace(PROTOCOL, altering_makers=frozenset({"swap"}))
    two = linear_probe.score_kinds(train, train, ["stages"], weights, kinds)
    is_real = train.truths == labels.REAL
    # Also "lab", which was left out.
    assert two[~is_real].min() > two[is_real].max()
    one = linear_probe.score_kinds(train, train, ["stages"], weights, PROTOCOL)
    assert one[~is_real].min() < one[is_real].min()
    only = np.where(train.origins == "works", 0.0, weights)
    alone = linear_probe.score_kinds(train, train, ["stages"], only, kinds)
    assert alone[train.origins == "lab"].max() < alone[is_real].min()
