"""TFDS's own test of a builder, for each of ours, over drawn folders."""

import pathlib
import tempfile

import tensorflow_datasets as tfds

from building_support import (
    builder_class,
    draw_deepfake_challenge,
    draw_faceforensics,
    draw_hollywood_heads,
    draw_labeled_faces,
    draw_labeled_heads,
    prepare,
)


class _Case(tfds.testing.DatasetBuilderTestCase):
    # Builders are loaded by their path, from no registry.
    test_registered = None

    @classmethod
    def setUpClass(cls):
        cls._folder = tempfile.TemporaryDirectory()
        cls.EXAMPLE_DIR = pathlib.Path(cls._folder.name) / "manual"
        cls.draw(cls.EXAMPLE_DIR)
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        cls._folder.cleanup()


class HollywoodHeadsTest(_Case):
    DATASET_CLASS = builder_class("hollywood_heads")
    SPLITS = {"train": 3, "validation": 1, "test": 1}
    draw = staticmethod(draw_hollywood_heads)


def _draw_labeled_heads(root):
    draw_labeled_heads(root)
    # TFDS itself cannot decode a WebP file; dfdetect.data.prepared can.
    (root / "JPEGImages/c.webp").write_bytes(
        (root / "JPEGImages/d.bmp").read_bytes(),
    )


class LabeledHeadsTest(_Case):
    DATASET_CLASS = builder_class("labeled_heads")
    # Any name will do, but there must be one.
    BUILDER_CONFIG_NAMES_TO_TEST = [tfds.core.BuilderConfig(name="mine")]
    SPLITS = {"train": 4, "validation": 1}
    draw = staticmethod(_draw_labeled_heads)

    def _make_builder(self, config=None):
        return super()._make_builder(config or self.BUILDER_CONFIG_NAMES_TO_TEST[0])


def _draw_labeled_faces(root):
    draw_labeled_faces(root)
    # TFDS itself cannot decode a WebP file; dfdetect.data.prepared can.
    (root / "d.webp").write_bytes((root / "c.bmp").read_bytes())


class LabeledFacesTest(_Case):
    DATASET_CLASS = builder_class("labeled_faces")
    SPLITS = {"train": 2, "validation": 3, "test": 1}
    draw = staticmethod(_draw_labeled_faces)


class DeepfakeChallengeTest(_Case):
    DATASET_CLASS = builder_class("deepfake_challenge")
    SPLITS = {"train": 48, "validation": 5, "test": 7}
    draw = staticmethod(draw_deepfake_challenge)


class FaceForensicsTest(_Case):
    DATASET_CLASS = builder_class("faceforensics")
    BUILDER_CONFIG_NAMES_TO_TEST = ["c23"]
    # Clips of 10 frames and one of 3: all of them.
    SPLITS = {"train": 40, "validation": 13, "test": 20}
    draw = staticmethod(draw_faceforensics)


def _draw_cvcs(root):
    challenge = builder_class("deepfake_challenge")
    draw_deepfake_challenge(root / "source")
    prepare(challenge(data_dir=root), root / "source")


class CvcsTest(_Case):
    DATASET_CLASS = builder_class("cvcs")
    BUILDER_CONFIG_NAMES_TO_TEST = ["full"]
    SPLITS = DeepfakeChallengeTest.SPLITS
    draw = staticmethod(_draw_cvcs)


del _Case  # It is not a test by itself.
