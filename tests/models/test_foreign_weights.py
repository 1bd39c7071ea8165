"""Files that others trained, against forward passes in NumPy by their own names."""

import collections
import os
import sys
import types

import h5py
import keras
import numpy as np
import pytest

import numpy_networks
import pytorch_files
from dfdetect.models import classifier, efficientdet, foreign_weights, weights, xception

_SIZE = 82  # Maps of it are even and odd, so that paddings differ.


def _images(size, count=2):
    rng = np.random.default_rng(7)
    return rng.uniform(0, 255, (count, size, size, 3)).astype(np.float32)


def _random_xception(classes, top="last_linear"):
    rng = np.random.default_rng(0)
    arrays = {}
    for name, shape in numpy_networks.xception_shapes(classes, top).items():
        if name.endswith("num_batches_tracked"):
            arrays[name] = np.array(3, np.int64)
        elif len(shape) == 1:
            arrays[name] = rng.uniform(0.5, 1.5, shape).astype(np.float32)
        else:
            scale = 1 / np.sqrt(np.prod(shape[1:]))
            arrays[name] = rng.normal(0, scale, shape).astype(np.float32)
    arrays["block1.rep.1.running_var"][:3] = 1e-5, 1e-4, 1e-3
    return arrays


@pytest.fixture(scope="module")
def xception_arrays():
    return _random_xception(2)


@pytest.mark.parametrize(
    ("prefix", "top"),
    [("model.", "last_linear.1"), ("module.backbone.", "last_linear")],
)
def test_faceforensics_xception_gives_its_own_probabilities(
    prefix, top, xception_arrays, monkeypatch, tmp_path
):
    pytorch_files.fake_torch(monkeypatch)
    named = {
        f"{prefix}{name.replace('last_linear', top)}": array
        for name, array in xception_arrays.items()
    }
    path = pytorch_files.write(tmp_path / "c23.pth", pytorch_files.tensors(named))
    model = classifier.build("xception_pytorch", _SIZE)
    report = weights.load_snapshot(model, path)
    assert not (report.missing or report.unexpected or report.mismatched)
    assert len(report.loaded) == len(model.weights)
    images = _images(_SIZE)
    found = 1 / (1 + np.exp(-np.array(model(images))))[:, 0]
    real, fake = numpy_networks.xception(xception_arrays, images).T
    assert np.ptp(fake - real) > 1e-2
    expected = np.exp(fake) / (np.exp(fake) + np.exp(real))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_whole_module_and_a_checkpoint_are_read_as_well(
    xception_arrays, monkeypatch, tmp_path
):
    """As in FaceForensics++'s full_c23.p, of classes that are not here."""
    pytorch_files.fake_torch(monkeypatch)
    tensors = pytorch_files.tensors(xception_arrays)
    module = types.new_class("Module")
    module.__module__, module.__qualname__ = "network.models", "TransferModel"
    network = types.ModuleType("network.models")
    network.TransferModel = module
    monkeypatch.setitem(sys.modules, "network", types.ModuleType("network"))
    monkeypatch.setitem(sys.modules, "network.models", network)

    def grow(names):
        """A module of those under these names, as PyTorch nests them."""
        made = module()
        made._parameters, made._buffers = collections.OrderedDict(), {}
        made._modules = collections.OrderedDict()
        parts = collections.defaultdict(dict)
        for name, tensor in names.items():
            head, _, rest = name.partition(".")
            if rest:
                parts[head][rest] = tensor
            elif "running" in name:
                made._buffers[name] = tensor
            else:
                made._parameters[name] = tensor
        made._modules.update({name: grow(part) for name, part in parts.items()})
        return made

    whole = module()
    whole._parameters, whole._buffers = {}, {}
    whole._modules = {"model": grow(tensors)}
    checkpoint = {"epoch": 3, "state_dict": tensors, "optimizer": {"lr": 0.1}}
    models = []
    for name, found in (("whole.p", whole), ("checkpoint.pkl", checkpoint)):
        path = pytorch_files.write(tmp_path / name, found)
        models.append(classifier.build("xception_pytorch", 71))
        report = weights.load_snapshot(models[-1], path)
        assert len(report.loaded) == len(models[-1].weights)
    one, other = (model(_images(71)) for model in models)
    np.testing.assert_array_equal(one, other)


