"""Validation of a classifier in training: figures, calibration and TensorBoard."""

import functools
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
    record_columns,
    record_fields,
    records,
)
from dfdetect.evaluation import classifiers, validation_size
from dfdetect.metrics import calibration, classification
from dfdetect.training import distribute, run_checks, tensorboard


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
        # A file that is missing or cut short is named here; a changed byte when its
        # record is read.
        record_columns.open_columns(builder, split)
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
        strategy: Strategy of the training, whose workers share the crops.

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
        strategy: tf.distribute.Strategy,
    ) -> None:
        self._batch_size, self._split, self._where = batch_size, split, where
        self._strategy = strategy
        # Each set, with this worker's share of its batches.
        self._sets: dict[str, tuple[tfds.core.DatasetBuilder, tf.data.Dataset]] = {}
        self._shown: tf.data.Dataset | None = None  # All batches of the first set.
        sources: list[np.ndarray] = []
        for builder in builders:
            name = prepared.name_dataset(builder)
            wanted = record_fields.choose_records(builder, split, where)
            if not wanted.any():
                print(f"--where leaves no validation record of {name}.")
                continue
            build = functools.partial(
                classifier_input.build_evaluation_batches,
                builder,
                split,
                image_size=image_size,
                batch_size=batch_size,
                wanted=wanted,
                crop_margin=crop_margin,
            )
            self._sets[name] = builder, build(share=distribute.get_share(strategy))
            if self._shown is None:
                self._shown = build()
            sources.append(record_fields.read_origins(builder, split)[wanted])
        if not self._sets:
            raise ValueError("--where leaves no validation record.")
        self._sources = np.concatenate(sources)
        self._logits, self._truths = np.zeros(0, np.float32), np.zeros(0, np.int32)

    def measure(self, logits_function: classifiers.Function) -> dict[str, float]:
        """Measures a classifier on all sets, and shows its curves in TensorBoard.

        Every worker must call it, and judges its share of the crops.

        Args:
            logits_function: See `classifiers.build_logits_function`.

        Returns:
            The mean of each of `classification.METRICS` over the sets that have both
            labels; of several sets also the area of each one, `auc_NAME`. Empty on
            workers other than the chief.

        Raises:
            ValueError: A file of a set is damaged.
        """
        answers = {
            name: self._judge(logits_function, builder, crops)
            for name, (builder, crops) in self._sets.items()
        }
        if not distribute.is_chief(self._strategy):
            return {}
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

    def _judge(
        self,
        logits_function: classifiers.Function,
        builder: tfds.core.DatasetBuilder,
        crops: tf.data.Dataset,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the logits of all workers' crops, and their labels, in order."""
        with records.naming_damage(builder, self._split):
            logits, truths = classifiers.predict_logits(logits_function, crops)
        rows = np.stack([logits, truths.astype(np.float32)], axis=1)
        logits, found = distribute.gather(self._strategy, rows).T
        return logits, found.astype(np.int32)

    def describe_sizes(self) -> list[str]:
        """Describes how much each set can tell, a line each."""
        return [
            validation_size.describe_crops(builder, self._split, self._where)
            for builder, _ in self._sets.values()
        ]

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
        assert self._shown is not None
        return self._shown.take(-(-num_crops // self._batch_size))


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
