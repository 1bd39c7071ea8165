"""Makes a trained model the default: compact weights, with what they reach on test.

    python train/release.py --model_dir=runs/d0 --data_dir=prepared \
      --dataset=hollywood_heads

Kernels are rounded to float16, and it is the rounded weights that are measured; a
classifier's temperature and thresholds are fitted to them anew, on validation. Of
several folders, such as two phases of one training, the mean of the weights is taken
(Wortsman et al., Model soups, ICML 2022). All goes into `dfdetect/default_weights/`,
which the package ships.
"""

import json
import os
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow_datasets as tfds
from absl import flags

from dfdetect import (
    calibration,
    classifier_data,
    data,
    evaluation,
    manifest,
    model_directory,
    script,
)
from dfdetect.metrics import classification
from dfdetect.models import classifier, weights

_MODEL_DIR = flags.DEFINE_list(
    "model_dir", None, "Folders of the trained model, by commas.", required=True
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of prepared data sets.", required=True
)
_DATASET = flags.DEFINE_list(
    "dataset", None, "Prepared data sets to test on, by commas.", required=True
)
_MAX_FALSE_POSITIVE_RATE = flags.DEFINE_float(
    "max_false_positive_rate", 0.05, "See train/classifier.py.", 0.0, 0.999
)
_MAX_FALSE_NEGATIVE_RATE = flags.DEFINE_float(
    "max_false_negative_rate", 0.1, "See train/classifier.py.", 0.0, 0.999
)
_OUTPUT = flags.DEFINE_string(
    "output", model_directory.DEFAULT_WEIGHTS, "Folder of the default weights."
)


def main(argv: list[str]) -> None:
    with open(os.path.join(_MODEL_DIR.value[0], manifest.FILE_NAME)) as file:
        found = json.load(file)
    kind = found["kind"]
    if found.get("model") in classifier.TEACHERS:
        raise ValueError(f"{found['model']} is to learn from, not to publish.")
    load = {
        "detector": model_directory.load_detector,
        "classifier": model_directory.load_classifier,
    }[kind]
    builders = {
        name: data.open_builder(_DATA_DIR.value, name) for name in _DATASET.value
    }
    model, described = load(_MODEL_DIR.value[0])
    _average(model, _MODEL_DIR.value)
    target = os.path.join(_OUTPUT.value, kind)
    os.makedirs(target, exist_ok=True)
    weights.save(model, os.path.join(target, weights.FILE_NAME), compact=True)
    weights.load(model, target)
    if kind == "classifier":
        described |= _calibrated(model, described, [*builders.values()])
    figures = {
        name: evaluation.measure(model, described, builder, "test")
        for name, builder in builders.items()
    }
    described["metrics"]["test"] = figures
    manifest.write(target, described)
    print(json.dumps({"written": target, "test": figures}, indent=2))


def _average(model: keras.Model, directories: Sequence[str]) -> None:
    """Gives a model the mean of the weights of folders, which must fit it."""
    values = []
    for directory in directories:
        weights.load(model, directory)
        values.append(model.get_weights())
    model.set_weights([np.mean(arrays, axis=0) for arrays in zip(*values, strict=True)])


def _calibrated(
    model: keras.Model,
    described: dict[str, Any],
    builders: Sequence[tfds.core.DatasetBuilder],
) -> dict[str, Any]:
    """What a manifest says of the validation splits: calibration and figures."""
    logits_function = evaluation.logits_function(model)
    found = [
        evaluation.classifier_logits(
            logits_function,
            classifier_data.evaluation(
                builder, "validation", described["image_size"], batch_size=16
            ),
        )
        for builder in builders
    ]
    logits, truths = map(np.concatenate, zip(*found, strict=True))
    calibrated = calibration.fit(
        logits,
        truths,
        _MAX_FALSE_POSITIVE_RATE.value,
        _MAX_FALSE_NEGATIVE_RATE.value,
    )
    figures = {
        builder.info.name: classification.summary(
            truths, calibration.probability(logits, calibrated["temperature"])
        )
        for builder, (logits, truths) in zip(builders, found, strict=True)
    }
    return {**calibrated, "metrics": {"validation": figures}}


if __name__ == "__main__":
    script.run(main)
