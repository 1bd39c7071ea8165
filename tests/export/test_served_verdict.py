"""The verdicts that a served graph gives besides its probabilities."""

import math

import numpy as np
import pytest
import tensorflow as tf

from dfdetect.export import inspection, parity, served_verdict
from dfdetect.metrics import calibration

_BAND = {"real_below": 0.3, "fake_from": 0.7}
_SINGLE = calibration.single_threshold(0.5)
# Just at the thresholds: .7 of float32 is below that of Python, .3 above.
_VALUES = [0.0, 0.2999, 0.3, 0.5, 0.69999, 0.7, 0.70001, 1.0, math.nan]


def _signature():
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "given")])
    def identity(given):
        return {"fake_probability": given, "status": tf.zeros_like(given, tf.int32)}

    return identity.get_concrete_function()


@pytest.mark.parametrize("thresholds", [_BAND, _SINGLE])
def test_verdicts_are_those_of_detect(thresholds, tmp_path):
    values = np.array(_VALUES, np.float32)
    judge = served_verdict.add_verdict(_signature(), thresholds)
    wanted = [
        calibration.decide_verdict(float(value), thresholds) or "" for value in values
    ]
    assert set(wanted) >= {"real", "fake", ""}
    tf.saved_model.save(tf.Module(), str(tmp_path / "1"), {"serving_default": judge})
    with inspection.open_signatures(str(tmp_path / "1")) as run:
        for batch in (values, values[:1], values[:0]):
            found = run("serving_default", {"given": batch})
            count = len(batch)
            assert [x.decode() for x in found["verdict"]] == wanted[:count]
            np.testing.assert_array_equal(found["fake_probability"], batch)
    assert found.keys() == {"fake_probability", "status", "verdict"}


def test_a_verdict_that_does_not_follow_is_refused():
    found = {
        "fake_probability": np.float32([0.1, np.nan]),
        "verdict": np.array([b"real", b""], object),
    }
    parity._take_verdicts("frames", found, _BAND)
    assert found.keys() == {"fake_probability"}
    for verdicts in ([b"fake", b""], [b"real", b"real"], []):
        found["verdict"] = np.array(verdicts, object)
        with pytest.raises(ValueError, match=r"verdict of frames must be \['real', ''"):
            parity._take_verdicts("frames", found, _BAND)
