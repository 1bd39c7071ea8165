"""Checkpoints of a run: everything that the next step depends on, by name.

They are TensorFlow tensor bundles (`tf.train.load_checkpoint` reads them), written by a
thread while training goes on. A bundle's index is renamed into place last, so that a
process that is killed leaves whole checkpoints and no others.
"""

import os
import re
import threading
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

_PATTERN = re.compile(r"step_(\d+)\.index")


class Checkpoints:
    """The newest checkpoints of a folder.

    Args:
        folder: Where they lie.
        keep: How many to keep.
    """

    def __init__(self, folder: str, keep: int) -> None:
        self._folder = folder
        self._keep = keep
        self._writer: threading.Thread | None = None
        self._failure: Exception | None = None

    def steps(self) -> list[int]:
        """The steps of the checkpoints there are, in order."""
        if not tf.io.gfile.isdir(self._folder):
            return []
        matches = map(_PATTERN.fullmatch, tf.io.gfile.listdir(self._folder))
        return sorted(int(match[1]) for match in matches if match)

    def save(self, step: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Starts to write a checkpoint, after the one before is written.

        Raises:
            OSError: The one before could not be written.
        """
        self.wait()
        self._writer = threading.Thread(target=self._write, args=(step, dict(arrays)))
        self._writer.start()

    def wait(self) -> None:
        """Waits until the checkpoint that `save` began is written.

        Raises:
            OSError: It could not be written.
        """
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise OSError(
                f"A checkpoint cannot be written to {self._folder}: {failure}"
            )

    def restore(self, wanted: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
        """Reads the newest checkpoint.

        Args:
            wanted: Shapes by name.

        Returns:
            Arrays by name; empty when there is no checkpoint.

        Raises:
            ValueError: It is one of another model or optimiser.
        """
        steps = self.steps()
        if not steps:
            return {}
        path = self._path(steps[-1])
        reader = tf.train.load_checkpoint(path)
        found = {
            name: tuple(shape)
            for name, shape in reader.get_variable_to_shape_map().items()
        }
        differing = sorted(
            name for name in {*wanted, *found} if wanted.get(name) != found.get(name)
        )
        if differing:
            name = differing[0]
            raise ValueError(
                f"{path} is not a checkpoint of this run: {len(differing)} of "
                f"{len(wanted)} entries differ, such as {name}: wanted "
                f"{wanted.get(name, 'none')}, got {found.get(name, 'none')}. Choose "
                "another model_dir, or the flags of the run that wrote it."
            )
        return {name: reader.get_tensor(name) for name in wanted}

    def _path(self, step: int) -> str:
        return os.path.join(self._folder, f"step_{step:08d}")

    def _write(self, step: int, arrays: dict[str, np.ndarray]) -> None:
        try:
            tf.io.gfile.makedirs(self._folder)
            tf.raw_ops.SaveV2(
                prefix=self._path(step),
                tensor_names=list(arrays),
                shape_and_slices=[""] * len(arrays),
                tensors=[tf.constant(array) for array in arrays.values()],
            )
            for old in self.steps()[: -self._keep]:
                # The index first: without it the rest is no checkpoint.
                for ending in (".index", ".data-00000-of-00001"):
                    tf.io.gfile.remove(self._path(old) + ending)
        except (OSError, tf.errors.OpError) as error:
            self._failure = error