def test_imagenet_xception_keeps_the_logits_of_the_model(monkeypatch, tmp_path):
    """Files older than PyTorch 0.4 have 1x1 kernels with two axes."""
    pytorch_files.fake_torch(monkeypatch)
    arrays = _random_xception(1000, "fc")
    for name in arrays:
        if name.endswith("pointwise.weight"):
            arrays[name] = arrays[name][:, :, 0, 0]
    path = pytorch_files.write(tmp_path / "b5690688.pth", pytorch_files.tensors(arrays))
    model = classifier.build("xception_pytorch", 71)
    logits = model.get_layer("logits").get_weights()
    report = weights.load_snapshot(model, path)
    assert report.mismatched == ("logits/kernel", "logits/bias")
    assert "2 mismatched (logits/kernel, logits/bias)" in str(report)
    for found, before in zip(
        model.get_layer("logits").get_weights(), logits, strict=True
    ):
        np.testing.assert_array_equal(found, before)


def test_pytorch_weights_are_refused_where_they_would_give_other_outputs(
    xception_arrays, monkeypatch, tmp_path
):
    pytorch_files.fake_torch(monkeypatch)
    path = pytorch_files.write(
        tmp_path / "c23.pth", pytorch_files.tensors(xception_arrays)
    )
    with pytest.raises(ValueError, match="pads as xception_pytorch does"):
        weights.load_snapshot(classifier.build("xception", 71), path)
    with pytest.raises(
        ValueError, match="efficientnet_b0 takes no .pth file.*read for xception_pyt"
    ):
        weights.load_snapshot(classifier.build("efficientnet_b0", 32), path)
    other = pytorch_files.tensors({"layer1.0.conv1.weight": np.zeros((4, 4), "f4")})
    path = pytorch_files.write(tmp_path / "resnet.pth", other)
    with pytest.raises(
        ValueError, match=r"does not fit.*must be an Xception.*layer1\.0\.conv1"
    ):
        weights.load_snapshot(classifier.build("xception_pytorch", 71), path)


def test_an_archive_runs_nothing_and_holds_its_tensors_to_their_storages(
    monkeypatch, tmp_path
):
    pytorch_files.fake_torch(monkeypatch)
    model = classifier.build("xception_pytorch", 71)
    touched = tmp_path / "touched"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {touched}",)

    path = pytorch_files.write(tmp_path / "evil.pth", {"conv1.weight": Evil()})
    with pytest.raises(ValueError, match="must be a dictionary of tensors"):
        weights.load_snapshot(model, path)
    assert not touched.exists()
    (tensor,) = pytorch_files.tensors({"a": np.zeros((4, 4), "f4")}).values()

    class Reaching(type(tensor)):
        def __reduce__(self):
            function, (storage, offset, shape, _, *rest) = super().__reduce__()
            return function, (storage, offset, shape, (1024, 1), *rest)

    reaching = Reaching("0", tensor.array)
    path = pytorch_files.write(tmp_path / "reaching.pth", {"conv1.weight": reaching})
    with pytest.raises(ValueError, match="a tensor beyond its storage"):
        weights.load_snapshot(model, path)


@pytest.fixture(scope="module")
def keras_xception():
    """One of `keras.applications`, and the same with a top."""
    base = keras.applications.Xception(
        weights=None, include_top=False, input_shape=(_SIZE, _SIZE, 3)
    )
    rng = np.random.default_rng(0)
    for layer in base.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shapes = [weight.shape for weight in layer.weights]
            layer.set_weights([rng.uniform(0.5, 1.5, shape) for shape in shapes])
    x = keras.layers.GlobalAveragePooling2D()(base.output)
    return base, keras.Model(base.input, keras.layers.Dense(1, name="verdict")(x))


