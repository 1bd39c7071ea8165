"""A prepared data set of drawn images with source, method and head box, for tests."""

import cv2
import numpy as np
import tensorflow_datasets as tfds
from tensorflow import float32

import labelled_images

SIDES = ("ymin", "xmin", "ymax", "xmax")


class SourcedFaces(labelled_images.LabelledImages, skip_registration=True):
    """A data set of `{split: [fields of a record]}`."""

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "image/filename": tfds.features.Text(),
                    "label": tfds.features.ClassLabel(names=self.label_names),
                    "group": tfds.features.Text(),
                    "source": tfds.features.Text(),
                    **{side: tfds.features.Scalar(float32) for side in SIDES},
                }
            ),
            metadata=tfds.core.MetadataDict(fingerprint="of the faces"),
        )

    def _generate_examples(self, split, examples):
        for example in examples:
            yield example["image/filename"], example


def face(name, label, source="", box=(0, 0, 0, 0), image=None, group=None):
    """Builds the fields of a record; by default with noise seeded by the name."""
    if image is None:
        seed = sum(name.encode())
        image = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), np.uint8)
    return {
        "image": cv2.imencode(".png", image)[1].tobytes(),
        "image/filename": f"{name}.png",
        "label": label,
        "group": group or name,
        "source": source,
        **dict(zip(SIDES, map(float, box), strict=True)),
    }


def prepare(data_dir, faces):
    """Prepares `{split: [face(...)]}` and returns the builder."""
    return labelled_images.prepare(data_dir, faces, SourcedFaces)
