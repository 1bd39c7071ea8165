"""Measures one classifier on one set: its figures, and its predictions."""

import dataclasses
import datetime
import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect import console
from dfdetect.data import classifier_input
from dfdetect.evaluation import (
    classification_protocol,
    evaluation_set,
    peer_detectors,
    predictions,
)
from dfdetect.evaluation.audit import scan
from dfdetect.evaluation.audit.survey import Survey
from dfdetect.evaluation.predictions import Predictions
from dfdetect.export import bfloat16, freezing
from dfdetect.metrics import calibration
from dfdetect.models import model_directory

Function = Callable[[tf.Tensor], Any]


@dataclasses.dataclass(frozen=True)
class Result:
    """One model on one set.

    Attributes:
        figures: `model`, `split`, what `EvaluatedSet.describe` gives, `warnings`,
            `date`, `classifier` (what its manifest says), `metrics`, `video_metrics`,
            `baselines` and `strata`; perhaps `robustness`, see
            `robustness.measure_robustness`, or the `reason` why not.
        predictions: Predictions for the images.
        metadata_probabilities: Probabilities of `audit.metadata_baseline` for the same
            images; None where it has none.
    """

    figures: dict[str, Any]
    predictions: Predictions
    metadata_probabilities: np.ndarray | None = None

    @property
    def model(self) -> str:
        """The name of the model."""
        return self.figures["model"]

    @property
    def data(self) -> str:
        """Data set, split and conditions in a few words."""
        data, split = self.figures["data"], self.figures["split"]
        name = "/".join(filter(None, (data["name"], data["config"])))
        return ", ".join([name, split, *(f"where {c}" for c in self.figures["where"])])


def measure_classifier(
    name: str,
    model: model_directory.Loaded,
    *,
    judged: evaluation_set.EvaluatedSet,
    say: Callable[[str], None],
    batch_size: int = 16,
    precision: str | None = None,
) -> Result:
    """Measures a classifier on a set.

    Args:
        name: Its folder, or `model_directory.DEFAULT_NAME`.
        model: The classifier and its manifest.
        judged: The set.
        say: Prints a line.
        batch_size: Images at once.
        precision: See `build_logits_function`.
    """
    classifier, manifest = model
    with console.Progress(int(judged.wanted.sum()), say, noun="image") as bar:
        found = predict_split(
            classifier,
            manifest,
            builder=judged.builder,
            split=judged.split,
            survey=judged.survey,
            wanted=judged.wanted,
            batch_size=batch_size,
            count=functools.partial(bar.count, "classified"),
            precision=precision,
        )
    name = "default weights" if model_directory.is_default(name) else name
    return _join(name, manifest, judged, found, precision)


def measure_peer(
    peer: peer_detectors.Peer, judged: evaluation_set.EvaluatedSet, guess_missing: bool
) -> Result:
    """Measures a detector of others on a set.

    Args:
        peer: The detector.
        judged: The set.
        guess_missing: See `peer_detectors.fill_gaps`.

    Raises:
        ValueError: It fails, or its probabilities are not those of the set's records.
    """
    probabilities, warnings = peer_detectors.fill_gaps(
        peer.name, peer.judge(judged), judged, guess_missing
    )
    found = predictions.join_survey(judged.survey, probabilities)
    return _join(peer.name, peer.manifest, judged, found, None, warnings)


def _join(
    name: str,
    manifest: dict[str, Any],
    judged: evaluation_set.EvaluatedSet,
    found: Predictions,
    precision: str | None,
    warnings: Sequence[str] = (),
) -> Result:
    figures = {
        "task": "classify",
        "precision": precision,
        "model": name,
        "split": judged.split,
        **judged.describe(),
        "warnings": [*warnings, *judged.warnings(manifest)],
        "date": datetime.date.today().isoformat(),
        "classifier": {
            "trained_on": manifest.get("data", []),
            **{key: manifest[key] for key in ("model", "image_size", "temperature")},
        },
        **classification_protocol.measure_both_levels(found, judged.num_resamples),
        "baselines": judged.baselines,
        "strata": classification_protocol.measure_strata(found, judged.num_resamples),
    }
    return Result(figures, found, judged.metadata_probabilities)


