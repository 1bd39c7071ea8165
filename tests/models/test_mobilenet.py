"""MobileNetV2 as a teacher: its size and its published weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dfdetect.models import classifier, mobilenet, moment_pooling


def test_it_has_the_published_size_and_pools_five_stages():
    model = classifier.build("mobilenet_v2", 64)
    whole = keras.applications.MobileNetV2(
        input_shape=(64, 64, 3), include_top=False, weights=None
    )
    assert whole.count_params() == 2_257_984
    # Up to the last stage; then 752 means and variances, and the logit.
    trunk = keras.Model(whole.input, whole.get_layer("block_15_add").output)
    assert model.count_params() == trunk.count_params() + 2 * 752 + 752 + 1
    for stage, (channels, stride) in mobilenet.STAGES.items():
        shape = model.get_layer(stage).output.shape
        assert shape[1:] == (64 // stride, 64 // stride, channels)


def test_moments_by_hand():
    features = np.array([[[[0.0], [2.0]], [[4.0], [6.0]]]], np.float32)
    found = moment_pooling.Moments()(features)
    np.testing.assert_allclose(found, [[3.0, np.sqrt(5.001)]], rtol=1e-6)


@pytest.fixture(scope="module", name="published")
def _published(sample_data):
    return sample_data("../weights/tf2_mobilenet_v2_1.0_224_ptq.tflite")


@pytest.fixture(scope="module", name="interpreter")
def _interpreter(published):
    interpreter = tf.lite.Interpreter(
        str(published), experimental_preserve_all_tensors=True
    )
    interpreter.allocate_tensors()
    return interpreter


def test_the_published_weights_give_the_published_maps(interpreter, published):
    rows, columns = np.mgrid[:224, :224] / 224
    image = np.stack([rows, columns, rows * columns], axis=-1) * 255
    image = np.round(image).astype(np.uint8)[None]
    model = classifier.build("mobilenet_v2", 224)
    mobilenet.load_tflite(model, published, image.astype(np.float32))
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    adds = [
        t for t in interpreter.get_tensor_details() if t["name"].endswith("add/add")
    ]
    # Residual sums of blocks 2, 5 and 12 in the order of Keras, which counts from 0.
    for stage, name in (("block_2_add", "conv_3/"), ("block_12_add", "conv_13/")):
        (tensor,) = [t for t in adds if name in t["name"]]
        scale, zero = tensor["quantization"]
        expected = (interpreter.get_tensor(tensor["index"]).astype("f4") - zero) * scale
        found = classifier.feature_maps(model, [stage])(image.astype(np.float32))
        correlation = np.corrcoef(np.ravel(found), np.ravel(expected))[0, 1]
        assert correlation > 0.97, stage


def test_another_network_is_refused(interpreter, tmp_path):
    small = tf.keras.Sequential(
        [tf.keras.Input((8, 8, 3)), tf.keras.layers.Conv2D(4, 3)]
    )
    path = tmp_path / "small.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(small).convert())
    model = classifier.build("mobilenet_v2", 64)
    with pytest.raises(
        ValueError, match="Conv1 must have a kernel .3, 3, 3, 32., .* None"
    ):
        mobilenet.load_tflite(model, path, np.zeros([2, 64, 64, 3], np.float32))
