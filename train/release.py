"""Makes a trained model the default: compact weights, with their test figures.

    python train/release.py --model_dir=runs/d0 --data_dir=prepared \
      --dataset=hollywood_heads

Kernels are rounded to float16, and the rounded weights are measured. A classifier's
temperature and thresholds, or a detector's score threshold over all sets together, are
fitted to them again on validation. Weights of several folders, such as two phases of
one training, are averaged (Wortsman et al., Model soups, ICML 2022). The output goes
into `dfdetect/default_weights/`, which the package ships, or with `--output=NAME.npz`
into one packed file, for `dfdetect detect --classifier=NAME.npz` and `serve/export.py`.
"""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

if __name__ == "__main__":
    from dfdetect import console

    # Before TensorFlow is imported: its notes would bury the messages.
    console.capture()

import keras
import numpy as np
import tensorflow_datasets as tfds
from absl import flags

from dfdetect import labels, manifest, script
from dfdetect.data import classifier_input, detector_input, prepared, record_fields
from dfdetect.evaluation import classifiers, detectors
from dfdetect.metrics import calibration, classification, detection_sets
from dfdetect.models import classifier, kept_steps, model_directory, weights

_MODEL_DIR = flags.DEFINE_list(
    "model_dir",
    None,
    "Folders of the trained model, separated by commas.",
    required=True,
)
_STEP = flags.DEFINE_integer(
    "step",
    None,
    "Step of each training, one that its checkpoints keep; by default the best.",
    lower_bound=1,
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of prepared data sets.", required=True
)
_DATASET = flags.DEFINE_list(
    "dataset",
    None,
    "Prepared data sets to test on, separated by commas. For a classifier, the heads "
    "in sets without labels, such as hollywood_heads, are reals.",
    required=True,
)
_MAX_FALSE_POSITIVE_RATE = flags.DEFINE_float(
    "max_false_positive_rate",
    0.05,
    "See train/classifier.py.",
    0.0,
    0.999,
)
_MAX_FALSE_NEGATIVE_RATE = flags.DEFINE_float(
    "max_false_negative_rate", 0.1, "See train/classifier.py.", 0.0, 0.999
)
_MAX_SOURCE_FALSE_NEGATIVE_RATE = flags.DEFINE_float(
    "max_source_false_negative_rate",
    None,
    "See train/classifier.py.",
    lower_bound=0.0,
    upper_bound=0.999,
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", None, "Side of a detector's input in px; by default that of training."
)
_CONTAINMENT_THRESHOLD = flags.DEFINE_float(
    "containment_threshold",
    1.0,
    "Share of the smaller of two boxes from which a detector keeps only the better "
    "one; 1 for none.",
    0.01,
    1.0,
)
_MAX_FALSE_BOXES = flags.DEFINE_float(
    "max_false_boxes", 0.05, "See train/detector.py.", lower_bound=0.0
)
_OUTPUT = flags.DEFINE_string(
    "output",
    model_directory.DEFAULT_WEIGHTS,
    "Folder of the default weights, or a file .npz for a packed model.",
)


_PACKED = ".npz"


def main(argv: list[str]) -> None:
    with open(os.path.join(_MODEL_DIR.value[0], manifest.FILE_NAME)) as file:
        found = json.load(file)
    kind = found["kind"]
    if found.get("model") in classifier.TEACHERS:
        raise ValueError(f"{found['model']} is a teacher and cannot be published.")
    builders = {
        name: prepared.open_builder(_DATA_DIR.value, name) for name in _DATASET.value
    }
    if kind == "detector":
        model, described = model_directory.load_detector(
            _MODEL_DIR.value[0], _IMAGE_SIZE.value, _STEP.value
        )
    else:
        model, described = model_directory.load_classifier(
            _MODEL_DIR.value[0], step=_STEP.value
        )
    _load_average(model, _MODEL_DIR.value)
    if _OUTPUT.value.endswith(_PACKED):
        with tempfile.TemporaryDirectory() as folder:
            described = _write(folder, model, described, builders)
            model_directory.pack(folder, _OUTPUT.value)
        target = _OUTPUT.value
    else:
        target = os.path.join(_OUTPUT.value, kind)
        os.makedirs(target, exist_ok=True)
        # Beside the old ones, which stay until all is measured.
        with tempfile.TemporaryDirectory(prefix=".release.", dir=target) as folder:
            described = _write(folder, model, described, builders)
            for name in (weights.FILE_NAME, manifest.FILE_NAME):
                os.replace(os.path.join(folder, name), os.path.join(target, name))
    print(json.dumps({"written": target, **described["metrics"]}, indent=2))


def _write(
    target: str,
    model: keras.Model,
    described: dict[str, Any],
    builders: Mapping[str, tfds.core.DatasetBuilder],
) -> dict[str, Any]:
    """Rounds, measures and writes a model; returns its manifest."""
    weights.save(model, os.path.join(target, weights.FILE_NAME), compact=True)
    weights.load(model, target)
    kind = described["kind"]
    if kind == "detector":
        described |= _measure_detector(model, described, builders)
    else:
        described |= _calibrate(model, described, _find_validated(builders))
        described["metrics"]["test"] = {
            name: classifiers.measure_split(
                model, described, builder=builder, split="test"
            )
            for name, builder in builders.items()
            if "label" in builder.info.features and "test" in builder.info.splits
        }
        described["metrics"]["reals"] = {
            name: _measure_reals(model, described, builder)
            for name, builder in builders.items()
            if "label" not in builder.info.features
        }
    manifest.write(target, described)
    return described


