"""Calls are timed in turns, and compared beyond the noise."""

import pytest

from dfdetect.export import timing


def test_cases_are_called_in_turns():
    called, said = [], []
    cases = {name: lambda name=name: called.append(name) for name in "ab"}
    took = timing.time_in_turns(cases, 3, say=said.append, warm_up=1)
    assert "".join(called) == "abababab"
    assert 0 < took["a"].best <= took["a"].median
    assert "1 warm-up, 3 timed" in said[-1]


@pytest.mark.parametrize(
    "seconds, expected", [(0.5, True), (0.94, True), (0.96, False)]
)
def test_a_gain_within_the_noise_is_none(seconds, expected):
    assert timing.is_clearly_faster(seconds, 1.0) is expected
