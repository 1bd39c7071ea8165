"""Cuts every head out of the images of a prepared data set.

The folder that it makes holds

* `heads/<split>/...png`: one lossless RGB file a head, the square of
  `boxes.square_crops` as it stands in the upright original, not resized.
  `resize.resize` makes of it what `resize.crop_heads` makes of the original.
* `heads.csv` and `no_head.csv`, see `head_tables`.
* `crops.json`: the settings, among them the detector's manifest, the digest of its
  weights and the data set's name, version and fingerprint; the counts by split and
  label; the versions of the libraries.
"""

import dataclasses
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect import console, files, manifest, resumable
from dfdetect.data import head_tables, prepared, records
from dfdetect.media import image_status
from dfdetect.models import model_directory, weights
from dfdetect.pipeline import (
    chunking,
    detector_settings,
    head_detection,
    image_batch,
)

SUMMARY = "crops.json"


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
        fields = records.list_further_fields(builder)
        head_tables.write_tables(folder, margin, fields)
        tables = f"{head_tables.HEADS}, {head_tables.MISSES}"
        say(f"{output} is finished: see {tables} and {SUMMARY}.")


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
