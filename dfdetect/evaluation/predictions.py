"""Predictions of a classifier for the images of a split, and what is known of them."""

import dataclasses

import numpy as np

from dfdetect import labels as label_names
from dfdetect.data.given_heads import SIDES
from dfdetect.evaluation import figures
from dfdetect.evaluation.audit import metadata_baseline
from dfdetect.evaluation.audit.survey import Survey

# Names of a clip, in the order of preference.
_VIDEO_FIELDS = ("video", "clip")
# What tells videos of one group apart where no field names them.
_TELLING_FIELDS = (
    "dataset",
    "source",
    "method",
    "compression",
    "target_id",
    "source_id",
)


@dataclasses.dataclass(frozen=True)
class Predictions:
    """N images, or N videos, with the probabilities of one model.

    Attributes:
        filenames: `[N]`; of a video, that of its first image.
        labels: `[N]`, see `labels`.
        logits: `[N]`; NaN where there are none, as for a baseline or a video.
        probabilities: `[N]`, calibrated fake probabilities.
        groups: `[N]`, what must be drawn together, see `metrics.bootstrap`.
        videos: `[N]`, the clip that each belongs to, see `name_videos`.
        sizes: `[N]`, see `measure_head_sizes`.
        fields: `[N]` each, further scalars of the records.
    """

    filenames: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    probabilities: np.ndarray
    groups: np.ndarray
    videos: np.ndarray
    sizes: np.ndarray
    fields: dict[str, np.ndarray]

    def take(self, wanted: np.ndarray) -> "Predictions":
        """Returns the predictions of some images, by a bool mask `[N]` or places."""
        columns = {
            field.name: getattr(self, field.name)[wanted]
            for field in dataclasses.fields(self)
            if field.name != "fields"
        }
        fields = {name: values[wanted] for name, values in self.fields.items()}
        return Predictions(**columns, fields=fields)

    def by_video(self) -> "Predictions":
        """Averages the probabilities of the images of each video."""
        _, first, video_of, counts = np.unique(
            self.videos, return_index=True, return_inverse=True, return_counts=True
        )
        means = np.bincount(video_of, self.probabilities, len(first)) / counts
        return dataclasses.replace(
            self.take(first),
            probabilities=np.clip(means, 0, 1),
            logits=np.full(len(first), np.nan),
        )

    def to_csv(self, leaky_split: bool = False) -> bytes:
        """Writes a table with a row for each image; tells if the split leaks."""
        columns = {
            "image/filename": self.filenames,
            "label": np.array(label_names.NAMES)[self.labels],
            "fake_probability": [f"{value:.6g}" for value in self.probabilities],
            "logit": [f"{value:.6g}" for value in self.logits],
            "group": self.groups,
            "video": self.videos,
            **{n: v for n, v in self.fields.items() if n != "video"},
        }
        return figures.to_csv(columns, leaky_split)


def join_survey(survey: Survey, probabilities: np.ndarray) -> Predictions:
    """Joins probabilities `[N]` with what a survey knows of the same N images."""
    assert len(probabilities) == len(survey.truths)
    return Predictions(
        filenames=np.array(survey.filenames),
        labels=survey.truths,
        logits=np.full(len(probabilities), np.nan),
        probabilities=probabilities,
        groups=survey.groups,
        videos=name_videos(survey),
        sizes=measure_head_sizes(survey),
        fields=survey.fields,
    )


def name_videos(survey: Survey) -> np.ndarray:
    """Names the video that each image is a frame of, `[N]`.

    The field `video` or `clip` where it says one. Else images are of one video when
    they share the group, the label (a real video and its fake are two), every field
    that names a source or a method, and, where a file is named by the number of its
    frame, the folder.
    """
    for name in _VIDEO_FIELDS:
        if name in survey.fields:
            named = survey.fields[name].astype(str)
            if not (named != "").all():
                named = np.where(named == "", _videos_by_fields(survey), named)
            return (
                named if survey.truths is None else _part_labels(named, survey.truths)
            )
    return _videos_by_fields(survey)


def _part_labels(named: np.ndarray, truths: np.ndarray) -> np.ndarray:
    """Parts videos of one name, a real one and a fake, by their labels."""
    real, fake = (
        set(named[truths == label]) for label in (label_names.REAL, label_names.FAKE)
    )
    both = real & fake
    return np.array(
        [
            f"{label_names.NAMES[truth]}/{name}" if name in both else name
            for name, truth in zip(named, truths, strict=True)
        ]
    )


def _videos_by_fields(survey: Survey) -> np.ndarray:
    columns = [survey.groups, np.array(label_names.NAMES)[survey.truths]]
    columns += [
        survey.fields[name].astype(str)
        for name in _TELLING_FIELDS
        if len(np.unique(survey.fields.get(name, []))) > 1
    ]
    if "frame" in survey.fields:
        folders = np.array([_frame_folder(name) for name in survey.filenames])
        columns.append(np.where(survey.fields["frame"] < 0, "", folders))
    rows = zip(*columns, strict=True)
    return np.array(["/".join(filter(None, row)) for row in rows], str)


def measure_head_sizes(survey: Survey) -> np.ndarray:
    """Measures the roots of the heads' areas in pixels, `[N]`.

    A head is measured by its box if the record has one; else the image is the head,
    without the margin of a crop.
    """
    width, height = (
        survey.features[:, metadata_baseline.FEATURES.index(name)]
        for name in ("width", "height")
    )
    if "margin" not in survey.fields and set(SIDES) <= set(survey.fields):
        boxes = np.stack([survey.fields[side] for side in SIDES], axis=1)
        boxes = np.clip(np.nan_to_num(boxes.astype(np.float64)), 0, 1)
        shares = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None)
        has_box = shares.all(1)
        height = np.where(has_box, shares[:, 0], 1) * height
        width = np.where(has_box, shares[:, 1], 1) * width
    margins = np.asarray(survey.fields.get("margin", 1.0), np.float64)
    return np.sqrt(width.astype(np.float64) * height) / np.where(
        margins > 0, margins, 1.0
    )


def _frame_folder(filename: str) -> str:
    """`Deepfakes/071_054/000012.png` -> `Deepfakes/071_054`; else empty."""
    folder, _, name = filename.rpartition("/")
    return folder if name.partition(".")[0].isdigit() else ""
