import numpy as np
import pytest

from dfdetect.metrics import calibration


def test_temperature_undoes_a_known_stretch():
    random = np.random.default_rng(0)
    honest = random.normal(0, 2, 20_000)
    labels = (random.random(20_000) < calibration.calibrate_logits(honest)).astype(int)
    assert calibration.fit_temperature(honest * 3, labels) == pytest.approx(3, rel=0.05)
    assert calibration.fit_temperature(honest / 2, labels) == pytest.approx(
        0.5, rel=0.05
    )


def test_separable_logits_stay_within_the_bounds():
    temperature = calibration.fit_temperature(np.array([-5.0, 5.0]), np.array([0, 1]))
    assert 0.05 <= temperature < 0.051


# Two of four reals and one of four fakes stand on the wrong side of one half.
_SCORES = np.array([0.1, 0.2, 0.55, 0.7, 0.3, 0.6, 0.8, 0.9])
_LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1])


@pytest.mark.parametrize(
    "rates, band, reached",
    [
        # Above the real .7, halfway to .8; below the fake .3, halfway to .2.
        ((0.0, 0.0), (0.25, 0.75), (0.0, 0.0)),
        # .7 may be called fake: the next real one is .55, and .6 the next of all.
        ((0.25, 0.0), (0.25, 0.575), (0.25, 0.0)),
        # Of four images .24 are none.
        ((0.24, 0.24), (0.25, 0.75), (0.0, 0.0)),
        # And .3 may be called real: the next fake one is .6, .55 the one below it.
        ((0.25, 0.25), (0.575, 0.575), (0.25, 0.25)),
        # .25 to .575 all keep both rates.
        ((0.5, 0.25), (0.5, 0.5), (0.5, 0.25)),
    ],
)
def test_thresholds_by_hand(rates, band, reached):
    found = calibration.fit_thresholds(
        _SCORES,
        _LABELS,
        max_false_positive_rate=rates[0],
        max_false_negative_rate=rates[1],
    )
    assert (found["real_below"], found["fake_from"]) == pytest.approx(band)
    assert found["false_positive_rate"] == reached[0]
    assert found["false_negative_rate"] == reached[1]


def test_equal_probabilities_stand_on_one_side():
    scores = np.array([0.2, 0.6, 0.6, 0.6, 0.4, 0.4, 0.6, 0.8])
    found = calibration.fit_thresholds(
        scores, _LABELS, max_false_positive_rate=0.5, max_false_negative_rate=0.25
    )
    # Two reals might be called fake, but three of them are .6.
    assert found["fake_from"] == pytest.approx(0.7)
    assert found["false_positive_rate"] == 0.0
    # One fake might be called real, but two of them are .4.
    assert found["real_below"] == pytest.approx(0.3)
    assert found["false_negative_rate"] == 0.0


def test_one_image_of_each_label():
    found = calibration.fit_thresholds(
        np.array([0.9, 0.2]),
        np.array([0, 1]),
        max_false_positive_rate=0.1,
        max_false_negative_rate=0.1,
    )
    assert found["fake_from"] == pytest.approx(0.95)
    assert found["real_below"] == pytest.approx(0.1)


def test_a_model_without_errors_needs_no_band():
    scores, truths = np.array([0.1, 0.2, 0.3, 0.9]), np.array([0, 0, 0, 1])
    found = calibration.fit_thresholds(
        scores, truths, max_false_positive_rate=0.0, max_false_negative_rate=0.0
    )
    # Both would be .6, halfway between .3 and .9.
    assert found["real_below"] == found["fake_from"] == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("scores", "band"),
    [
        # Within the rates what is below .575 may be real.
        ([0.1, 0.2, 0.55, 0.9, 0.6, 0.7, 0.8, 0.95], (0.5, 0.925)),
        # What is above .35 may be fake.
        ([0.1, 0.2, 0.25, 0.3, 0.05, 0.4, 0.7, 0.8], (0.025, 0.5)),
    ],
)
def test_no_verdict_contradicts_the_probability(scores, band):
    found = calibration.fit_thresholds(
        np.array(scores),
        np.repeat([0, 1], 4),
        max_false_positive_rate=0.0,
        max_false_negative_rate=0.0,
    )
    assert (found["real_below"], found["fake_from"]) == pytest.approx(band)


