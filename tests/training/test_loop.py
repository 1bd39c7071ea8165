import json
import math
import os
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from dfdetect.data.batches import Batches, ShuffledSource
from dfdetect.models import classifier
from dfdetect.training import checkpoints, loop
from dfdetect.training.settings import Settings


def _settings(model_dir, **changes):
    values = {
        "steps": 40,
        "best_metric": "nearness",
        "learning_rate": 0.3,
        "warmup_steps": 4,
        "weight_decay": 0.0,
        "eval_every": 10,
        "checkpoint_every": 10,
        "log_every": 5,
    }
    return Settings(str(model_dir), **{**values, **changes})


def _line():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, name="line")])
    model.layers[0].set_weights([np.zeros((1, 1)), np.zeros(1)])
    return model


def _dropout():
    """As `_line`, with weights that dropout spoils at random."""
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Dense(8, name="wide"),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(1, name="line"),
    ]
    return keras.Sequential([keras.Input((1,)), *layers])


class _Run:
    """Fits y = 2x; records what the loop asks for."""

    def __init__(self, build=_line):
        self.model, self.judged = build(), build()
        self.kept, self.seen = [], []
        inputs = np.linspace(-1, 1, 10, dtype=np.float32)[:, None]
        self.batches = Batches(
            ShuffledSource(tf.data.Dataset.from_tensor_slices(inputs), seed=0),
            lambda seed, x: x,
            batch_size=4,
            seed=0,
        )

    def loss(self, model, batch):
        error = tf.square(model(batch, training=True) - 2.0 * batch)
        return {"loss": tf.reduce_sum(error)}, tf.cast(tf.shape(batch)[0], tf.float32)

    def slope(self, model=None):
        model = model or self.model
        return float(model(np.ones((1, 1), np.float32))[0, 0])

    def evaluate(self):
        self.seen.append(self.judged.get_weights())
        return {"nearness": -abs(self.slope(self.judged) - 2.0)}

    def keep_best(self, figures):
        self.kept.append(figures)
        return figures

    def run(self, settings, **changes):
        parts = {
            "loss": self.loss,
            "batches": self.batches,
            "evaluate": self.evaluate,
            "keep_best": self.keep_best,
            **changes,
        }
        return loop.Run(self.model, self.judged, settings=settings, **parts).train()


def _events(model_dir):
    """Scalars by tag and step."""
    scalars = {}
    for name in sorted(os.listdir(model_dir)):
        if "tfevents" not in name:
            continue
        for event in tf.compat.v1.train.summary_iterator(os.path.join(model_dir, name)):
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "scalars":
                    number = float(tf.make_ndarray(value.tensor))
                    scalars.setdefault(value.tag, {})[event.step] = number
    return scalars


def _equal(weights, others):
    return all(np.array_equal(a, b) for a, b in zip(weights, others, strict=True))


def test_a_network_of_one_image_size_is_refused_at_another(tmp_path):
    run = _Run()
    run.model, run.judged = (classifier.build("mesonet4", size) for size in (64, 96))
    with pytest.raises(ValueError, match=r"same shapes .*\[64, 16\] and \[144, 16\]"):
        run.run(_settings(tmp_path))
    assert not [*tmp_path.iterdir()]