def predict_split(
    model: keras.Model,
    manifest: dict[str, Any],
    *,
    builder: tfds.core.DatasetBuilder,
    split: str,
    survey: Survey,
    wanted: np.ndarray | None = None,
    batch_size: int = 16,
    count: Callable[[int], None] = lambda _: None,
    precision: str | None = None,
) -> predictions.Predictions:
    """Predicts a split with a trained classifier, and joins what a survey knows of it.

    Args:
        model: A classifier, see `model_directory`.
        manifest: Its manifest.
        builder: A prepared data set of head crops.
        split: One of its splits.
        survey: Survey of the wanted records of this split, in their order.
        wanted: `[N]` bool, the records of the split to take; all by default.
        batch_size: Images at once.
        count: Called for each batch, with its number of images.
        precision: See `build_logits_function`.
    """
    crops = classifier_input.build_evaluation_batches(
        builder,
        split,
        image_size=manifest["image_size"],
        batch_size=batch_size,
        wanted=wanted,
        crop_margin=manifest["crop_margin"],
    )
    logits, truths = predict_logits(
        build_logits_function(model, precision), crops, count
    )
    assert np.array_equal(truths, survey.truths), "Not the images of the survey."
    probabilities = calibration.calibrate_logits(logits, manifest["temperature"])
    found = predictions.join_survey(survey, probabilities)
    return dataclasses.replace(found, logits=logits)


def build_logits_function(model: keras.Model, precision: str | None = None) -> Function:
    """Builds a traced function from crops `[B, S, S, 3]` to fake logits `[B]`.

    Args:
        model: A classifier.
        precision: One of `freezing.PRECISIONS`: the model as it is exported. None: as
            it was trained.
    """
    if precision is None:
        return tf.function(lambda crops: model(crops, training=False)[:, 0])
    spec = tf.TensorSpec(model.input_shape, tf.float32)
    folded = freezing.fold(
        tf.function(
            lambda crops: {"logits": model(crops, training=False)[:, 0]},
            input_signature=[spec],
            autograph=False,
        ),
        precision,
        spared=bfloat16.SPARED_OF_CLASSIFIER,
    )
    return lambda crops: folded(crops)["logits"]


def predict_logits(
    logits_function: Function,
    batches: tf.data.Dataset,
    count: Callable[[int], None] = lambda _: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Computes fake logits of crops; returns them and the labels, `[N]` each.

    Args:
        logits_function: See `build_logits_function`.
        batches: Batches of `classifier_input.build_evaluation_batches`.
        count: Called for each batch, with its number of crops.
    """
    pairs = []
    for crops, truths in batches:
        pairs.append((logits_function(crops), truths))
        count(len(truths))
    if not pairs:
        return np.zeros(0, np.float32), np.zeros(0, np.int32)
    logits, truths = zip(*pairs, strict=True)
    return np.concatenate(logits), np.concatenate(truths)


def measure_split(
    model: keras.Model,
    manifest: dict[str, Any],
    *,
    builder: tfds.core.DatasetBuilder,
    split: str,
    batch_size: int = 16,
) -> dict[str, Any]:
    """Measures a trained classifier on a split of a prepared data set.

    Args:
        model: A classifier, see `model_directory`.
        manifest: Its manifest.
        builder: A prepared data set of head crops.
        split: "train", "validation" or "test".
        batch_size: Images at once.

    Returns:
        Figures of `classification_protocol.measure` that have a value.
    """
    survey = scan.scan_dataset(builder, lambda _: None, [split], with_hashes=False)
    figures = classification_protocol.measure(
        predict_split(
            model,
            manifest,
            builder=builder,
            split=split,
            survey=survey,
            batch_size=batch_size,
        )
    )
    return {name: value for name, value in figures.items() if not np.isnan(value).any()}
