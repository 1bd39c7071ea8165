"""Writes copies of suspicious images and clips with marks, and crops of their heads."""

import logging
import os
import pathlib
import tempfile

import numpy as np

from dfdetect import files
from dfdetect.corpora import accounts, copy_paths, file_access, shards
from dfdetect.media import drawing, video
from dfdetect.metrics import calibration
from dfdetect.pipeline import findings, result_lines
from dfdetect.reports import clip_copies, image_copies

_log = logging.getLogger("dfdetect")


class CopyWriter:
    """Writes copies and crops into a folder for each shard.

    A file's copies begin with its name and a digest of its path, so that they are the
    same in each run and differ from those of all other files.

    Args:
        folder: Folder of all copies; may be a URL.
        thresholds: See `calibration.decide_verdict`.
        margin: Crop margin of heads, see `boxes.crop_regions`.
        write_all: Whether to write copies of all files with heads; else of those whose
            verdict is "fake" or "uncertain".
    """

    def __init__(
        self,
        folder: str,
        thresholds: calibration.Thresholds,
        *,
        margin: float | None,
        write_all: bool,
    ) -> None:
        self._folder = folder
        self._thresholds = thresholds
        self._margin = margin
        self._write_all = write_all

    def write(
        self,
        shard: shards.Shard,
        finding: findings.Finding,
        account: accounts.Account,
    ) -> None:
        """Writes what is wanted of one file; counts it, and what could not be written.

        Args:
            shard: The shard of the file.
            finding: What was found in it.
            account: Counts the file.
        """
        result = finding.result
        if not copy_paths.is_wanted(result, self._write_all):
            return
        stem = copy_paths.name_stem(self._folder, shard, result["path"])
        try:
            if finding.source.is_clip:
                self._write_clip(stem, result)
            else:
                self._write_image(stem, finding)
        except (OSError, ValueError) as error:
            reason = (
                files.describe_error(error) if isinstance(error, OSError) else error
            )
            _log.warning("%r: no copy is written: %s", result["path"], reason)
            account.tables["files"]["copies_lost"] += 1
        else:
            account.tables["files"]["copies"] += 1

    def _write_image(self, stem: str, finding: findings.Finding) -> None:
        self._write_crops(stem, finding.image, finding.result["heads"])
        # Last, as it says that the others are there.
        file_access.write(f"{stem}.png", image_copies.draw_copy(finding))

    def _write_clip(self, stem: str, result: result_lines.ResultLine) -> None:
        with (
            file_access.open_local(result["path"]) as local,
            tempfile.TemporaryDirectory(prefix="dfdetect-") as work,
        ):
            copy = os.path.join(work, "copy.mp4")
            clip_copies.write_copy(local, result, copy)
            chart = drawing.encode_figure(
                clip_copies.draw_chart(result, self._thresholds)
            )
            file_access.write(f"{stem}.mp4.png", chart)
            heads_by_frame: dict[int, list[result_lines.Head]] = {}
            indices = {frame["time"]: frame["index"] for frame in result["frames"]}
            for head in result["heads"]:
                heads_by_frame.setdefault(indices[head["time"]], []).append(head)
            for frame in video.read_frames(local, sorted(heads_by_frame)):
                heads = heads_by_frame[frame.index]
                self._write_crops(f"{stem}-frame{frame.index}", frame.image, heads)
            # Last, as it says that the others are there.
            file_access.write(f"{stem}.mp4", pathlib.Path(copy).read_bytes())

    def _write_crops(
        self, stem: str, image: np.ndarray, heads: list[result_lines.Head]
    ) -> None:
        for place, crop in image_copies.crop_suspicious(
            image, heads, self._thresholds, self._margin
        ):
            content = drawing.encode_image(crop, ".png")
            file_access.write(f"{stem}-head{place}.png", content)