def test_it_learns_and_keeps_the_best(tmp_path):
    run = _Run()
    best = run.run(_settings(tmp_path))
    assert run.slope() == pytest.approx(2.0, abs=0.2)
    nearness = [figures["nearness"] for figures in run.kept]
    assert nearness == sorted(nearness) and nearness[-1] == best["nearness"]
    assert all(figures["step"] % 10 == 0 for figures in run.kept)
    scalars = _events(tmp_path)
    assert list(scalars["training/loss"]) == list(range(5, 41, 5))
    assert list(scalars["validation/nearness"]) == [10, 20, 30, 40]
    assert {"training/gradient_norm", "training/images_per_second"} <= scalars.keys()
    assert 0 <= scalars["training/input_wait_share"][40] <= 1
    lines = (tmp_path / "evaluations.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [10, 20, 30, 40]


def test_first_steps_are_those_of_the_formulas(tmp_path):
    """Two SGD steps by hand: loss, clipping, momentum, and the averaged weights."""
    run = _Run()
    settings = _settings(
        tmp_path,
        steps=2,
        optimizer="sgd",
        schedule="constant",
        warmup_steps=0,
        learning_rate=0.1,
        clip_norm=1.0,
        ema_decay=0.9,
        log_every=1,
    )
    run.run(settings)
    weight = offset = momentum_w = momentum_b = 0.0
    average = np.zeros(2)
    scalars = _events(tmp_path)
    for step, batch in enumerate(run.batches.from_step(0).take(2)):
        x = batch.numpy()[:, 0].astype(np.float64)
        error = weight * x + offset - 2 * x
        assert scalars["training/loss"][step + 1] == pytest.approx((error**2).mean())
        gradient = np.array([(2 * error * x).mean(), (2 * error).mean()])
        norm = np.sqrt((gradient**2).sum())
        assert scalars["training/gradient_norm"][step + 1] == pytest.approx(norm)
        gradient = gradient / max(norm, 1.0)
        momentum_w = 0.9 * momentum_w - 0.1 * gradient[0]
        momentum_b = 0.9 * momentum_b - 0.1 * gradient[1]
        weight, offset = weight + momentum_w, offset + momentum_b
        decay = min(0.9, (1 + step) / (10 + step))
        average += (1 - decay) * (np.array([weight, offset]) - average)
    found = [float(w.ravel()[0]) for w in run.model.get_weights()]
    np.testing.assert_allclose(found, [weight, offset], rtol=1e-5)
    judged = [float(w.ravel()[0]) for w in run.seen[-1]]
    np.testing.assert_allclose(judged, average, rtol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"ema_decay": 0.9, "optimizer": "sgd"}])
def test_a_run_that_is_stopped_goes_on_bit_for_bit(tmp_path, changes):
    settings = {"steps": 23, "eval_every": 9, "checkpoint_every": 4, **changes}
    whole = _Run(_dropout)
    whole.run(_settings(tmp_path / "whole", **settings))
    stopped = _Run(_dropout)

    def loss(model, batch):
        tf.py_function(stop, [], [])
        return stopped.loss(model, batch)

    def stop():
        calls.append(1)
        if len(calls) == 11:
            os.kill(os.getpid(), signal.SIGTERM)

    calls = []
    with pytest.raises(loop.Interrupted, match="step 1[123] is kept") as raised:
        stopped.run(_settings(tmp_path / "parts", **settings), loss=loss)
    assert raised.value.signal == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    again = _Run(_dropout)
    again.run(_settings(tmp_path / "parts", **settings))
    assert _equal(again.model.get_weights(), whole.model.get_weights())
    assert _equal(again.judged.get_weights(), whole.judged.get_weights())
    both = [
        (tmp_path / d / "evaluations.jsonl").read_text() for d in ("whole", "parts")
    ]
    assert both[0] == both[1]


def test_a_batch_in_parts_is_the_same_step(tmp_path):
    whole, parts = _Run(), _Run()
    whole.run(_settings(tmp_path / "whole", steps=10))
    parts.run(_settings(tmp_path / "parts", steps=10, accumulate=2))
    assert parts.slope() == pytest.approx(whole.slope(), abs=1e-6)
    with pytest.raises(ValueError, match="accumulate must divide 4 examples, got 3"):
        _Run().run(_settings(tmp_path / "odd", accumulate=3))


def test_a_finished_run_does_nothing_more(tmp_path):
    first = _Run()
    best = first.run(_settings(tmp_path))
    again = _Run()
    assert again.run(_settings(tmp_path)) == best
    assert again.kept == [] and again.seen == []
    assert again.slope() == first.slope()


def test_checkpoints_are_the_newest_few(tmp_path):
    _Run().run(_settings(tmp_path, keep=3, checkpoint_every=8))
    saved = checkpoints.Checkpoints(str(tmp_path / "checkpoints"), 3)
    assert saved.steps() == [30, 32, 40]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 6


def test_what_killed_writes_left_is_removed(tmp_path):
    kept = tmp_path / "checkpoints"
    kept.mkdir()
    # As a write leaves it that a signal ends which nothing can catch.
    code = """
import os, signal, sys
from dfdetect import files
with files.open_atomic(sys.argv[1]) as file:
    os.kill(os.getpid(), signal.SIGKILL)
"""
    for path in (tmp_path / "weights.npz", kept / "step_00000010.json"):
        done = subprocess.run([sys.executable, "-c", code, path], check=False)
        assert done.returncode == -signal.SIGKILL
    left = [path for folder in (tmp_path, kept) for path in folder.glob(".*")]
    assert len(left) == 2
    young = tmp_path / f".dfdetect.{'0' * 16}.tmp"
    young.touch()
    foreign = tmp_path / ".dfdetect.notes.tmp"
    foreign.touch()
    for path in (*left, foreign):
        os.utime(path, (0, 0))
    _Run().run(_settings(tmp_path, steps=5))
    assert {path.name for path in tmp_path.glob(".*")} == {young.name, foreign.name}
    assert not list(kept.glob(".*"))


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    _Run().run(_settings(tmp_path))
    with pytest.raises(ValueError, match="step_00000040 is not a checkpoint of this"):
        _Run(_dropout).run(_settings(tmp_path))
    with pytest.raises(ValueError, match="optimizer/mean.*another\nmodel_dir|another"):
        _Run().run(_settings(tmp_path, optimizer="sgd"))


