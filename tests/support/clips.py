"""A prepared data set of drawn clips for tests, and a classifier of brightness."""

import cv2
import numpy as np
import tensorflow as tf

import labelled_images

NAMES = ("original", "swap", "talk")  # Methods; the first is real.
MANIFEST = {
    "kind": "classifier",
    "model": "brightness",
    "image_size": 16,
    "crop_margin": 1.0,
    "temperature": 1.0,
    "data": [{"name": "elsewhere", "version": "1.0.0", "fingerprint": "of others"}],
}


class Clips(labelled_images.LabelledImages, skip_registration=True):
    """A data set with two frames of a clip per group and method; fakes are brighter."""

    def _generate_examples(self, split, examples):
        random = np.random.default_rng(len(split))
        for group, side in examples:
            for method in NAMES:
                label = int(method != "original")
                for frame in range(2):
                    brightness = 100 + 40 * label + random.integers(-50, 50)
                    image = np.full((side, side, 3), brightness, np.uint8)
                    name = f"{method}/{group}/{frame:03d}.png"
                    yield (
                        f"{split}/{name}",
                        {
                            "image": cv2.imencode(".png", image)[1].tobytes(),
                            "image/filename": name,
                            "label": label,
                            "group": group,
                            "method": method,
                            "compression": "c23",
                            "frame": frame,
                            "time": 0.1,
                            "is_sharp": True,
                            "score": 0.5,
                            "mask": b"",
                        },
                    )


def prepare(data_dir, groups=None):
    """Prepares `{split: [(group, side in pixels)]}` and returns the builder."""
    groups = groups or {
        split: [(f"{split}{i}", 20 + 20 * (i % 2)) for i in range(6)]
        for split in ("train", "validation", "test")
    }
    return labelled_images.prepare(data_dir, groups, Clips)


def brightness(images, training=False):
    """Classifies by brightness: `[B, S, S, 3]` to logits `[B, 1]`."""
    return (tf.reduce_mean(images, (1, 2, 3))[:, None] - 120) / 20
