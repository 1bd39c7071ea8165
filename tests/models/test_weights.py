"""Weights on disk: keys, strictness, float16 and snapshots that fit in part."""

import os

import keras
import numpy as np
import pytest

from dfdetect.models import weights
from dfdetect.training import checkpoints


def _model(name="small", width=4, num_outputs=2):
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(width, 3, name="conv")(images)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dropout(0.5, name="dropout")(x)
    return keras.Model(
        images, keras.layers.Dense(num_outputs, name="logits")(x), name=name
    )


_KEYS = [
    "conv/kernel",
    "conv/bias",
    "norm/gamma",
    "norm/beta",
    "norm/moving_mean",
    "norm/moving_variance",
    "logits/kernel",
    "logits/bias",
]


class Nested(keras.Model):
    """A subclassed model, whose own automatic name stands before its paths."""

    def __init__(self):
        super().__init__()
        self.inner = _model()
        self.top = keras.layers.Dense(1, name="top")

    def build(self, input_shape):
        self.top.build((None, 2))

    def call(self, images):
        return self.top(self.inner(images))


def _randomise(model, seed=0):
    rng = np.random.default_rng(seed)
    arrays = [rng.uniform(0.5, 1.5, w.shape) for w in model.get_weights()]
    model.set_weights(arrays)
    return model


def test_round_trip_into_a_second_model_of_the_process(tmp_path):
    model, other = _randomise(_model()), _model(name="another")
    weights.save(model, tmp_path / "weights.npz")
    assert list(np.load(tmp_path / "weights.npz")) == _KEYS
    report = weights.load(other, tmp_path)  # the folder will do
    assert report == weights.LoadReport(loaded=tuple(_KEYS)) and report.is_complete
    told = "weights: 8 loaded; 0 missing; 0 unexpected; 0 mismatched"
    assert str(report) == told
    for ours, theirs in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_keys_do_not_depend_on_what_was_built_before(tmp_path):
    images = np.zeros((1, 8, 8, 3), "float32")
    first, second = Nested(), Nested()
    first(images)
    second(images)
    assert first.name != second.name
    assert list(weights.variables(first)) == list(weights.variables(second))
    weights.save(_randomise(first), tmp_path)
    weights.load(second, tmp_path)
    np.testing.assert_array_equal(first.predict_on_batch(images), second(images))


def test_a_fingerprint_is_of_the_values_wherever_they_come_from(tmp_path):
    model, other = _randomise(_model()), _model(name="another")
    weights.save(model, tmp_path / "weights.npz")
    weights.load(other, tmp_path / "weights.npz")
    assert weights.fingerprint(other) == weights.fingerprint(model)
    assert len(weights.fingerprint(model)) == 64
    kernel = other.get_layer("logits").kernel
    kernel.assign(np.nextafter(kernel.numpy(), np.float32(9)))
    assert weights.fingerprint(other) != weights.fingerprint(model)


def test_compact_halves_kernels_only(tmp_path):
    model = _randomise(_model())
    weights.save(model, tmp_path, compact=True)
    arrays = np.load(tmp_path / weights.FILE_NAME)
    dtypes = {key: str(arrays[key].dtype) for key in arrays}
    halved = {"conv/kernel", "logits/kernel"}
    assert dtypes == {k: "float16" if k in halved else "float32" for k in _KEYS}
    other = _model()
    weights.load(other, tmp_path)
    for ours, theirs in zip(model.get_weights(), other.get_weights(), strict=True):
        # float16 has 11 bits: half a unit in the last place is 2 ** -11 of a value.
        np.testing.assert_allclose(ours, theirs, rtol=2**-11)


@pytest.mark.parametrize("value", [7e4, np.nan])
def test_compact_refuses_what_float16_cannot_hold(tmp_path, value):
    model = _model()
    model.get_layer("logits").kernel.assign(np.full((4, 2), value))
    with pytest.raises(ValueError, match="logits/kernel does not fit"):
        weights.save(model, tmp_path, compact=True)
    assert os.listdir(tmp_path) == []


def test_a_failed_save_keeps_the_old_file(tmp_path):
    path = tmp_path / "weights.npz"
    weights.save(_randomise(_model()), path)
    before = path.read_bytes()
    broken = _model()
    broken.get_layer("conv").kernel.assign(np.full((3, 3, 3, 4), np.inf))
    with pytest.raises(ValueError, match="conv/kernel"):
        weights.save(broken, path, compact=True)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["weights.npz"]


def test_load_is_strict_and_changes_nothing_when_it_fails(tmp_path):
    weights.save(_randomise(_model(num_outputs=3)), tmp_path)
    model = _model()
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"2 mismatched \(logits/kernel, logits/bias"):
        weights.load(model, tmp_path)
    headless = keras.Model(model.input, model.get_layer("pool").output)
    with pytest.raises(ValueError, match=r"2 unexpected \(logits/kernel, logits/bias"):
        weights.load(headless, tmp_path)
    weights.save(headless, tmp_path / "headless.npz")
    with pytest.raises(ValueError, match=r"2 missing \(logits/kernel, logits/bias"):
        weights.load(model, tmp_path / "headless.npz")
    for ours, theirs in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_load_without_a_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        weights.load(_model(), tmp_path)


def test_two_weights_of_one_path_are_refused():
    images = keras.Input((2,))
    model = keras.Model(images, _dense_model()(_dense_model()(images)))
    with pytest.raises(ValueError, match="top/kernel"):
        weights.variables(model)


def _dense_model():
    images = keras.Input((2,))
    return keras.Model(images, keras.layers.Dense(2, name="top")(images))


def test_unbuilt_model_is_refused():
    model = keras.Sequential([keras.layers.Dense(2, name="top")], name="unbuilt")
    with pytest.raises(ValueError, match="unbuilt has no weights yet"):
        weights.variables(model)