def test_early_stopping_and_a_metric_of_which_less_is_better(tmp_path):
    run = _Run()
    answers = iter([0.5, 0.3, 0.4, float("nan"), 0.2])
    best = run.run(
        _settings(tmp_path, patience=2, best_metric="-error", steps=200),
        evaluate=lambda: {"error": next(answers)},
    )
    assert [figures["error"] for figures in run.kept] == [0.5, 0.3]
    assert best == {"error": 0.3, "step": 20}
    assert next(answers) == 0.2  # It stopped after two that were no better.


def test_an_unknown_metric_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"one of \['nearness', 'step'\], got 'auc'"):
        _Run().run(_settings(tmp_path, best_metric="auc"))


def test_a_record_that_cannot_be_read_is_named(tmp_path):
    images = [tf.io.encode_png(np.full((1, 1, 1), i, np.uint8)) for i in range(8)]
    images[5] = tf.constant("no image")
    examples = {
        "image": images,
        "tfds_id": [f"train.tfrecord__{i}" for i in range(8)],
    }

    def prepare(seed, example):
        return tf.cast(tf.io.decode_png(example["image"])[0, 0], tf.float32)

    source = ShuffledSource(tf.data.Dataset.from_tensor_slices(examples), seed=0)
    batches = Batches(source, prepare, 4, seed=0)
    with pytest.raises(
        ValueError, match="cannot be read: train.tfrecord__5: "
    ) as raised:
        _Run().run(_settings(tmp_path), batches=batches)
    assert "\n" not in str(raised.value)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    run = _Run()

    def broken(model, batch):
        sums, weight = run.loss(model, batch)
        at_13 = tf.py_function(
            lambda: float(len(calls.append(1) or calls)), [], "float"
        )
        return {"loss": tf.where(at_13 > 12, math.nan, 1.0) * sums["loss"]}, weight

    calls = []
    with pytest.raises(FloatingPointError, match="loss is nan at step 13; step 10 is"):
        run.run(_settings(tmp_path), loss=broken)
    assert checkpoints.Checkpoints(str(tmp_path / "checkpoints"), 1).steps() == [10]


def test_float16_passes_over_steps_whose_gradient_overflows(tmp_path):
    run = _Run()

    def half(model, batch):
        # The gradient goes through float16: at a scale of 2**15 it overflows.
        guess = tf.cast(tf.cast(model(batch), tf.float16), tf.float32)
        error = tf.square(guess - 2.0 * batch)
        return {"loss": tf.reduce_sum(error)}, tf.cast(tf.shape(batch)[0], tf.float32)

    run.run(_settings(tmp_path, loss_scaling=True, log_every=1), loss=half)
    scales = list(_events(tmp_path)["training/loss_scale"].values())
    assert scales[0] == 2**15 and scales == sorted(scales, reverse=True)
    assert scales[-1] < 2**15
    assert run.slope() == pytest.approx(2.0, abs=0.2)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"steps": 0}, "steps must be above 0, got 0"),
        ({"learning_rate": -1.0}, "learning_rate must be above 0"),
        ({"ema_decay": 1.0}, r"ema_decay must be in \[0, 1\), got 1.0"),
        ({"schedule": "sine"}, "schedule must be one of .*cosine"),
        ({"profile_steps": (3,)}, "profile_steps must be a first and a last step"),
    ],
)
def test_bad_settings_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        _settings(tmp_path, **changes)


@pytest.mark.parametrize("warmup_steps", [40, 500, -1])
def test_a_warm_up_ends_before_the_run(tmp_path, warmup_steps):
    settings = _settings(tmp_path, warmup_steps=warmup_steps)
    with pytest.raises(ValueError, match=rf"in \[0, 40\), got {warmup_steps}\."):
        settings.check_warmup()
    _settings(tmp_path, warmup_steps=39).check_warmup()


