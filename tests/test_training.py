import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from dfdetect import training


def _settings(model_dir, **changes):
    return training.Settings(
        **{
            "model_dir": str(model_dir),
            "steps": 40,
            "learning_rate": 0.3,
            "warmup_steps": 4,
            "weight_decay": 0.0,
            "clip_norm": 10.0,
            "eval_every": 10,
            "log_every": 5,
            **changes,
        }
    )


class _Line:
    """Fits y = 2x with one weight; records what the loop asks for."""

    def __init__(self):
        self.model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        self.model.layers[0].set_weights([np.zeros((1, 1)), np.zeros(1)])
        self.starts, self.kept = [], []

    def loss(self, model, batch):
        error = model(batch, training=True) - 2.0 * batch
        return {"loss": tf.reduce_mean(tf.square(error))}

    def batches(self, first_step):
        self.starts.append((first_step, self.slope()))
        return tf.data.Dataset.from_tensors(tf.constant([[1.0], [-1.0]])).repeat()

    def slope(self):
        return float(self.model.layers[0].kernel.numpy()[0, 0])

    def evaluate(self):
        return {"nearness": -abs(self.slope() - 2.0)}

    def run(self, settings, **changes):
        parts = {
            "loss": self.loss,
            "batches": self.batches,
            "evaluate": self.evaluate,
            "keep_best": self.kept.append,
            **changes,
        }
        return training.train(self.model, metric="nearness", settings=settings, **parts)


def test_it_learns_and_keeps_the_best(tmp_path):
    line = _Line()
    best = line.run(_settings(tmp_path))
    assert line.slope() == pytest.approx(2.0, abs=0.2)
    nearness = [figures["nearness"] for figures in line.kept]
    assert nearness == sorted(nearness) and nearness[-1] == pytest.approx(best)
    assert all(figures["step"] % 10 == 0 for figures in line.kept)
    assert any("tfevents" in name for name in os.listdir(tmp_path))


def test_a_second_run_goes_on_where_the_first_stopped(tmp_path):
    first = _Line()

    def interrupt(figures):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first.run(_settings(tmp_path), keep_best=interrupt)
    slope = first.slope()
    second = _Line()
    second.run(_settings(tmp_path))
    assert second.starts == [(10, pytest.approx(slope))]
    whole = _Line()
    whole.run(_settings(tmp_path / "whole"))
    assert second.slope() == pytest.approx(whole.slope(), abs=1e-6)


def test_a_finished_run_does_nothing_more(tmp_path):
    _Line().run(_settings(tmp_path))
    again = _Line()
    again.run(_settings(tmp_path))
    assert again.kept == []


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    def broken(model, batch):
        return {"loss": tf.reduce_mean(model(batch)) * float("nan")}

    with pytest.raises(FloatingPointError, match="nan at step 5"):
        _Line().run(_settings(tmp_path), loss=broken)


def test_learning_rate_rises_then_falls_to_zero():
    schedule = training.WarmupCosine(1.0, 10, 110)
    rates = [float(schedule(step)) for step in (0, 4, 9, 10, 60, 110)]
    np.testing.assert_allclose(rates, [0.1, 0.5, 1.0, 1.0, 0.5, 0.0], atol=1e-6)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"steps": 0}, "steps must be above 0, got 0"),
        ({"learning_rate": -1.0}, "learning_rate must be above 0"),
        ({"warmup_steps": 40}, r"warmup_steps must be in \[0, 40\), got 40"),
    ],
)
def test_bad_settings_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        _settings(tmp_path, **changes)