def test_saturated_probabilities_are_not_called():
    found = calibration.fit_thresholds(
        np.array([1.0, 0.0]),
        np.array([0, 1]),
        max_false_positive_rate=0.0,
        max_false_negative_rate=0.0,
    )
    for probability in (0.0, 0.5, 1.0):
        assert calibration.decide_verdict(probability, found) == calibration.UNCERTAIN


def test_rates_hold_on_random_scores():
    random = np.random.default_rng(0)
    for count in (2, 7, 40, 333):
        truths = np.arange(count) % 2
        # Few different values: many ties.
        scores = np.round(random.beta(2 + truths, 3 - truths), 2)
        for rates in ((0.05, 0.1), (0.2, 0.01), (0.29, 0.5)):
            found = calibration.fit_thresholds(
                scores,
                truths,
                max_false_positive_rate=rates[0],
                max_false_negative_rate=rates[1],
            )
            verdicts = np.array([calibration.decide_verdict(x, found) for x in scores])
            assert (verdicts[truths == 0] == "fake").mean() <= rates[0]
            assert (verdicts[truths == 1] == "real").mean() <= rates[1]
            assert found["real_below"] <= found["fake_from"]


def test_thresholds_want_rates_and_both_labels():
    with pytest.raises(ValueError, match=r"A rate must be in \[0, 1\), got 1.0"):
        calibration.fit_thresholds(
            _SCORES, _LABELS, max_false_positive_rate=1.0, max_false_negative_rate=0.1
        )
    with pytest.raises(ValueError, match="real and fake, got 8 real, 0 fake"):
        calibration.fit_thresholds(
            _SCORES,
            0 * _LABELS,
            max_false_positive_rate=0.1,
            max_false_negative_rate=0.1,
        )


@pytest.mark.parametrize(
    "probability, verdict",
    [
        (0.0, "real"),
        (np.nextafter(0.3, 0), "real"),
        (0.3, "uncertain"),
        (np.nextafter(0.6, 0), "uncertain"),
        (0.6, "fake"),
        (1.0, "fake"),
        (float("nan"), None),
    ],
)
def test_verdict_at_the_edges(probability, verdict):
    band = {"real_below": 0.3, "fake_from": 0.6}
    assert calibration.decide_verdict(probability, band) == verdict


def test_a_single_threshold_knows_no_doubt():
    one = calibration.single_threshold(0.6)
    assert calibration.decide_verdict(0.6, one) == "fake"
    assert calibration.decide_verdict(np.nextafter(0.6, 0), one) == "real"


def test_probability_divides_before_the_sigmoid():
    assert calibration.calibrate_logits(np.array([2.0]), 2.0) == pytest.approx(
        1 / (1 + np.exp(-1.0))
    )


def test_fit_gives_thresholds_for_calibrated_probabilities():
    random = np.random.default_rng(0)
    truths = random.integers(0, 2, 400)
    logits = 3 * (truths - 0.5 + random.normal(0, 1, 400))
    found = calibration.fit_calibration(
        logits, truths, max_false_positive_rate=0.05, max_false_negative_rate=0.1
    )
    assert found["temperature"] == calibration.fit_temperature(logits, truths)
    probabilities = calibration.calibrate_logits(logits, found["temperature"])
    assert found["thresholds"] == calibration.fit_thresholds(
        probabilities, truths, max_false_positive_rate=0.05, max_false_negative_rate=0.1
    )
    called = probabilities >= found["thresholds"]["fake_from"]
    assert 0.02 < called[truths == 0].mean() <= 0.05


def test_no_source_of_reals_is_called_fake_too_often():
    random = np.random.default_rng(0)
    # Most reals are of an easy source; one of twenty is of a source that looks fake.
    easy, odd = random.uniform(0, 0.4, 1900), random.uniform(0.3, 0.8, 100)
    fakes = random.uniform(0.5, 1, 500)
    scores = np.concatenate([easy, odd, fakes])
    truths = np.repeat([0, 1], [2000, 500])
    sources = np.repeat(["easy", "odd", "maker"], [1900, 100, 500])
    apart = calibration.fit_thresholds(
        scores,
        truths,
        max_false_positive_rate=0.05,
        max_false_negative_rate=0.1,
        sources=sources,
    )
    together = calibration.fit_thresholds(
        scores, truths, max_false_positive_rate=0.05, max_false_negative_rate=0.1
    )
    assert (odd >= together["fake_from"]).mean() > 0.2
    assert (odd >= apart["fake_from"]).mean() == pytest.approx(0.05)
    assert apart["highest_false_positive_rate"] == pytest.approx(0.05)
    assert apart["false_positive_rate"] == pytest.approx(0.025)


