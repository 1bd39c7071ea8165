import csv
import io
import json

import numpy as np
import pytest

from dfdetect.evaluation import figures


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


def test_a_table_keeps_what_stands_in_its_fields():
    columns = {"name": ['a,"b"', "c\nd", "\udcff"], "value": np.array([1, 2, 3])}
    rows = list(csv.reader(io.StringIO(figures.to_csv(columns).decode())))
    assert rows == [
        ["name", "value"],
        ['a,"b"', "1"],
        ["c\nd", "2"],
        ["\\udcff", "3"],
    ]
    first, *rest = csv.reader(io.StringIO(figures.to_csv(columns, True).decode()))
    assert first == ["name", "value", "leaky_split"]
    assert [row[-1] for row in rest] == ["yes"] * 3
