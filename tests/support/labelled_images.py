"""A TFDS builder for tests: any labeled images, with scalars of every kind."""

import tensorflow as tf
import tensorflow_datasets as tfds


class LabelledImages(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.0.0")
    label_names = ("real", "fake")
    lacking = ()

    def __init__(self, images, **kwargs):
        self.images = images
        super().__init__(**kwargs)

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "image/filename": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=self.label_names),
            "group": tfds.features.Text(),
            "method": tfds.features.Text(),
            "compression": tfds.features.ClassLabel(names=["raw", "c23"]),
            "frame": tfds.features.Scalar(tf.int64),
            "time": tfds.features.Scalar(tf.float32),
            "is_sharp": tfds.features.Scalar(tf.bool),
            "score": tfds.features.Scalar(tf.float32),
            "mask": tfds.features.Scalar(tf.string),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(self._kept(features)),
            metadata=tfds.core.MetadataDict(fingerprint="of the images"),
        )

    def _kept(self, fields):
        return {name: fields[name] for name in fields if name not in self.lacking}

    def _split_generators(self, dl_manager):
        return {
            split: self._generate_examples(split, examples)
            for split, examples in self.images.items()
        }

    def _generate_examples(self, split, examples):
        for index, (name, label, image_bytes) in enumerate(examples):
            fields = {
                "image": image_bytes,
                "image/filename": name,
                "label": label,
                "group": f"group {index}",
                "method": "a, b",
                "compression": "c23",
                "frame": index,
                "time": 0.1,
                "is_sharp": True,
                "score": 0.5,
                "mask": b"\x89PNG",
            }
            yield name, self._kept(fields)


def prepare(data_dir, images, builder_class=LabelledImages):
    """Prepares `{split: [(name, label, bytes)]}` and returns the builder."""
    builder = builder_class(images, data_dir=str(data_dir))
    builder.download_and_prepare()
    return builder


def tree(folder):
    """Returns the bytes of all files in a folder by path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