def _measure_detector(
    model: keras.Model,
    described: dict[str, Any],
    builders: Mapping[str, tfds.core.DatasetBuilder],
) -> dict[str, Any]:
    """Measures a detector; returns suppression, threshold and figures."""
    detect = detectors.build_detect_function(
        model, containment_threshold=_CONTAINMENT_THRESHOLD.value
    )

    def measure(split: str) -> dict[str, float]:
        findings = {
            name: detectors.collect_detections(
                detect,
                detector_input.build_evaluation_batches(
                    builder, split, image_size=described["image_size"], batch_size=16
                ),
            )[:2]
            for name, builder in builders.items()
            if split in builder.info.splits and builder.info.splits[split].num_examples
        }
        if not findings:
            return {}
        return detection_sets.evaluate(findings, _MAX_FALSE_BOXES.value)

    validation = measure("validation")
    if not validation:
        raise ValueError(
            f"--dataset must name a set with a validation split, got {_DATASET.value}."
        )
    return {
        "containment_threshold": _CONTAINMENT_THRESHOLD.value,
        "score_threshold": validation["f1_score_threshold"],
        "metrics": {"validation": validation, "test": measure("test")},
    }


def _load_average(model: keras.Model, directories: Sequence[str]) -> None:
    """Loads the mean of the weights of folders, which must fit the model."""
    values = []
    for directory in directories:
        step = _STEP.value
        path = directory if step is None else kept_steps.find(directory, step)
        weights.load(model, path)
        values.append(model.get_weights())
    model.set_weights([np.mean(arrays, axis=0) for arrays in zip(*values, strict=True)])


def _find_validated(
    builders: Mapping[str, tfds.core.DatasetBuilder],
) -> list[tfds.core.DatasetBuilder]:
    """Finds the data sets with a validation split, before any model is measured.

    Raises:
        ValueError: They have no reals or no fakes, also not together.
    """
    found, counts = [], np.zeros(len(labels.NAMES), int)
    for builder in builders.values():
        info = builder.info.splits.get("validation")
        if info is None or not info.num_examples:
            continue
        found.append(builder)
        if "label" in builder.info.features:
            counts += classifier_input.count_labels(builder, "validation")
        else:
            counts[labels.REAL] += info.num_examples
    if not counts.all():
        told = dict(zip(labels.NAMES, counts.tolist(), strict=True))
        raise ValueError(
            "--dataset must name sets with reals and fakes in their validation splits, "
            f"got {told} in {', '.join(builders)}."
        )
    return found


def _calibrate(
    model: keras.Model,
    described: dict[str, Any],
    builders: Sequence[tfds.core.DatasetBuilder],
) -> dict[str, Any]:
    """Calibrates on the validation splits; returns calibration and figures.

    Of a set of one label there are only the figures that need no other.
    """
    logits_function = classifiers.build_logits_function(model)
    found, sources = [], []
    for builder in builders:
        options = {
            "image_size": described["image_size"],
            "batch_size": 16,
            "crop_margin": described["crop_margin"],
        }
        if "label" in builder.info.features:
            crops = classifier_input.build_evaluation_batches(
                builder, "validation", **options
            )
            origins = record_fields.read_origins(builder, "validation")
        else:
            crops = classifier_input.build_real_batches(
                builder, "validation", **options
            )
            origins = None
        found.append(classifiers.predict_logits(logits_function, crops))
        if origins is None:
            origins = np.full(len(found[-1][0]), prepared.name_dataset(builder))
        sources.append(origins)
    logits, truths = map(np.concatenate, zip(*found, strict=True))
    calibrated = calibration.fit_calibration(
        logits,
        truths,
        max_false_positive_rate=_MAX_FALSE_POSITIVE_RATE.value,
        max_false_negative_rate=_MAX_FALSE_NEGATIVE_RATE.value,
        sources=np.concatenate(sources),
        max_source_false_negative_rate=_MAX_SOURCE_FALSE_NEGATIVE_RATE.value,
    )
    figures = {
        prepared.name_dataset(builder): classification.compute_defined_metrics(
            truths, calibration.calibrate_logits(logits, calibrated["temperature"])
        )
        for builder, (logits, truths) in zip(builders, found, strict=True)
        if "label" in builder.info.features
    }
    return {**calibrated, "metrics": {"validation": figures}}


def _measure_reals(
    model: keras.Model,
    described: Mapping[str, Any],
    builder: tfds.core.DatasetBuilder,
) -> dict[str, dict[str, float]]:
    """Counts the heads of a set of reals, and their shares of verdicts, by split."""
    logits_function = classifiers.build_logits_function(model)
    shares: dict[str, dict[str, float]] = {}
    for split in {"validation", "test"} & {*builder.info.splits}:
        size, margin = described["image_size"], described["crop_margin"]
        heads = classifier_input.build_real_batches(
            builder, split, image_size=size, batch_size=16, crop_margin=margin
        )
        logits, _ = classifiers.predict_logits(logits_function, heads)
        probabilities = calibration.calibrate_logits(logits, described["temperature"])
        thresholds = described["thresholds"]
        shares[split] = {
            "num_heads": len(probabilities),
            "called_fake": float((probabilities >= thresholds["fake_from"]).mean()),
            "called_real": float((probabilities < thresholds["real_below"]).mean()),
        }
    return shares


if __name__ == "__main__":
    script.run_main(main)
