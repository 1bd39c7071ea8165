"""Scoring through `data` and through the exported graph give the same probabilities."""

import csv

import keras
import numpy as np
import pytest
import tensorflow_datasets as tfds

import tiny_pipeline
from dfdetect.data import classifier_input, prepared
from dfdetect.evaluation import classifiers as classifier_evaluation
from dfdetect.export import saved_pipeline
from dfdetect.metrics import calibration
from dfdetect.models import classifier as classifiers
from dfdetect.pipeline import deepfake_pipeline

_NUM_CROPS, _IMAGE_SIZE, _TEMPERATURE = 64, 96, 1.5


@pytest.fixture(name="builder", scope="module")
def _builder(tmp_path_factory, run_script, sample_data):
    """64 real crops, in one split."""
    faces = sample_data("faces_dfdc/labels.csv").parent
    folder = tmp_path_factory.mktemp("parity")
    with open(faces / "labels.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    with open(folder / "labels.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["path", "label", "split", "group"])
        writer.writeheader()
        writer.writerows(rows[:_NUM_CROPS])
    for label in ("real", "fake"):
        (folder / label).symlink_to(faces / label)
    run_script(
        "datasets/prepare.py",
        "--dataset=labeled_faces",
        f"--manual_dir={folder}",
        f"--data_dir={folder / 'prepared'}",
    )
    return prepared.open_builder(str(folder / "prepared"), "labeled_faces")


@pytest.fixture(name="classifier", scope="module")
def _classifier():
    """Random weights; the moving statistics and logits are spread as if trained."""
    keras.utils.set_random_seed(0)
    model = classifiers.build("efficientnet_lite0", _IMAGE_SIZE, bn_momentum=0.0)
    random = np.random.default_rng(0)
    model(random.uniform(0, 255, (8, _IMAGE_SIZE, _IMAGE_SIZE, 3)), training=True)
    kernel = model.get_layer("logits").kernel
    kernel.assign(random.normal(0, 0.2, kernel.shape))
    return model


def test_scores_of_training_and_serving_agree(builder, classifier, tmp_path):
    batches = classifier_input.build_evaluation_batches(
        builder, "test", image_size=_IMAGE_SIZE, batch_size=16
    )
    logits_function = classifier_evaluation.build_logits_function(classifier)
    logits, _ = classifier_evaluation.predict_logits(logits_function, batches)
    scored = calibration.calibrate_logits(logits, _TEMPERATURE)

    # Crops are judged without a detector: a small one is as good.
    small = tiny_pipeline.build()
    described = small.manifest["classifier"] | {
        "model": "efficientnet_lite0",
        "image_size": _IMAGE_SIZE,
        "temperature": _TEMPERATURE,
    }
    graph = deepfake_pipeline.DeepfakePipeline(
        small.detector,
        classifier,
        small.content_network,
        small.manifest | {"classifier": described},
    )
    saved_pipeline.save(graph, str(tmp_path / "1"))
    served = saved_pipeline.load(str(tmp_path / "1"))
    encoded = builder.as_dataset(
        split="test", decoders={"image": tfds.decode.SkipDecoding()}
    )
    answers = [served.classify_crops(x["image"]) for x in encoded.batch(12)]
    status = np.concatenate([answer["status"] for answer in answers])
    probabilities = np.concatenate([answer["fake_probability"] for answer in answers])

    assert len(scored) == _NUM_CROPS and not status.any()
    assert np.ptp(scored) > 0.01  # Else equal scores would say nothing.
    np.testing.assert_allclose(probabilities, scored, rtol=0, atol=1e-5)
