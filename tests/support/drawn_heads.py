"""A TFDS builder for tests: drawn images with head boxes, in configs."""

import cv2
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds


class DrawnHeads(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A data set of noise with bright squares as heads, as many as the config states.

    Configs are named `<word>_<heads an image>`; splits are `{name: images}`.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, splits, config, **kwargs):
        self.splits = splits
        super().__init__(config=tfds.core.BuilderConfig(name=config), **kwargs)

    def _info(self):
        objects = {
            "bbox": tfds.features.BBoxFeature(),
            "label": tfds.features.ClassLabel(names=["head"]),
            "is_difficult": tf.bool,
        }
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "image/filename": tfds.features.Text(),
            "objects": tfds.features.Sequence(objects),
            "group": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager):
        return {
            split: self._generate_examples(split, count)
            for split, count in self.splits.items()
        }

    def _generate_examples(self, split, count):
        heads = int(self.builder_config.name.split("_")[1])
        random = np.random.default_rng([heads, len(split)])
        for index in range(count):
            image = random.integers(0, 60, (96, 128, 3)).astype(np.uint8)
            objects = []
            for place in range(heads):
                y, x = 8 + 40 * (place % 2), 8 + 32 * (place // 2)
                image[y : y + 28, x : x + 24] = 220
                box = tfds.features.BBox(y / 96, x / 128, (y + 28) / 96, (x + 24) / 128)
                objects.append({"bbox": box, "label": "head", "is_difficult": False})
            name = f"{split}{index}.png"
            yield (
                name,
                {
                    "image": cv2.imencode(".png", image)[1].tobytes(),
                    "image/filename": name,
                    "objects": objects,
                    "group": name,
                },
            )


def prepare(data_dir, config, **splits):
    """Prepares the data set, and returns the builder."""
    builder = DrawnHeads(splits, config, data_dir=str(data_dir))
    builder.download_and_prepare()
    return builder
