"""Clips of a prepared data set of frames: which records they are, and their images.

A record is a frame where it has the field `frame`, its number in its video; `time`, in
seconds, says when it is shown, else its number counts as seconds. Which records are of
one video is told by `predictions.name_videos`.
"""

import dataclasses
from collections.abc import Iterator

import cv2
import numpy as np
import tensorflow as tf

from dfdetect.data import record_index
from dfdetect.evaluation import predictions
from dfdetect.evaluation.clip_evaluation import LabeledClip
from dfdetect.evaluation.evaluation_set import EvaluatedSet
from dfdetect.media import decode, shots, video


@dataclasses.dataclass(frozen=True)
class FrameClip(LabeledClip):
    """A video of a data set; its `path` is its name.

    Attributes:
        places: Places of its records in the split, in the order of the frames.
        numbers: Numbers of the frames in the video.
        times: Times of the frames in seconds, ascending.
    """

    places: tuple[int, ...]
    numbers: tuple[int, ...]
    times: tuple[float, ...]


def find_clips(judged: EvaluatedSet) -> list[FrameClip]:
    """Finds the clips of a split, in the order of their first records.

    Raises:
        ValueError: The data set holds no frames.
    """
    survey = judged.survey
    name = judged.builder.info.full_name
    # -1 marks records that are not frames.
    if np.all(survey.fields.get("frame", -1) < 0):
        raise ValueError(
            f"{name} holds no frames of clips: its records have no field `frame`."
        )
    numbers = survey.fields["frame"].astype(np.int64)
    times = survey.fields.get("time", numbers).astype(np.float64)
    # The survey has the wanted records alone, an index all of them.
    places = np.flatnonzero(judged.wanted)
    videos = predictions.name_videos(survey)
    clips = []
    for one in dict.fromkeys(videos.tolist()):
        rows = np.flatnonzero(videos == one)
        rows = rows[np.argsort(times[rows], kind="stable")]
        clips.append(
            FrameClip(
                path=one,
                name=one,
                label=int(survey.truths[rows[0]]),
                group=str(survey.groups[rows[0]]),
                places=tuple(places[rows].tolist()),
                numbers=tuple(numbers[rows].tolist()),
                times=tuple(times[rows].tolist()),
            )
        )
    return clips


class FrameReader:
    """Reads the frames of clips, one at a time.

    Args:
        judged: The split that they are of.
        sampling: Which of the frames that are there; as of a clip that has no others.
    """

    def __init__(self, judged: EvaluatedSet, sampling: video.Sampling) -> None:
        self._index = record_index.RecordIndex(judged.builder, judged.split)
        self._sampling = sampling

    def frames(self, clip: FrameClip) -> Iterator[video.Frame]:
        """Yields the frames of a clip in their order; those damaged are left out."""
        shot_counter = shots.ShotCounter()
        for i in self._wanted(clip):
            record = self._index.read(clip.places[i])
            features = tf.train.Example.FromString(record).features.feature
            try:
                image = decode.decode_image(features["image"].bytes_list.value[0])
            except tf.errors.InvalidArgumentError:
                continue
            pixels = image.numpy()
            shot = shot_counter.add(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
            yield video.Frame(clip.numbers[i], clip.times[i], pixels, shot)

    def _wanted(self, clip: FrameClip) -> list[int]:
        if self._sampling.every is None:
            return video.bin_centers(len(clip.places), self._sampling.count)
        wanted, next_time = [], clip.times[0]
        for i, time in enumerate(clip.times):
            if time >= next_time:
                wanted.append(i)
                next_time = time + self._sampling.every
        return wanted