@pytest.mark.parametrize("ending", [".h5", ".weights.h5", ".keras"])
def test_a_keras_xception_with_a_top_of_its_own(ending, keras_xception, tmp_path):
    base, source = keras_xception
    path = str(tmp_path / f"model{ending}")
    (source.save_weights if ending == ".weights.h5" else source.save)(path)
    model = classifier.build("xception", _SIZE)
    report = weights.load_snapshot(model, path)
    assert report.missing == ("logits/kernel", "logits/bias")
    assert report.unexpected == ("verdict/0", "verdict/1")
    expected = base(_images(_SIZE) / 127.5 - 1)
    found = xception.feature_maps(model, ["exit"])(_images(_SIZE))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_where_a_keras_xception_fits_in_part_and_where_not(keras_xception, tmp_path):
    path = str(tmp_path / "model.h5")
    keras_xception[1].save(path)
    light = classifier.build("lightxception", 71)
    report = weights.load_snapshot(light, path)
    assert report.missing == ("logits/kernel", "logits/bias")
    assert "block12_sepconv3/0" in report.unexpected
    for name in ("midwayxception", "xception_pytorch"):
        with pytest.raises(ValueError, match="no file of Keras; .* xception, lightx"):
            weights.load_snapshot(classifier.build(name, 71), path)
    with pytest.raises(
        ValueError, match="must be an EfficientNet of keras.applications"
    ):
        weights.load_snapshot(classifier.build("efficientnet_b0", 32), path)


def test_a_keras_file_of_a_network_that_takes_none_is_told_which_do(tmp_path):
    path = str(tmp_path / "model.h5")
    images = keras.Input((32, 32, 3))
    keras.Model(images, keras.layers.Conv2D(8, 3, name="Conv1")(images)).save(path)
    told = "read for xception, lightxception, efficientnet_b0 to _b4 and EfficientDet"
    for name in ("mobilenet_v2", "mesonet4", "efficientnet_lite0"):
        with pytest.raises(ValueError, match=f"does not fit {name}: .*{told}"):
            weights.load_snapshot(classifier.build(name, 32), path)


@pytest.fixture(scope="module")
def efficientnet():
    source = keras.applications.EfficientNetB0(
        weights=None, include_top=False, input_shape=(64, 64, 3)
    )
    rng = np.random.default_rng(0)
    for layer in source.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shapes = [weight.shape for weight in layer.weights]
            layer.set_weights([rng.uniform(0.5, 1.5, shape) for shape in shapes])
        if isinstance(layer, keras.layers.Normalization):
            mean, deviation = [0.485, 0.456, 0.406], np.array([0.229, 0.224, 0.225])
            layer.set_weights([np.array(mean), deviation**2, np.array(0)])
            layer.finalize_state()
    return source


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("ending", [".h5", ".keras"])
def test_a_keras_efficientnet(ending, nested, efficientnet, tmp_path):
    source = efficientnet
    if nested:
        images = keras.Input((64, 64, 3))
        x = keras.layers.GlobalAveragePooling2D()(efficientnet(images))
        source = keras.Model(images, keras.layers.Dense(2, name="verdict")(x))
    path = str(tmp_path / f"model{ending}")
    source.save(path)
    model = classifier.build("efficientnet_b0", 64)
    report = weights.load_snapshot(model, path)
    assert report.missing == ("logits/kernel", "logits/bias")
    assert report.unexpected == (("verdict/0", "verdict/1") if nested else ())
    found = classifier.feature_maps(model, ["exit"])(_images(64))
    np.testing.assert_allclose(found, efficientnet(_images(64)), atol=1e-4)
    detector = efficientdet.EfficientDet(0, image_size=64)
    report = weights.load_snapshot(detector, path)
    taken = {key.split("/")[0] for key in report.loaded}
    assert len(report.loaded) == len(detector.backbone.weights), taken


def test_an_efficientnet_of_pixels_in_another_range_is_refused(tmp_path):
    path = str(tmp_path / "model.h5")
    keras.applications.EfficientNetB0(weights=None, include_top=False).save(path)
    model = classifier.build("efficientnet_b0", 32)
    with pytest.raises(ValueError, match="normalized by the mean and deviation of Im"):
        weights.load_snapshot(model, path)