def test_fewer_steps_than_are_done_end_at_once(tmp_path, caplog):
    first = _Run()
    best = first.run(_settings(tmp_path))
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    again = _Run()
    with caplog.at_level("INFO"):
        assert again.run(_settings(tmp_path, steps=25)) == best
    assert "the run is done: step 40 of 25" in caplog.text
    assert again.kept == [] and again.seen == []
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == kept
    # Nor is an evaluation made up for that a kill has left out.
    path = tmp_path / "evaluations.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert again.run(_settings(tmp_path, steps=25))["step"] < 40
    assert again.kept == [] and again.seen == []
    again.run(_settings(tmp_path))
    assert len(again.seen) == 1


def test_weights_to_start_from_are_kept_if_no_step_is_better(tmp_path, caplog):
    run = _Run()
    for model in (run.model, run.judged):
        model.layers[0].set_weights([np.full((1, 1), 2.0), np.zeros(1)])

    def loss(model, batch):  # Away from y = 2x.
        sums, weight = run.loss(model, batch)
        return {"loss": -sums["loss"] + tf.reduce_sum(model(batch))}, weight

    with caplog.at_level("INFO"):
        best = run.run(_settings(tmp_path), loss=loss, evaluate_start=True)
    assert best == {"nearness": 0.0, "step": 0} and run.kept == [best]
    assert "no step is better than the weights it started from" in caplog.text
    lines = (tmp_path / "evaluations.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 10, 20, 30, 40]
    assert list(_events(tmp_path)["validation/nearness"]) == [0, 10, 20, 30, 40]
    # A run that starts anew forgets the start of another one.
    for path in (tmp_path / "checkpoints").iterdir():
        path.unlink()
    worse = _Run()
    assert worse.run(_settings(tmp_path), evaluate_start=True)["step"] > 0
    assert worse.kept[0] == {"nearness": -2.0, "step": 0}


def test_a_run_from_weights_goes_on_bit_for_bit(tmp_path):
    settings = {"steps": 12, "eval_every": 5, "checkpoint_every": 3}
    whole = _Run(_dropout)
    whole.run(_settings(tmp_path / "whole", **settings), evaluate_start=True)
    failing = _Run(_dropout)

    def evaluate():
        if failing.seen:
            raise RuntimeError("the second evaluation")
        return failing.evaluate()

    parts = _settings(tmp_path / "parts", **settings)
    with pytest.raises(RuntimeError, match="the second evaluation"):
        failing.run(parts, evaluate=evaluate, evaluate_start=True)
    again = _Run(_dropout)
    again.run(parts, evaluate_start=True)
    assert _equal(again.model.get_weights(), whole.model.get_weights())
    both = [(tmp_path / d / "evaluations.csv").read_text() for d in ("whole", "parts")]
    assert both[0] == both[1]


def test_the_first_step_is_logged_at_once(tmp_path, caplog):
    with caplog.at_level("INFO"):
        _Run().run(_settings(tmp_path, steps=20))
        _Run().run(_settings(tmp_path, steps=30))
    lines = [record.getMessage() for record in caplog.records]
    logged = [line.split()[1] for line in lines if line.startswith("step ")]
    assert [x for x in logged if "/" in x] == [
        *("1/20", "5/20", "10/20", "15/20", "20/20"),
        *("21/30", "25/30", "30/30"),
    ]
    first = next(i for i, line in enumerate(lines) if line.startswith("step 1/20"))
    assert "building the graph of the training step" in lines[first - 1]
    assert " left " not in lines[first] and " left " in lines[first + 1]


def test_without_validation_the_last_weights_are_kept(tmp_path):
    run = _Run()
    assert run.run(_settings(tmp_path), evaluate=None) == {"step": 40}
    assert run.kept == [{"step": 40}]
    assert run.slope(run.judged) == run.slope()


def test_a_batch_of_another_size_goes_on_where_the_data_ended(tmp_path):
    """Ten records in one order: no pass may miss one or give one twice."""
    run, seen = _Run(), []

    def loss(model, batch):
        tf.py_function(lambda x: seen.extend(x[:, 0].numpy().tolist()), [batch], [])
        return run.loss(model, batch)

    for steps, size in ((3, 4), (5, 5), (6, 8)):
        batches = Batches(run.batches.source, lambda seed, x: x, size, seed=0)
        changes = {"checkpoint_every": 1, "eval_every": 100, "warmup_steps": 0}
        _Run().run(
            _settings(tmp_path, steps=steps, **changes), batches=batches, loss=loss
        )
    expected = [
        x[0] for (x,) in run.batches.source.from_index(0).take(30).as_numpy_iterator()
    ]
    assert seen == expected
