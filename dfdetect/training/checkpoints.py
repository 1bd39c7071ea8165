"""Checkpoints of a run: everything that the next step depends on, by name.

A thread writes them while training continues. A bundle's index is renamed into place
last, so that a killed process leaves complete checkpoints only. Plain tensor bundles,
not `tf.train.Checkpoint`: names and shapes are checked, and arrays read, before any
variable is touched.
"""

import json
import logging
import re
import shutil
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from dfdetect import files
from dfdetect.models import kept_steps

_log = logging.getLogger(__name__)

# Leftovers of a killed save: TensorFlow writes aside and renames.
_LEFTOVER = re.compile(r"step_\d+\..*tempstate\d+")
_DATA = re.compile(r"(step_\d+)\.data-\d+-of-\d+")

_DAMAGED = "damaged_"  # Prefix of damaged bundles that are set aside.


class Checkpoints:
    """The newest checkpoints of a folder.

    Args:
        folder: Folder of the checkpoints.
        keep: Number of checkpoints to keep.
    """

    def __init__(self, folder: str, keep: int) -> None:
        self._folder = folder
        self._keep = keep
        self._writer: threading.Thread | None = None
        self._failure: Exception | None = None

    def steps(self) -> list[int]:
        """Lists the steps of the checkpoints in order."""
        return kept_steps.list_steps(self._folder)

    def save(self, step: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Starts to write a checkpoint after the previous one is written.

        Raises:
            OSError: The previous one could not be written, or the disk is full.
        """
        self.wait()
        self._check_space(sum(array.nbytes for array in arrays.values()))
        self._writer = threading.Thread(target=self._write, args=(step, dict(arrays)))
        self._writer.start()

    def describe(self, step: int, manifest: Mapping[str, Any]) -> None:
        """Writes the manifest of a checkpoint's weights next to it."""
        path = self._path(step) + kept_steps.MANIFEST_ENDING
        files.write(path, (json.dumps(manifest, indent=2) + "\n").encode())

    def wait(self) -> None:
        """Waits until the checkpoint that `save` began is written.

        Raises:
            OSError: It could not be written.
        """
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        self.check()

    def check(self) -> None:
        """Raises if a checkpoint could not be written, without waiting for one.

        Raises:
            OSError: The latest one could not be written.
        """
        if self._failure is not None:
            failure, self._failure = self._failure, None
            reason = failure.message if isinstance(failure, tf.errors.OpError) else ""
            reason = (reason or str(failure)).splitlines()[0]
            raise OSError(
                f"A checkpoint cannot be written to {self._folder}: {reason}. "
                f"{self._describe_kept()}"
            ) from failure

    def restore(
        self, wanted: Mapping[str, tuple[int, ...]], optional: tuple[str, ...] = ()
    ) -> tuple[int, dict[str, np.ndarray]]:
        """Reads the newest checkpoint that is not damaged.

        Newer, damaged ones are renamed, so that they no longer count, and leftovers of
        killed saves are removed.

        Args:
            wanted: Shapes by name.
            optional: Names beyond `wanted` that may be present.

        Returns:
            The step and arrays by name; 0 and no arrays without a checkpoint.

        Raises:
            ValueError: It is of another model or optimizer, or all are damaged.
        """
        self._remove_leftovers()
        steps = self.steps()
        damage = []
        for step in reversed(steps):
            path = self._path(step)
            try:
                found = kept_steps.read_shapes(path)
                further = [name for name in optional if name in found]
                self._check_shapes(path, wanted, found, optional)
                arrays = kept_steps.read(path, [*wanted, *further])
            except _OtherRunError:
                raise
            except ValueError as error:
                damage.append((step, str(error)))
                continue
            for number, message in damage:
                self._set_aside(number)
                _log.warning("%s Continues from step %d instead.", message, step)
            return step, arrays
        if damage:
            raise ValueError(
                f"No checkpoint in {self._folder} can be read: {damage[0][1]} Remove "
                "the folder to start again, or choose another model_dir."
            )
        return 0, {}

    def _check_shapes(
        self,
        path: str,
        wanted: Mapping[str, tuple[int, ...]],
        found: Mapping[str, tuple[int, ...]],
        optional: tuple[str, ...],
    ) -> None:
        names = ({*wanted} | {*found}) - {*optional}
        differing = sorted(n for n in names if wanted.get(n) != found.get(n))
        if differing:
            name = differing[0]
            raise _OtherRunError(
                f"{path} is not a checkpoint of this run: {len(differing)} of "
                f"{len(wanted)} entries differ, such as {name}: wanted "
                f"{wanted.get(name, 'none')}, got {found.get(name, 'none')}. Choose "
                "another model_dir, or the flags of the run that wrote it."
            )

    def _path(self, step: int) -> str:
        return kept_steps.bundle_path(self._folder, step)

    def _describe_kept(self) -> str:
        steps = self.steps()
        kept = f"step {steps[-1]} is kept" if steps else "no step is kept"
        return f"{kept.capitalize()}; fix that and start the same command again"

    def _check_space(self, size: int) -> None:
        """Raises if the disk is full before the write; not if that is unknown."""
        try:
            tf.io.gfile.makedirs(self._folder)
            free = shutil.disk_usage(self._folder).free
        except (OSError, tf.errors.OpError):
            return
        if free < size:
            raise OSError(
                f"A checkpoint cannot be written to {self._folder}: it takes "
                f"{size / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free. "
                f"{self._describe_kept()}"
            )

    def _remove_leftovers(self) -> None:
        if not tf.io.gfile.isdir(self._folder):
            return
        names = tf.io.gfile.listdir(self._folder)
        for name in names:
            data = _DATA.fullmatch(name)
            # The index is written last.
            alone = data is not None and f"{data[1]}.index" not in names
            if alone:
                _log.warning("%s/%s has no index and is removed", self._folder, name)
            if alone or _LEFTOVER.fullmatch(name):
                tf.io.gfile.remove(f"{self._folder}/{name}")

    def _set_aside(self, step: int) -> None:
        base = f"{self._folder}/{_DAMAGED}step_{step:08d}"
        for ending in (*kept_steps.ENDINGS, kept_steps.MANIFEST_ENDING):
            if tf.io.gfile.exists(self._path(step) + ending):
                tf.io.gfile.rename(self._path(step) + ending, base + ending, True)

    def _remove(self, step: int) -> None:
        # The index first: without it the rest is not a checkpoint.
        for ending in (*kept_steps.ENDINGS, kept_steps.MANIFEST_ENDING):
            if tf.io.gfile.exists(self._path(step) + ending):
                tf.io.gfile.remove(self._path(step) + ending)

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
                self._remove(old)
        except (OSError, tf.errors.OpError) as error:
            self._failure = error
            try:
                self._remove_leftovers()
            except (OSError, tf.errors.OpError):
                _log.debug("", exc_info=True)


class _OtherRunError(ValueError):
    """A checkpoint is sound, but of another run."""
