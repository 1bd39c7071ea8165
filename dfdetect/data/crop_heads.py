"""Cuts every head out of the images of a prepared data set.

The folder that it makes holds

* `heads/<split>/...png`: one lossless RGB file a head, the square of
  `boxes.square_crops` as it stands in the upright original, not resized.
  `resize.resize` makes of it what `resize.crop_heads` makes of the original.
* `heads.csv`, one row a head: the columns of `HEAD_COLUMNS`, then those of
  `name_field_columns`.
    - `path` of the crop, from the folder on, with `/`;
    - `label` 0 or 1 (see `labels`), `split` ("train", "validation", "test"), `group`
      and `image/filename` of the image's record;
    - `head`: the head's place among those found in its image, 0 the best score;
    - `ymin`, `xmin`, `ymax`, `xmax`: the detector's box (see `boxes`), relative to the
      upright original and without margin;
    - `score` of the detector, and the `margin` of the crop (see `boxes.square_crops`);
    - each further scalar of the record under its name, or under `image/` and its name
      where that is taken: numbers as they are, flags 0 or 1, classes and texts in
      words.
* `no_head.csv`, one row an image without a crop: the columns of `MISS_COLUMNS`.
  `reason` is one of `image_status.STATUS_NAMES`: `no_head`, `unreadable`, `too_large`
  or `head_too_small`.
* `crops.json`: the settings, among them the detector's manifest, the digest of its
  weights and the data set's name, version and fingerprint; the counts by split and
  label; the versions of the libraries.

The tables are in the order of the data set, UTF-8, and quoted as CSV is: a text may
hold line breaks. Numbers read back as float32 are the very boxes and scores.
"""

import dataclasses
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect import console, files, labels, manifest, resumable
from dfdetect.data import prepared, records
from dfdetect.media import image_status
from dfdetect.models import model_directory, weights
from dfdetect.pipeline import (
    chunking,
    detector_settings,
    head_detection,
    image_batch,
)

HEADS, MISSES, SUMMARY = "heads.csv", "no_head.csv", "crops.json"
HEAD_COLUMNS = (
    "path",
    "label",
    "split",
    "group",
    "image/filename",
    "head",
    "ymin",
    "xmin",
    "ymax",
    "xmax",
    "score",
    "margin",
)
MISS_COLUMNS = ("image/filename", "split", "label", "group", "reason")


def name_field_columns(fields: Iterable[str]) -> list[str]:
    """Names the columns of further fields, with `image/` before taken names."""
    columns: list[str] = []
    for name in fields:
        while name in HEAD_COLUMNS or name in columns:
            name = f"image/{name}"
        columns.append(name)
    return columns


