"""Exports the whole graph as a version that a server can pick up.

    python serve/export.py --output=BASE [--detector=DIR] [--classifier=DIR] [--tile]

Writes BASE/<version>/, aside and then renamed, so that a server that polls BASE never
sees half of it. Without the model directories, the default weights are exported.
Prints the path of the new version.
"""

import os

from absl import app, flags

from dfdetect import script

_OUTPUT = flags.DEFINE_string(
    "output", None, "Folder of the versions; made when missing.", required=True
)
_DETECTOR = flags.DEFINE_string(
    "detector", None, "Model directory of the detector; by default our weights."
)
_CLASSIFIER = flags.DEFINE_string(
    "classifier", None, "Model directory of the classifier; by default our weights."
)
_VERSION = flags.DEFINE_integer(
    "version", None, "Number of the version; by default the next one.", lower_bound=1
)
_TILE = flags.DEFINE_bool(
    "tile", False, "Look for small heads in overlapping tiles of large pictures."
)
_SOFT_NMS_SIGMA = flags.DEFINE_float(
    "soft_nms_sigma", 0.0, "Of soft suppression, .5 in the paper; 0 for hard.", 0.0
)


def next_version(base: str) -> int:
    """One more than the highest number among the folders in `base`."""
    names = os.listdir(base) if os.path.isdir(base) else []
    return max((int(name) for name in names if name.isdecimal()), default=0) + 1


def main(argv: list[str]) -> None:
    base = _OUTPUT.value
    version = _VERSION.value or next_version(base)
    directory = os.path.join(base, str(version))
    if os.path.exists(directory):
        raise app.UsageError(f"{directory} is there already.")
    # The graph is TensorFlow whatever backend Keras is set to.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    from dfdetect import pipeline

    graph = pipeline.from_directories(
        _DETECTOR.value, _CLASSIFIER.value, _TILE.value, _SOFT_NMS_SIGMA.value
    )
    os.makedirs(base, exist_ok=True)
    graph.save(directory)
    print(directory)


if __name__ == "__main__":
    script.run(main)