def test_snapshot_takes_what_fits(tmp_path):
    source = _randomise(_model(num_outputs=3))
    weights.save(source, tmp_path)
    model = _model()
    top = model.get_layer("logits").get_weights()[0]
    report = weights.load_snapshot(model, str(tmp_path))
    assert report.loaded == tuple(_KEYS[:6])
    assert report.mismatched == ("logits/kernel", "logits/bias")
    assert (report.missing, report.unexpected) == ((), ())
    assert not report.is_complete
    assert str(report) == (
        "weights: 6 loaded; 0 missing; 0 unexpected; "
        "2 mismatched (logits/kernel, logits/bias)"
    )
    for layer in ("conv", "norm"):
        ours, theirs = (m.get_layer(layer).get_weights() for m in (source, model))
        for expected, found in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(model.get_layer("logits").get_weights()[0], top)


def test_snapshot_of_another_model_is_refused(tmp_path):
    weights.save(_dense_model(), tmp_path)
    with pytest.raises(ValueError, match="Nothing in .* fits small"):
        weights.load_snapshot(_model(), str(tmp_path))


def test_snapshot_none_keeps_the_random_weights():
    model = _model()
    before = model.get_weights()
    report = weights.load_snapshot(model, "none")
    assert report == weights.LoadReport(missing=tuple(_KEYS)) and not report.is_complete
    for expected, found in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


class Pretrained(keras.Model):
    """Fetches its ImageNet weights, two numbers, from `origin`."""

    def __init__(self, origin, cache):
        images = keras.Input((2,))
        outputs = keras.layers.Dense(1, use_bias=False, name="top")(images)
        super().__init__(images, outputs, name="pretrained")
        self._origin, self._cache = origin, str(cache)

    def load_imagenet(self):
        path = keras.utils.get_file("w", self._origin, cache_dir=self._cache)
        self.get_layer("top").set_weights([np.loadtxt(path, ndmin=2)])


def test_snapshot_imagenet(tmp_path, capsys):
    (tmp_path / "numbers").write_text("3\n5\n")
    model = Pretrained((tmp_path / "numbers").as_uri(), tmp_path)
    report = weights.load_snapshot(model, "imagenet")
    assert report == weights.LoadReport(loaded=("top/kernel",))
    np.testing.assert_array_equal(model.get_weights()[0], [[3.0], [5.0]])


def test_snapshot_imagenet_without_a_network_says_so(tmp_path, capsys):
    # Nobody listens on port 9 (discard) of this machine.
    model = Pretrained("http://127.0.0.1:9/weights", tmp_path)
    before = model.get_weights()[0]
    report = weights.load_snapshot(model, "imagenet")
    assert report == weights.LoadReport(missing=("top/kernel",))
    assert "pretrained starts from random weights" in capsys.readouterr().out
    np.testing.assert_array_equal(model.get_weights()[0], before)


def test_snapshot_imagenet_of_a_model_that_has_none():
    with pytest.raises(ValueError, match="no ImageNet weights for small"):
        weights.load_snapshot(_model(), "imagenet")


def test_damaged_weights_are_named_with_the_steps_that_are_left(tmp_path):
    model = _randomise(_model())
    weights.save(model, tmp_path)
    file = tmp_path / weights.FILE_NAME
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(model.get_weights()[0].tobytes())] ^= 1
    for content in (whole[: len(whole) // 2], b"", bytes(flipped), b"<html>"):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=f"{file} is damaged") as raised:
            weights.load(model, tmp_path)
        assert "\n" not in str(raised.value)
    (tmp_path / "checkpoints").mkdir()
    for step in (20, 40):
        (tmp_path / "checkpoints" / f"step_{step:08d}.index").write_bytes(b"")
    with pytest.raises(ValueError, match="these steps are kept: 20, 40"):
        weights.load_snapshot(model, str(tmp_path))


@pytest.mark.parametrize("prefix", ["model/", "average/"])
def test_a_kept_step_of_a_training_is_a_file_of_weights(tmp_path, prefix):
    model, other = _model(), _model()
    arrays = {
        f"{prefix}{key}": keras.ops.convert_to_numpy(variable) + 1
        for key, variable in weights.variables(model).items()
    }
    arrays |= {"model/teacher/kernel": np.ones(3), "optimizer/mean/x": np.ones(2)}
    if prefix == "average/":
        arrays["average/teacher/kernel"] = np.ones(3)
    saved = checkpoints.Checkpoints(str(tmp_path), keep=1)
    saved.save(3, arrays)
    saved.wait()
    path = str(tmp_path / "step_00000003")
    report = weights.load(other, path)
    assert len(report.loaded) == len(model.weights)
    assert not report.missing + report.unexpected + report.mismatched
    for new, old in zip(other.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(new, old + 1)
    assert len(weights.load_snapshot(_model(), path).loaded) == len(model.weights)


def test_frozen_weights_that_no_file_gave_are_listed():
    model = _model()
    nothing = weights.LoadReport(missing=tuple(_KEYS))
    assert weights.find_frozen_random(model, nothing) == []
    for name in ("conv", "norm"):
        model.get_layer(name).trainable = False
    assert weights.find_frozen_random(model, nothing) == [
        "conv/kernel", "conv/bias", "norm/gamma", "norm/beta",
        "norm/moving_mean", "norm/moving_variance",
    ]  # fmt: skip
    partly = weights.LoadReport(
        loaded=("conv/bias", "norm/gamma", "norm/beta", "norm/moving_mean"),
        mismatched=("conv/kernel",),
    )
    assert weights.find_frozen_random(model, partly) == ["conv/kernel"]
