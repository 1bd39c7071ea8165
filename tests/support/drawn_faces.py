"""A data set of drawn faces with head boxes, for `tiny_heads` to find or to miss."""

import cv2
import tensorflow as tf
import tensorflow_datasets as tfds

import tiny_heads
from dfdetect import labels
from dfdetect.evaluation import evaluation_set
from tiny_heads import BLUE, RED

BAND = {"real_below": 0.3, "fake_from": 0.7}
# Too dark to be found; sigmoids of -+120 / 86.67 where they are given.
DARK_RED, DARK_BLUE = (120, 0, 0), (0, 0, 120)
DARK_FAKE, DARK_REAL = 0.799709, 0.200291
SIDES = ("ymin", "xmin", "ymax", "xmax")

# Name, label, source, group, heads; the first head is the given one.
DRAWN = [
    ("a", 0, "camera", "1", [(24, 24, BLUE)]),
    ("b", 1, "swap", "1", [(24, 24, RED)]),
    ("c", 0, "camera", "2", [(24, 24, DARK_BLUE)]),
    ("d", 1, "swap", "2", [(24, 24, DARK_RED)]),
    ("e", 1, "talk", "3", [(0, 0, RED), (40, 40, BLUE)]),
    ("f", 0, "camera", "3", [(0, 0, BLUE), (40, 40, RED)]),
]


class Faces(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, examples, **kwargs):
        self.examples = examples
        super().__init__(**kwargs)

    def _info(self):
        numbers = dict.fromkeys(SIDES, tfds.features.Scalar(tf.float32))
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "image/filename": tfds.features.Text(),
                    "label": tfds.features.ClassLabel(names=labels.NAMES),
                    "group": tfds.features.Text(),
                    "source": tfds.features.Text(),
                    **numbers,
                }
            ),
            metadata=tfds.core.MetadataDict(fingerprint="of the faces"),
        )

    def _split_generators(self, dl_manager):
        return {split: self._records(x) for split, x in self.examples.items()}

    def _generate_examples(self):
        raise NotImplementedError

    def _records(self, examples):
        for name, label, source, group, heads in examples:
            left, top = (x / tiny_heads.SIZE for x in heads[0][:2])
            side = tiny_heads.HEAD / tiny_heads.SIZE
            box = (top, left, top + side, left + side)
            yield (
                name,
                {
                    "image": encode(heads),
                    "image/filename": f"{name}.png",
                    "label": label,
                    "group": group,
                    "source": source,
                    **dict(zip(SIDES, box, strict=True)),
                },
            )


class Others(Faces, skip_registration=True):
    """Another set of the same images."""


def encode(heads):
    image = tiny_heads.frame(*heads)
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


def prepare(folder, examples, builder_class=Faces):
    builder = builder_class(examples, data_dir=str(folder))
    builder.download_and_prepare()
    return builder


def look(builder, split="test", allow_leaky_split=False):
    return evaluation_set.load_evaluation_set(
        builder,
        split,
        say=lambda _: None,
        where=(),
        allow_leaky_split=allow_leaky_split,
        num_resamples=50,
    )
