"""Converts a classifier's weights that others trained to a model folder.

    python train/convert.py --model=xception_pytorch --snapshot=full_c23.p \
      --model_dir=runs/faceforensics

    python train/evaluate.py --task=classify --model_dir=runs/faceforensics \
      --data_dir=DATA --dataset=labeled_faces

    python train/convert.py --model=content --image_size=224 \
      --snapshot=efficientnet-lite0.pth --model_dir=dfdetect/default_weights/content

See `dfdetect.models.foreign_weights` for the files. If a file lacks logits of real and
fake, as ImageNet's do, nothing is written: train with --snapshot=FILE instead.
`content` is the network that describes what images show, of ImageNet's weights, see
`dfdetect.models.content_embedding`.
"""

import os

if __name__ == "__main__":
    from dfdetect import console

    # Before TensorFlow is imported: its notes would bury the messages.
    console.capture()

import keras
from absl import flags

from dfdetect import labels, manifest, script
from dfdetect.metrics import calibration
from dfdetect.models import classifier, content_embedding, weights

_CONTENT = "content"

_MODEL = flags.DEFINE_enum(
    "model",
    "xception_pytorch",
    (*classifier.NAMES, _CONTENT),
    "Architecture of the weights.",
)
_SNAPSHOT = flags.DEFINE_string("snapshot", None, "File of the weights.", required=True)
_MODEL_DIR = flags.DEFINE_string(
    "model_dir", None, "Folder for weights.npz and manifest.json.", required=True
)
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 299, "Side of the crops, px.")
_CROP_MARGIN = flags.DEFINE_float(
    "crop_margin", 1.3, "Side of a crop over the longer side of its head box."
)


def main(argv: list[str]) -> None:
    """Loads, reports and writes."""
    del argv
    path = os.path.join(_MODEL_DIR.value, weights.FILE_NAME)
    if os.path.exists(path):
        raise FileExistsError(f"{path} exists already; name another --model_dir.")
    is_content = _MODEL.value == _CONTENT
    model = _load_content_network() if is_content else _load_classifier()
    os.makedirs(_MODEL_DIR.value, exist_ok=True)
    weights.save(model, path, compact=is_content)
    described = {
        "kind": _CONTENT if is_content else "classifier",
        "image_size": model.input_shape[1],
        "converted_from": os.path.basename(_SNAPSHOT.value),
        "versions": manifest.collect_versions(),
    }
    if not is_content:
        described |= {
            "model": _MODEL.value,
            "crop_margin": _CROP_MARGIN.value,
            **calibration.default_calibration(),
            "labels": list(labels.NAMES),
            # Its training data are unknown.
            "data": [],
            "metrics": {},
        }
    manifest.write(_MODEL_DIR.value, described)


def _load_classifier() -> keras.Model:
    model = classifier.build(_MODEL.value, _IMAGE_SIZE.value)
    report = weights.load_snapshot(model, _SNAPSHOT.value)
    print(report)
    if report.missing or report.mismatched:
        raise ValueError(
            f"{_SNAPSHOT.value} must have all weights of {_MODEL.value}, {report}. "
            "train/classifier.py --snapshot starts from a part of them."
        )
    return model


def _load_content_network() -> keras.Model:
    network = content_embedding.build_network(_IMAGE_SIZE.value)
    content_embedding.load_pytorch(network, _SNAPSHOT.value)
    return network


if __name__ == "__main__":
    script.run_main(main)
