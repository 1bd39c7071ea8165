"""Makes a trained model the default: compact weights, with what they reach on test.

    python train/release.py --model_dir=runs/d0 --data_dir=prepared \
      --dataset=hollywood_heads

Kernels are rounded to float16, and it is the rounded weights that are measured. Both
go into `dfdetect/default_weights/`, which the package ships.
"""

import json
import os

from absl import flags

from dfdetect import data, evaluation, manifest, model_directory, script
from dfdetect.models import classifier, weights

_MODEL_DIR = flags.DEFINE_string(
    "model_dir", None, "Folder of the trained model.", required=True
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of prepared data sets.", required=True
)
_DATASET = flags.DEFINE_list(
    "dataset", None, "Prepared data sets to test on, by commas.", required=True
)
_OUTPUT = flags.DEFINE_string(
    "output", model_directory.DEFAULT_WEIGHTS, "Folder of the default weights."
)


def main(argv: list[str]) -> None:
    with open(os.path.join(_MODEL_DIR.value, manifest.FILE_NAME)) as file:
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
    model, described = load(_MODEL_DIR.value)
    target = os.path.join(_OUTPUT.value, kind)
    os.makedirs(target, exist_ok=True)
    weights.save(model, os.path.join(target, weights.FILE_NAME), compact=True)
    manifest.write(target, described)
    model, described = load(target)
    figures = {
        name: evaluation.measure(model, described, builder, "test")
        for name, builder in builders.items()
    }
    described["metrics"]["test"] = figures
    manifest.write(target, described)
    print(json.dumps({"written": target, "test": figures}, indent=2))


if __name__ == "__main__":
    script.run(main)
