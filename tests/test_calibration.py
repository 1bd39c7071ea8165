import numpy as np
import pytest

from dfdetect import calibration


def test_temperature_undoes_a_known_stretch():
    random = np.random.default_rng(0)
    honest = random.normal(0, 2, 20_000)
    labels = (random.random(20_000) < calibration.probability(honest)).astype(int)
    assert calibration.fit_temperature(honest * 3, labels) == pytest.approx(3, rel=0.05)
    assert calibration.fit_temperature(honest / 2, labels) == pytest.approx(
        0.5, rel=0.05
    )


def test_separable_logits_stay_within_the_bounds():
    temperature = calibration.fit_temperature(np.array([-5.0, 5.0]), np.array([0, 1]))
    assert 0.05 <= temperature < 0.051


def test_probability_divides_before_the_sigmoid():
    assert calibration.probability(np.array([2.0]), 2.0) == pytest.approx(
        1 / (1 + np.exp(-1.0))
    )
