"""Answers of the graph to labeled images, beside those to their given heads."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dfdetect import console
from dfdetect import labels as label_names
from dfdetect.data import given_heads, prepared
from dfdetect.evaluation import figures
from dfdetect.evaluation.evaluation_set import EvaluatedSet
from dfdetect.iterators import batched
from dfdetect.media import decode, image_extents, image_status
from dfdetect.metrics import calibration
from dfdetect.pipeline import head_detection, interfaces

_SOURCE_FIELDS = ("source", "method")  # In the order of preference.


@dataclasses.dataclass(frozen=True)
class Answers:
    """N images of one or more data sets, whole and by their given heads.

    Attributes:
        filenames: `[N]`.
        labels: `[N]` of `dfdetect.labels`.
        groups: `[N]`, what must be drawn together, see `metrics.bootstrap`.
        datasets: `[N]`, names of the data sets.
        sources: `[N]`, the field `source` or `method` of the record, else the data set.
        given_counts: int `[N]`, heads that the record says there are, or
            `given_heads.UNKNOWN`.
        given_shares: `[N]`, that of the most suspicious given head, see `head_shares`;
            NaN where the record has no box.
        statuses: `[N]` of `image_status.STATUS_NAMES`, of the whole image.
        num_heads: int `[N]`, heads found.
        head_shares: `[N]` in [0, 1], the longer side of the head that decides over that
            of the image: the most suspicious one, or the best found where none is
            judged. NaN without a head.
        probabilities: `[N]`, of the whole image; NaN without a judged head.
        crop_probabilities: `[N]`, the highest of the given heads; NaN where the image
            cannot be read.
    """

    filenames: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    datasets: np.ndarray
    sources: np.ndarray
    given_counts: np.ndarray
    given_shares: np.ndarray
    statuses: np.ndarray
    num_heads: np.ndarray
    head_shares: np.ndarray
    probabilities: np.ndarray
    crop_probabilities: np.ndarray

    def take(self, wanted: np.ndarray) -> "Answers":
        """Returns the answers to some images, by a bool mask `[N]` or places."""
        return Answers(**{name: column[wanted] for name, column in vars(self).items()})

    @property
    def answered(self) -> np.ndarray:
        """Whether each whole image has a probability, bool `[N]`."""
        return ~np.isnan(self.probabilities)

    def verdicts(self, thresholds: calibration.Thresholds) -> np.ndarray:
        """`[N]`, the verdict on the whole image, or its status without one."""
        found = _verdicts(self.probabilities, thresholds)
        return np.where(self.answered, found, self.statuses)

    def crop_verdicts(self, thresholds: calibration.Thresholds) -> np.ndarray:
        """`[N]`, the verdict on the given heads, or `unreadable`."""
        found = _verdicts(self.crop_probabilities, thresholds)
        unreadable = image_status.STATUS_NAMES[image_status.UNREADABLE]
        return np.where(np.isnan(self.crop_probabilities), unreadable, found)

    def to_csv(
        self, thresholds: calibration.Thresholds, leaky_split: bool = False
    ) -> bytes:
        """A table with a row for each image; it says so where a split leaks."""
        counts = self.given_counts.tolist()
        columns = {
            "dataset": self.datasets,
            "image/filename": self.filenames,
            "label": np.array(label_names.NAMES)[self.labels],
            "group": self.groups,
            "source": self.sources,
            "num_heads": self.num_heads,
            "fake_probability": _numbers(self.probabilities),
            "verdict": self.verdicts(thresholds),
            "head_share": _numbers(self.head_shares),
            "given_heads": ["" if n == given_heads.UNKNOWN else n for n in counts],
            "given_head_share": _numbers(self.given_shares),
            "crop_probability": _numbers(self.crop_probabilities),
            "crop_verdict": self.crop_verdicts(thresholds),
        }
        return figures.to_csv(columns, leaky_split)


def concatenate(parts: Sequence[Answers]) -> Answers:
    """Joins the images of several data sets; groups of two sets stay apart."""
    named = [
        dataclasses.replace(
            part,
            groups=np.array(
                [f"{d}: {g}" for d, g in zip(part.datasets, part.groups, strict=True)]
            ),
        )
        for part in parts
    ]
    columns = [field.name for field in dataclasses.fields(Answers)]
    return Answers(
        **{name: np.concatenate([getattr(p, name) for p in named]) for name in columns}
    )


def judge_set(
    graph: interfaces.Pipeline,
    judged: EvaluatedSet,
    say: Callable[[str], None],
    batch_size: int = 16,
) -> Answers:
    """Runs the graph over the images of a split, and over their given heads.

    A given head is cut out as the graph cuts those that it finds; an image without a
    box of its own is the crop itself.

    Args:
        graph: See `graph_cache.load`.
        judged: The split and what is known of it.
        say: Prints a line.
        batch_size: Images at once.
    """
    survey = judged.survey
    dataset = "/".join(
        filter(None, (judged.builder.info.name, judged.builder.info.config_name))
    )
    field = next((name for name in _SOURCE_FIELDS if name in survey.fields), None)
    same = np.full(len(survey.filenames), dataset)
    rows: list[dict[str, Any]] = []
    with console.Progress(len(survey.filenames), say, noun="image") as shown:
        for batch in batched(_examples(judged), batch_size):
            found = _judge_batch(graph, batch)
            rows += found
            for row in found:
                shown.count("judged" if row["statuses"] == "ok" else row["statuses"])
    return Answers(
        filenames=np.array(survey.filenames),
        labels=survey.truths,
        groups=survey.groups,
        datasets=same,
        sources=survey.fields[field].astype(str) if field else same,
        **{name: np.array([row[name] for row in rows]) for name in rows[0]},
    )


def _examples(
    judged: EvaluatedSet,
) -> Iterator[tuple[bytes, given_heads.GivenHeads]]:
    """The file of each image and its given heads, in the order of the survey."""
    reader = given_heads.GivenHeadReader(judged.builder)
    wanted = ["image", "image/filename", *reader.fields]
    examples = prepared.read_chosen(judged.builder, judged.split, judged.wanted)
    examples = examples.map(lambda example: {name: example[name] for name in wanted})
    names = judged.survey.filenames
    for name, example in zip(names, examples.as_numpy_iterator(), strict=True):
        assert example["image/filename"].decode(errors="replace") == name
        yield example["image"], reader.read(example)


def _judge_batch(
    graph: interfaces.Pipeline, batch: Sequence[tuple[bytes, given_heads.GivenHeads]]
) -> list[dict[str, Any]]:
    """The columns of `Answers` that a graph has a say in, a row for each image."""
    contents = [content for content, _ in batch]
    outputs = graph.detect(tf.constant(contents, tf.string))
    found = {name: value.numpy() for name, value in outputs.items()}
    extents = image_extents.read_upright_extents(contents)
    of_crops = _judge_given(graph, batch)
    rows = []
    for i, (_, given) in enumerate(batch):
        probabilities = of_crops[i]
        num_heads = int(found["num_heads"][i])
        heads_found = found["boxes"][i, :num_heads]
        judged = np.nan_to_num(found["fake_probabilities"][i, :num_heads], nan=-1.0)
        share = given_share = np.nan
        if num_heads:
            share = _share(heads_found[np.argmax(judged)], extents[i])
        if len(given.boxes) and not np.isnan(probabilities).all():
            given_share = _share(given.boxes[np.nanargmax(probabilities)], extents[i])
        rows.append(
            {
                "given_counts": given.count,
                "given_shares": given_share,
                "statuses": image_status.STATUS_NAMES[found["status"][i]],
                "num_heads": num_heads,
                "head_shares": share,
                "probabilities": float(found["fake_probability"][i]),
                "crop_probabilities": float(probabilities.max()),
            }
        )
    return rows


def _judge_given(
    graph: interfaces.Pipeline, batch: Sequence[tuple[bytes, given_heads.GivenHeads]]
) -> list[np.ndarray]:
    """The fake probabilities of the given heads of each image, at least one."""
    margin = graph.manifest["classifier"]["crop_margin"]
    crops: list[list[bytes]] = []
    for content, given in batch:
        cut = [content]
        if len(given.boxes):
            try:
                image = decode.decode_image(tf.constant(content)).numpy()
                cut = head_detection.encode_crops(image, given.boxes, margin)[1]
            except tf.errors.InvalidArgumentError:
                pass  # The graph tells of the file itself that it cannot be read.
        crops.append(cut)
    joined = tf.constant([crop for cut in crops for crop in cut], tf.string)
    probabilities = graph.classify_crops(joined)["fake_probability"].numpy()
    return np.split(probabilities, np.cumsum([len(cut) for cut in crops])[:-1])


def _share(box: np.ndarray, extent: np.ndarray) -> float:
    """The longer side of a box over that of its image."""
    sides = (box[2:] - box[:2]) * extent
    return float(sides.max() / max(extent.max(), 1))


def _verdicts(
    probabilities: np.ndarray, thresholds: calibration.Thresholds
) -> np.ndarray:
    found = [calibration.decide_verdict(x, thresholds) for x in probabilities.tolist()]
    return np.array([verdict or "" for verdict in found])


def _numbers(values: np.ndarray) -> list[str]:
    """With six digits; empty for NaN."""
    return ["" if np.isnan(value) else f"{value:.6g}" for value in values]