def build_head_cutter(
    detector: keras.Model,
    description: dict[str, Any],
    *,
    score_threshold: float,
    margin: float,
    min_size: int = 0,
    batch_size: int = 8,
) -> Callable[[tf.Tensor], chunking.Outputs]:
    """Builds the function that finds and cuts heads in the graph.

    Args:
        detector: See `model_directory.load_detector`.
        description: Its manifest.
        score_threshold: A score must lie above it; the manifest's `max_detections` best
            are taken.
        margin: See `boxes.square_crops`.
        min_size: The least longer side, in pixels of the original, of a head to cut.
        batch_size: Images at once in the detector.

    Returns:
        A function of encoded images, string `[B]`. It gives `status` int32 `[B]`, see
        `images`, and for the R images that are readable: `num_heads` int32 `[R]`;
        `boxes` float32 `[R, N, 4]` of the upright originals, best first; `scores`
        float32 `[R, N]`; `chosen` bool `[R, N]`, whether a head is cut; and `crops`
        string `[K]`, a PNG for each chosen head in order.
    """
    settings = detector_settings.DetectorSettings.from_manifest(
        description, score_threshold=score_threshold
    )
    detect = head_detection.build_detector_function(detector, settings)
    num_boxes = settings.max_detections

    def cut(pixels: tf.Tensor, squares: tf.Tensor) -> chunking.Outputs:
        def encode(square: tf.Tensor) -> tf.Tensor:
            y, x, side = tf.unstack(square)
            return tf.io.encode_png(pixels[y : y + side, x : x + side])

        spec = tf.TensorSpec([], tf.string)
        return {"crops": tf.map_fn(encode, squares, fn_output_signature=spec)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def find_and_cut(image_bytes: tf.Tensor) -> chunking.Outputs:
        read, status = image_batch.read(image_bytes, settings)
        read = read.gather(tf.where(status == image_status.OK))
        found = head_detection.find_heads(detect, read, settings, batch_size)
        is_head = tf.range(num_boxes) < found["num_heads"][:, None]
        chosen = is_head & (found.pop("sides") >= min_size)
        specs = {"crops": tf.TensorSpec([None], tf.string)}
        crops = head_detection.cut_each(
            cut, read, found["boxes"], chosen, margin=margin, specs=specs
        )
        return {"status": status, "chosen": chosen, **found, **crops}

    return find_and_cut


@dataclasses.dataclass(frozen=True)
class CropSettings:
    """Which heads are cut, and how.

    Attributes:
        detector: Model directory.
        score_threshold: Score of a head.
        margin: See `boxes.square_crops`.
        min_size: See `build_head_cutter`.
        batch_size: Images at once.
    """

    detector: str
    score_threshold: float
    margin: float
    min_size: int
    batch_size: int

    @classmethod
    def choose(
        cls,
        builder: tfds.core.DatasetBuilder,
        *,
        detector: str | None = None,
        score_threshold: float | None = None,
        margin: float = 1.3,
        min_size: int = 0,
        batch_size: int = 8,
    ) -> "CropSettings":
        """Fills in what is None; see `crop_heads`.

        Raises:
            ValueError: The data set or the detector cannot be used.
        """
        records.check_labeled(builder)
        detector = detector or os.path.join(model_directory.DEFAULT_WEIGHTS, "detector")
        description = manifest.read(detector, "detector")
        if description["num_classes"] != 1:
            raise ValueError(
                "num_classes of the detector must be 1, heads, "
                f"got {description['num_classes']}."
            )
        if score_threshold is None:
            score_threshold = description["score_threshold"]
        assert score_threshold is not None
        return cls(detector, score_threshold, margin, min_size, batch_size)

    def build_cutter(self) -> Callable[[tf.Tensor], chunking.Outputs]:
        """Loads the detector; see `build_head_cutter`."""
        model, description = model_directory.load_detector(self.detector)
        return build_head_cutter(
            model,
            description,
            score_threshold=self.score_threshold,
            margin=self.margin,
            min_size=self.min_size,
            batch_size=self.batch_size,
        )


def open_output(
    builder: tfds.core.DatasetBuilder, output: str, crop_settings: CropSettings
) -> resumable.Output:
    """Opens the folder of the crops; see `resumable.Output`."""
    detector = crop_settings.detector
    digest = files.sha256(os.path.join(detector, weights.FILE_NAME))
    described = manifest.read(detector, "detector")
    settings = {
        "dataset": prepared.describe_dataset(builder),
        "detector": {"weights_sha256": digest, "manifest": described},
        "score_threshold": crop_settings.score_threshold,
        "margin": crop_settings.margin,
        "min_size": crop_settings.min_size,
    }
    return resumable.Output(output, SUMMARY, settings)


def crop_heads(
    builder: tfds.core.DatasetBuilder,
    output: str,
    *,
    say: Callable[[str], None],
    detector: str | None = None,
    score_threshold: float | None = None,
    margin: float = 1.3,
    min_size: int = 0,
    batch_size: int = 8,
) -> None:
    """Fills `output`, see the module, or resumes a run with the same settings.

    Args:
        builder: A prepared data set of labeled images.
        output: The folder.
        say: Prints a line.
        detector: Model directory; None for the default weights.
        score_threshold: Score of a head; None for that of the detector's manifest.
        margin: See `boxes.square_crops`.
        min_size: See `build_head_cutter`.
        batch_size: Images at once; the only argument that a resumed run may change.

    Raises:
        ValueError: The data set or the detector cannot be used.
        OSError: See `resumable.Output`.
    """
    crop_settings = CropSettings.choose(
        builder,
        detector=detector,
        score_threshold=score_threshold,
        margin=margin,
        min_size=min_size,
        batch_size=batch_size,
    )
    with open_output(builder, output, crop_settings) as folder:
        if folder.finished:
            say(f"{output} is finished already.")
            return
        _cut_all(crop_settings.build_cutter(), builder, folder, batch_size, say)
        write_tables(folder, margin, records.list_further_fields(builder))
        say(f"{output} is finished: see {HEADS}, {MISSES} and {SUMMARY}.")


def _cut_all(
    cutter: Callable[[tf.Tensor], chunking.Outputs],
    builder: tfds.core.DatasetBuilder,
    folder: resumable.Output,
    batch_size: int,
    say: Callable[[str], None],
) -> None:
    """Writes the crops of all images that the journal does not have yet."""
    done: Counter[str] = Counter()
    for step in folder.steps():
        done[step["split"]] += len(step["pictures"])
    splits = builder.info.splits
    total = sum(info.num_examples for info in splits.values())
    with console.Progress(total, say, noun="image", done=done.total()) as shown:
        for split in splits:
            pending = records.read_records(builder, split, done[split])
            # Batches do not cross splits, so that a resumed run makes the same.
            while batch := list(itertools.islice(pending, batch_size)):
                step = cut_batch(cutter, split, batch, folder.write)
                folder.append(step)
                for image in step["pictures"]:
                    shown.count(image["status"])


def cut_batch(
    cutter: Callable[[tf.Tensor], chunking.Outputs],
    split: str,
    batch: list[records.Record],
    write: Callable[[str, bytes], None],
) -> dict[str, Any]:
    """Cuts the heads out of a batch of one split and writes them.

    Args:
        cutter: See `build_head_cutter`.
        split: The split.
        batch: Records.
        write: Writes a crop; its path is relative to the folder of the crops.

    Returns:
        The step that the journal of the folder keeps.
    """
    outputs = cutter(tf.constant([one.image_bytes for one in batch]))
    return {"split": split, "pictures": list(_write_crops(batch, outputs, write))}


def _write_crops(
    batch: list[records.Record],
    outputs: chunking.Outputs,
    write: Callable[[str, bytes], None],
) -> Iterator[dict[str, Any]]:
    """Writes the crops of a batch; yields what the journal keeps of each image."""
    values = {name: value.numpy() for name, value in outputs.items()}
    crops = iter(values["crops"])
    rows = iter(range(len(values["num_heads"])))
    for record, status in zip(batch, values["status"].tolist(), strict=True):
        heads = []
        if status == image_status.OK:
            row = next(rows)
            chosen = values["chosen"][row].nonzero()[0].tolist()
            for head in chosen:
                path = f"heads/{records.build_path_stem(record)}_{head}.png"
                write(path, next(crops))
                numbers = (*values["boxes"][row, head], values["scores"][row, head])
                heads.append([path, head, *map(records.to_shortest_float, numbers)])
            if not heads:
                found = values["num_heads"][row] > 0
                status = image_status.HEAD_TOO_SMALL if found else image_status.NO_HEAD
        yield {
            "filename": record.filename,
            "label": record.label,
            "group": record.group,
            "fields": list(record.fields.values()),
            "status": image_status.STATUS_NAMES[status],
            "heads": heads,
        }


def write_tables(folder: resumable.Output, margin: float, fields: list[str]) -> None:
    """Turns the journal of a folder into the tables and the summary.

    Args:
        folder: The folder, whose journal has all images.
        margin: See `CropSettings`.
        fields: See `records.list_further_fields`.
    """
    counts: dict[str, Any] = {}
    reasons: Counter[str] = Counter()
    with folder.text(HEADS) as file:
        rows = resumable.make_csv_writer(file)
        rows.writerow([*HEAD_COLUMNS, *name_field_columns(fields)])
        for split, image in _journal(folder):
            before = [image["label"], split, image["group"], image["filename"]]
            for path, *head in image["heads"]:
                rows.writerow([path, *before, *head, margin, *image["fields"]])
    with folder.text(MISSES) as file:
        rows = resumable.make_csv_writer(file)
        rows.writerow(MISS_COLUMNS)
        for split, image in _journal(folder):
            name, status = labels.NAMES[image["label"]], image["status"]
            of_split = counts.setdefault(
                split,
                {
                    label: {"pictures": 0, "heads": 0, "without_head": 0}
                    for label in labels.NAMES
                },
            )
            of_split[name]["pictures"] += 1
            of_split[name]["heads"] += len(image["heads"])
            of_split[name]["without_head"] += not image["heads"]
            if not image["heads"]:
                reasons[status] += 1
                label, group = image["label"], image["group"]
                rows.writerow([image["filename"], split, label, group, status])
    folder.finish(
        {
            "counts": counts,
            "without_head": dict(sorted(reasons.items())),
            "versions": manifest.collect_versions(),
        }
    )


def _journal(folder: resumable.Output) -> Iterator[tuple[str, dict[str, Any]]]:
    for step in folder.steps():
        for image in step["pictures"]:
            yield step["split"], image
