import json

import numpy as np
import pytest

from dfdetect import figures


def test_nan_is_null_however_deep_it_lies():
    found = {"auc": np.nan, "interval": (np.nan, 0.5), "of": [{"n": 3, "name": "nan"}]}
    text = figures.to_json(found)
    assert json.loads(text) == {
        "auc": None,
        "interval": [None, 0.5],
        "of": [{"n": 3, "name": "nan"}],
    }
    assert text.startswith('{\n  "auc": null')


def test_infinity_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        figures.to_json({"auc": np.inf})
