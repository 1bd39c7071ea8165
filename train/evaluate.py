"""Measures a trained model on a split of a prepared data set.

    python train/evaluate.py --task=detect --model_dir=runs/d0 \
      --data_dir=prepared --dataset=hollywood_heads --split=test
"""

import json

from absl import flags

from dfdetect import data, evaluation, files, model_directory, script

FLAGS = flags.FLAGS

_TASK = flags.DEFINE_enum(
    "task", None, ["detect", "classify"], "What the model does.", required=True
)
_MODEL_DIR = flags.DEFINE_string(
    "model_dir", None, "Folder of a trained model; the default weights without it."
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of prepared data sets.", required=True
)
_DATASET = flags.DEFINE_string("dataset", None, "A prepared data set.", required=True)
_SPLIT = flags.DEFINE_string("split", "test", "A split of it.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Pictures at once.", lower_bound=1)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file for the figures.")


def main(argv: list[str]) -> None:
    builder = data.open_builder(_DATA_DIR.value, _DATASET.value)
    load = {
        "detect": model_directory.load_detector,
        "classify": model_directory.load_classifier,
    }[_TASK.value]
    model, described = load(_MODEL_DIR.value)
    figures = {
        "task": _TASK.value,
        "split": _SPLIT.value,
        "data": data.describe(builder),
        "metrics": evaluation.measure(
            model, described, builder, _SPLIT.value, _BATCH_SIZE.value
        ),
    }
    text = json.dumps(figures, indent=2)
    print(text)
    if _OUTPUT.value:
        files.write(_OUTPUT.value, f"{text}\n".encode())


if __name__ == "__main__":
    script.run(main)