def test_all_makers_of_fakes_count_the_same():
    # A hundred fakes of one maker, ten of another one, which alone looks real.
    scores = np.concatenate([[0.5], np.linspace(0.6, 0.9, 100), np.full(10, 0.2)])
    truths = np.repeat([0, 1], [1, 110])
    sources = np.repeat(["reals", "many", "few"], [1, 100, 10])
    together = calibration.fit_thresholds(
        scores, truths, max_false_positive_rate=0.0, max_false_negative_rate=0.1
    )
    apart = calibration.fit_thresholds(
        scores,
        truths,
        max_false_positive_rate=0.0,
        max_false_negative_rate=0.1,
        sources=sources,
    )
    assert apart["real_below"] == pytest.approx(
        0.1
    )  # Below the few: half of the weight.
    assert together["real_below"] > 0.2
    assert together["false_negative_rate"] == pytest.approx(10 / 110)


def test_no_maker_is_called_real_too_often():
    # Of ten fakes of the few, one may be called real; of the many, nobody would ask.
    few = np.linspace(0.11, 0.2, 10)
    scores = np.concatenate([[0.05, 0.5], np.linspace(0.6, 0.9, 900), few])
    truths = np.repeat([0, 1], [2, 910])
    sources = np.repeat(["reals", "many", "few"], [2, 900, 10])
    mean = calibration.fit_thresholds(
        scores,
        truths,
        max_false_positive_rate=0.0,
        max_false_negative_rate=0.5,
        sources=sources,
    )
    assert mean["real_below"] > 0.2 and mean["highest_false_negative_rate"] == 1.0
    each = calibration.fit_thresholds(
        scores,
        truths,
        max_false_positive_rate=0.0,
        max_false_negative_rate=0.5,
        sources=sources,
        max_source_false_negative_rate=0.1,
    )
    assert each["real_below"] == pytest.approx(0.115)  # Between the first and second.
    assert each["highest_false_negative_rate"] == pytest.approx(0.1)
    assert each["false_negative_rate"] == pytest.approx(0.05)
    assert each["fake_from"] == mean["fake_from"]


@pytest.mark.parametrize(
    "known, unfamiliar, expected",
    [
        ("real", True, "uncertain"),
        ("real", False, "real"),
        ("fake", True, "fake"),
        ("uncertain", True, "uncertain"),
        (None, True, None),
    ],
)
def test_what_is_unfamiliar_is_never_real(known, unfamiliar, expected):
    assert calibration.doubt_unfamiliar(known, unfamiliar) == expected


def test_a_source_that_is_too_small_for_the_rate_bounds_nothing():
    # Of 13 reals none may be wrong at 5 %: their highest would decide alone.
    scores = np.concatenate(
        [np.linspace(0, 0.6, 100), np.linspace(0, 0.95, 13), np.linspace(0.4, 1, 100)]
    )
    truths = np.repeat([0, 1], [113, 100])
    sources = np.repeat(["many", "few", "maker"], [100, 13, 100])

    def fit(chosen):
        return calibration.fit_thresholds(
            scores[chosen],
            truths[chosen],
            max_false_positive_rate=0.05,
            max_false_negative_rate=0.1,
            sources=sources[chosen],
        )

    found = fit(np.full(213, True))
    assert 0.56 < found["fake_from"] < 0.6
    assert found["highest_false_positive_rate"] == 5 / 13
    # Where every source is small, all are spared.
    assert fit(sources != "many")["fake_from"] > 0.95


def test_a_large_source_does_not_decide_the_temperature():
    logits = np.array([4.0] * 90 + [-4.0] * 10 + [4.0] * 5 + [-4.0] * 5)
    truths = np.ones(110, int)
    sources = np.repeat(["large", "small"], [100, 10])
    alike = calibration.fit_temperature(logits, truths, sources)
    # .9 of one source and .5 of the other are told rightly: .7 on average.
    assert calibration.calibrate_logits(np.array([4.0]), alike) == pytest.approx(
        0.7, abs=1e-3
    )
