import math

import pytest

from dfdetect.pipeline import aggregation

NAN = math.nan


@pytest.mark.parametrize(
    "method, values, expected",
    [
        ("mean", [0.1, 0.2, 0.9], 0.4),
        ("median", [0.1, 0.2, 0.9], 0.2),
        ("max", [0.1, 0.2, 0.9], 0.9),
        ("top_k", [0.1, 0.2, 0.3, 0.5, 0.9], 0.7),  # Two of five.
        ("top_k", [0.3], 0.3),
        ("confident", [0.9] * 11 + [0.1] * 16, 0.9),
        ("confident", [0.9] * 10 + [0.1] * 10, 0.5),  # Too few are sure.
        ("confident", [0.1] * 19 + [0.9], 0.1),
        ("confident", [0.1] * 9 + [0.6], 0.15),
        ("mean", [NAN, 0.2, 0.4], 0.3),
    ],
)
def test_by_hand(method, values, expected):
    assert aggregation.aggregate(values, method) == pytest.approx(expected)


@pytest.mark.parametrize("method", aggregation.METHODS)
def test_one_is_itself_and_none_is_nan(method):
    assert aggregation.aggregate([0.25], method) == 0.25
    assert math.isnan(aggregation.aggregate([], method))
    assert math.isnan(aggregation.aggregate([NAN], method))


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="must be one of mean, .* got 'sum'"):
        aggregation.aggregate([0.5], "sum")
