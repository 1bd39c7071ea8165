"""Validation of a classifier in training: figures, calibration and TensorBoard."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect import labels
from dfdetect.data import (
    classifier_input,
    conditions,
    prepared,
    record_fields,
    records,
)
from dfdetect.evaluation import classifiers
from dfdetect.metrics import calibration, classification
from dfdetect.training import run_checks, tensorboard


def select_labeled_sets(
    builders: Sequence[tfds.core.DatasetBuilder],
    split: str,
    where: Sequence[conditions.Condition],
) -> list[tfds.core.DatasetBuilder]:
    """Selects the data sets that a classifier can be validated on: those with labels.

    Args:
        builders: Prepared data sets.
        split: The split to validate on.
        where: Conditions that records meet.

    Raises:
        ValueError: None has labels, one has no example in the split, or none has both
            reals and fakes in it.
    """
    labeled = [b for b in builders if "label" in b.info.features]
    if not labeled:
        names = [prepared.name_dataset(builder) for builder in builders]
        raise ValueError(
            f"--dataset must name a set with labels to validate on, got {names}."
        )
    run_checks.check_split(labeled, split)
    found = {}
    for builder in labeled:
        records.check_files(builder, split)
        counts = classifier_input.count_labels(builder, split, where)
        name = prepared.name_dataset(builder)
        found[name] = dict(zip(labels.NAMES, counts, strict=True))
    if not any(all(counts.values()) for counts in found.values()):
        told = "; ".join(f"{name} {counts}" for name, counts in found.items())
        raise ValueError(
            f"--dataset must have real and fake examples in a split {split} to "
            f"validate on, got {told}."
        )
    return labeled


class ClassifierValidation:
    """The validation crops of a training, and a classifier's latest answers on them.

    Args:
        builders: Prepared data sets with labels; one without records that meet the
            conditions is left out, and a line printed.
        split: The split to validate on.
        where: Conditions that records meet.
        image_size: Side of the crops in pixels.
        batch_size: Crops at once.
        crop_margin: See `classifier_input.build_evaluation_batches`.

    Raises:
        ValueError: No record of any set meets the conditions.
    """

    def __init__(
        self,
        builders: Sequence[tfds.core.DatasetBuilder],
        split: str,
        where: Sequence[conditions.Condition],
        *,
        image_size: int,
        batch_size: int,
        crop_margin: float,
    ) -> None:
        self._batch_size = batch_size
        self._batches: dict[str, tf.data.Dataset] = {}
        sources: list[np.ndarray] = []
        for builder in builders:
            name = prepared.name_dataset(builder)
            wanted = record_fields.choose_records(builder, split, where)
            if not wanted.any():
                print(f"--where leaves no validation record of {name}.")
                continue
            self._batches[name] = classifier_input.build_evaluation_batches(
                builder,
                split,
                image_size=image_size,
                batch_size=batch_size,
                wanted=wanted,
                crop_margin=crop_margin,
            )
            sources.append(record_fields.read_origins(builder, split)[wanted])
        if not self._batches:
            raise ValueError("--where leaves no validation record.")
        self._sources = np.concatenate(sources)
        self._logits, self._truths = np.zeros(0, np.float32), np.zeros(0, np.int32)

    def measure(self, logits_function: classifiers.Function) -> dict[str, float]:
        """Measures a classifier on all sets, and shows its curves in TensorBoard.

        Args:
            logits_function: See `classifiers.build_logits_function`.

        Returns:
            The mean of each of `classification.METRICS` over the sets that have both
            labels; of several sets also the area of each one, `auc_NAME`.
        """
        answers = {
            name: classifiers.predict_logits(logits_function, crops)
            for name, crops in self._batches.items()
        }
        self._logits, self._truths = (
            np.concatenate(arrays) for arrays in zip(*answers.values(), strict=True)
        )
        tensorboard.write_classification(
            self._truths, calibration.calibrate_logits(self._logits)
        )
        return _average_figures(
            {
                name: classification.compute_metrics(
                    truths, calibration.calibrate_logits(logits)
                )
                for name, (logits, truths) in answers.items()
                if len(np.unique(truths)) == len(labels.NAMES)
            }
        )

    def calibrate(
        self,
        max_false_positive_rate: float,
        max_false_negative_rate: float,
        max_source_false_negative_rate: float | None,
    ) -> dict[str, Any]:
        """Fits `temperature` and `thresholds` to the latest answers.

        See `calibration.fit_calibration` for the arguments.
        """
        return calibration.fit_calibration(
            self._logits,
            self._truths,
            max_false_positive_rate=max_false_positive_rate,
            max_false_negative_rate=max_false_negative_rate,
            sources=self._sources,
            max_source_false_negative_rate=max_source_false_negative_rate,
        )

    def write_embeddings(
        self, embed: classifiers.Function, model_dir: str, num_crops: int
    ) -> None:
        """Shows the embeddings of the first crops in TensorBoard's projector.

        Args:
            embed: A function from crops to embeddings.
            model_dir: Folder of the event file.
            num_crops: How many, rounded up to whole batches.
        """
        batches = [(x.numpy(), embed(x), y) for x, y in self._first(num_crops)]
        if batches:
            crops, vectors, truths = map(np.concatenate, zip(*batches, strict=True))
            names = [labels.NAMES[truth] for truth in truths]
            tensorboard.write_embeddings(model_dir, vectors, crops, names)

    def write_heat_maps(self, heat_maps: classifiers.Function, num_crops: int) -> None:
        """Shows in TensorBoard where fakes are seen in the first crops.

        Args:
            heat_maps: See `grad_cam.build_heat_maps_function`.
            num_crops: How many, rounded up to whole batches.
        """
        batches = [(x, heat_maps(x)["heat_map"], y) for x, y in self._first(num_crops)]
        if batches:
            tensorboard.write_heat_maps(
                *map(np.concatenate, zip(*batches, strict=True))
            )

    def _first(self, num_crops: int) -> tf.data.Dataset:
        return next(iter(self._batches.values())).take(
            -(-num_crops // self._batch_size)
        )


def _average_figures(figures: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    if not figures:
        raise ValueError("No validation split has both reals and fakes.")
    means = {
        metric: float(np.mean([values[metric] for values in figures.values()]))
        for metric in classification.METRICS
    }
    if len(figures) > 1:
        means |= {f"auc_{name}": values["auc"] for name, values in figures.items()}
    return means