def _write_published(path, layers):
    """As Keras 2 writes .h5: heads are models within the model."""
    groups = collections.defaultdict(dict)
    for name, arrays in layers.items():
        net = name.split("/")[0]
        owner = net if net in ("class_net", "box_net") else name
        for index, array in enumerate(arrays):
            parts = {1: ["w"], 2: ["kernel", "bias"], 3: ["spatial", "kernel", "bias"]}
            parts = parts.get(len(arrays), ["gamma", "beta", "mean", "variance"])
            groups[owner][f"{name}/{parts[index]}:0"] = array
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in groups]
        for name, arrays in groups.items():
            group = file.create_group(name)
            # In the order of Keras: what is trained, then the moving statistics.
            names = sorted(arrays, key=lambda x: x.endswith(("mean:0", "variance:0")))
            group.attrs["weight_names"] = [x.encode() for x in names]
            for each in names:
                group[each] = arrays[each]
    return str(path)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    network = numpy_networks.EfficientDetD0(classes=1)
    outputs = network(_images(128, 1))
    path = tmp_path_factory.mktemp("published") / "efficientdet-d0.h5"
    return _write_published(path, network.layers), outputs


def test_a_published_efficientdet_gives_its_own_outputs(published):
    path, expected = published
    model = efficientdet.EfficientDet(0, image_size=128)
    report = weights.load_snapshot(model, path)
    assert not (report.missing or report.unexpected or report.mismatched)
    for found, wanted in zip(model(_images(128, 1)), expected, strict=True):
        assert np.std(wanted) > 0.1
        np.testing.assert_allclose(
            found, wanted, rtol=1e-4, atol=1e-4 * max(1, np.abs(wanted).max())
        )


def test_an_efficientdet_of_other_classes_keeps_its_own_scores(tmp_path):
    network = numpy_networks.EfficientDetD0(classes=90)
    network(_images(128, 1))
    path = _write_published(tmp_path / "coco.h5", network.layers)
    model = efficientdet.EfficientDet(0, image_size=64)
    report = weights.load_snapshot(model, path)
    assert report.mismatched == (
        "class_predict/pointwise_kernel",
        "class_predict/bias",
    )
    assert "box_predict/bias" in report.loaded


def test_an_efficientdet_of_another_kind_is_refused(published, tmp_path):
    path, _ = published
    with pytest.raises(ValueError, match=r"4 cells of 88 .*--phi=1.*3 cells of 64"):
        weights.load_snapshot(efficientdet.EfficientDet(1, image_size=64), path)
    plain = efficientdet.EfficientDet(0, image_size=64, weighted_bifpn=False)
    with pytest.raises(ValueError, match="weighted sums, which --weighted_bifpn"):
        weights.load_snapshot(plain, path)
    lite = efficientdet.EfficientDet(0, image_size=64, lite=True)
    with pytest.raises(ValueError, match="takes no file of Keras"):
        weights.load_snapshot(lite, path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\x1c\x00\x00\x00TFL3" + b"\x00" * 20, "a TensorFlow Lite model"),
        (b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ", "a safetensors file"),
        (b"\x08\x07\x12\x07pytorch" + b"\x00" * 9, "an ONNX model"),
        (b"version https://g", "text"),
        (b"\xff\xd8\xff\xe0" + b"\x00" * 20, r"begins with b'\\xff\\xd8"),
    ],
)
def test_a_file_of_another_kind_is_told(content, told, tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"PyTorch .* or Keras .*, but .*{told}"):
        foreign_weights.identify(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_cut_file_of_keras_is_refused(share, published, tmp_path):
    content = open(published[0], "rb").read()
    path = tmp_path / "cut.h5"
    path.write_bytes(content[: int(share * len(content))])
    model = efficientdet.EfficientDet(0, image_size=64)
    with pytest.raises(ValueError, match="is damaged, or not a file of Keras weights"):
        weights.load_snapshot(model, str(path))
