"""TensorBoard events of a run.

`EventWriter` writes the run's event file. The functions write to the event file that is
open, for the step that it is open for.
"""

import html
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import cv2
import matplotlib.figure
import numpy as np
import sklearn.metrics
import tensorflow as tf
from matplotlib.backends import backend_agg
from tensorboard.plugins import projector
from tensorboard.plugins.hparams import api as hparams_api
from tensorboard.plugins.pr_curve import metadata as pr_curve_metadata

from dfdetect import files, labels
from dfdetect.media import drawing

_MAX_IMAGES = 16
_NUM_THRESHOLDS = 201
_CONFIDENT = 0.3  # Lowest score of detections that are drawn.
_SPRITE_SIZE = 48


class EventWriter:
    """Writes the event file of a run.

    Args:
        model_dir: Folder of the file.
        hparams: The settings of the run, by name.
        active: Whether to write at all; only the chief does.
        profile_steps: First and last step to profile; empty for none.
    """

    def __init__(
        self,
        model_dir: str,
        hparams: Mapping[str, Any],
        active: bool,
        profile_steps: Sequence[int] = (),
    ) -> None:
        self._model_dir = model_dir
        self._active = active
        self._profile_steps = profile_steps if active else ()
        self._profiling = False
        self._writer = (
            tf.summary.create_file_writer(model_dir)
            if active
            else tf.summary.create_noop_writer()
        )
        if active and hparams:
            with self.at_step(0):
                hparams_api.hparams(dict(hparams))
                self.write_text("flags", hparams)

    @contextmanager
    def at_step(self, step: int) -> Iterator[None]:
        """Opens the event file for a step."""
        with self._writer.as_default(step=step):
            yield
        self._writer.flush()

    def write_text(self, tag: str, values: Mapping[str, Any]) -> None:
        """Writes a table of names and values."""
        rows = [
            f"| {name} | {html.escape(json.dumps(value, default=str))} |"
            for name, value in values.items()
        ]
        tf.summary.text(tag, "\n".join(["| name | value |", "|---|---|", *rows]))

    def write_scalars(self, group: str, figures: Mapping[str, float]) -> None:
        """Writes each figure as `group/name`."""
        for name, value in figures.items():
            tf.summary.scalar(f"{group}/{name}", value)

    def write_histograms(self, variables: Mapping[str, tf.Variable]) -> None:
        """Writes a histogram of each variable."""
        for name, variable in variables.items():
            tf.summary.histogram(name, tf.convert_to_tensor(variable))

    def write_batch(self, strategy: tf.distribute.Strategy, batch: Any) -> None:
        """Writes the first images of a batch as the model sees them.

        Images are the first tensor of a batch, if it is `[B, H, W, 3]`.
        """
        first = strategy.experimental_local_results(tf.nest.flatten(batch)[0])[0]
        if self._active and first.shape.rank == 4:
            write_images("training/batch", first[:_MAX_IMAGES].numpy())

    def update_profiler(self, step: int) -> None:
        """Starts the profiler before its first step, stops it after its last one."""
        if not self._profile_steps:
            return
        first, last = self._profile_steps
        if step == first:
            tf.profiler.experimental.start(self._model_dir)
            self._profiling = True
        elif step > last:
            self._stop_profiler()

    def close(self) -> None:
        """Closes the event file, and a profile that is open."""
        self._stop_profiler()
        self._writer.close()

    def _stop_profiler(self) -> None:
        if self._profiling:
            self._profiling = False
            tf.profiler.experimental.stop()


def write_images(tag: str, images: np.ndarray) -> None:
    """Writes `[N, H, W, 3]` in [0, 255] as one image of rows and columns."""
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    sheet = np.zeros((rows * columns, *images.shape[1:]), np.uint8)
    sheet[: len(images)] = np.clip(np.round(images), 0, 255)
    # [R*C, H, W, 3] -> [R, H, C, W, 3] -> [1, R*H, C*W, 3]
    sheet = sheet.reshape(rows, columns, *images.shape[1:]).swapaxes(1, 2)
    height, width = rows * images.shape[1], columns * images.shape[2]
    tf.summary.image(tag, sheet.reshape(1, height, width, 3))


def write_classification(truths: np.ndarray, fake_probabilities: np.ndarray) -> None:
    """Writes curves, confusion matrix, calibration and scores of a classifier.

    Args:
        truths: `[N]` of `dfdetect.labels`, both of them present.
        fake_probabilities: `[N]` in [0, 1].
    """
    precision, recall, _ = sklearn.metrics.precision_recall_curve(
        truths, fake_probabilities
    )
    _write_plot(
        "validation/pr_curve", recall, precision, x_name="recall", y_name="precision"
    )
    false_positives, true_positives, _ = sklearn.metrics.roc_curve(
        truths, fake_probabilities
    )
    _write_plot(
        "validation/roc_curve",
        false_positives,
        true_positives,
        x_name="real called fake",
        y_name="fake called fake",
        diagonal=True,
    )
    bins = np.clip((fake_probabilities * 10).astype(int), 0, 9)
    filled = np.unique(bins)
    _write_plot(
        "validation/calibration",
        np.array([fake_probabilities[bins == b].mean() for b in filled]),
        np.array([truths[bins == b].mean() for b in filled]),
        x_name="fake probability",
        y_name="share of fakes",
        diagonal=True,
    )
    _write_confusion("validation/confusion_matrix", truths, fake_probabilities >= 0.5)
    for label, name in enumerate(labels.NAMES):
        tf.summary.histogram(
            f"validation/fake_probability_of_{name}",
            fake_probabilities[truths == label],
        )
    write_pr_curves("validation/pr_curves", truths == labels.FAKE, fake_probabilities)


def write_heat_maps(crops: np.ndarray, maps: np.ndarray, truths: np.ndarray) -> None:
    """Writes where a classifier sees fakes: mean crop and heat map of each label.

    Args:
        crops: `[N, S, S, 3]` in [0, 255].
        maps: `[N, S, S]` in [0, 1], see `grad_cam.build_heat_maps_function`.
        truths: `[N]` of `dfdetect.labels`; a label without crops is left out.
    """
    for label in np.unique(truths):
        crop = crops[truths == label].mean(0)
        heat = maps[truths == label].mean(0)
        # Stretched, as no place may be hot in all of them.
        heat = heat[None] / max(float(heat.max()), 1e-9)
        mean = np.clip(np.round(crop), 0, 255).astype(np.uint8)
        covered = drawing.overlay_heat_maps(
            mean, np.array([[0, 0, *mean.shape[:2]]]), heat
        )
        write_images(
            f"validation/grad_cam_of_{labels.NAMES[label]}",
            np.stack([mean, covered]),
        )


def write_pr_curves(
    tag: str, positive: np.ndarray, scores: np.ndarray, missed: int = 0
) -> None:
    """Writes a curve for the page "PR Curves".

    Args:
        tag: Name of the curve.
        positive: `[N]` bool, whether each is to be found.
        scores: `[N]` in [0, 1].
        missed: Number of further ones to find, without a score.
    """
    thresholds = np.linspace(0.0, 1.0, _NUM_THRESHOLDS)
    called = np.sort(scores[positive]), np.sort(scores[~positive])
    tp, fp = (len(s) - np.searchsorted(s, thresholds, "left") for s in called)
    fn, tn = len(called[0]) + missed - tp, len(called[1]) - fp
    precision = tp / np.maximum(tp + fp, 1)
    recall = tp / np.maximum(tp + fn, 1)
    tf.summary.write(
        tag,
        tf.constant(np.stack([tp, fp, tn, fn, precision, recall]), tf.float32),
        metadata=pr_curve_metadata.create_summary_metadata(tag, "", _NUM_THRESHOLDS),
    )


def write_detections(
    images: np.ndarray,
    found: Sequence[tuple[np.ndarray, np.ndarray]],
    truth: Sequence[np.ndarray],
) -> None:
    """Writes images with their true boxes green and the predicted ones orange.

    Args:
        images: `[N, S, S, 3]` in [0, 255], letterboxed.
        found: Boxes `[M, 4]` and scores `[M]` of each image, in [0, 1] of it.
        truth: True boxes `[M, 4]` of each image.
    """
    canvases = np.clip(np.round(images), 0, 255).astype(np.uint8)
    size = images.shape[1]
    for canvas, (boxes, scores), true_boxes in zip(canvases, found, truth, strict=True):
        for box in true_boxes:
            drawing.draw_box(canvas, box * size, drawing.TRUE)
        for box, score in zip(boxes, scores, strict=True):
            if score >= _CONFIDENT:
                drawing.draw_box(
                    canvas, box * size, drawing.PREDICTED, text=f"{score:.2f}"
                )
    write_images("validation/detections", canvases)


def write_detection_curve(
    scores: np.ndarray, correct: np.ndarray, num_true: int
) -> None:
    """Writes precision and recall of detections.

    Args:
        scores: `[N]`, detections of all images.
        correct: `[N]` bool, whether each found a true box before all others.
        num_true: Number of true boxes.
    """
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(correct[order])
    precision = hits / np.arange(1, len(hits) + 1)
    recall = hits / max(num_true, 1)
    _write_plot(
        "validation/pr_curve", recall, precision, x_name="recall", y_name="precision"
    )
    write_pr_curves(
        "validation/pr_curves", correct, scores, num_true - int(correct.sum())
    )
    tf.summary.histogram("validation/score_of_right", scores[correct])
    tf.summary.histogram("validation/score_of_wrong", scores[~correct])


def write_embeddings(
    model_dir: str, vectors: np.ndarray, images: np.ndarray, names: Sequence[str]
) -> None:
    """Writes embeddings for the page "Projector".

    Args:
        model_dir: Folder of the event file.
        vectors: `[N, D]`.
        images: `[N, S, S, 3]` in [0, 255], one for each vector.
        names: Labels of the vectors.
    """
    folder = os.path.join(model_dir, "projector")
    rows = ["\t".join(f"{x:.5g}" for x in vector) for vector in vectors]
    files.write(os.path.join(folder, "vectors.tsv"), "\n".join(rows).encode())
    files.write(os.path.join(folder, "names.tsv"), "\n".join(names).encode())
    side = math.ceil(math.sqrt(len(images)))
    sprite = np.zeros((side * _SPRITE_SIZE, side * _SPRITE_SIZE, 3), np.uint8)
    for index, image in enumerate(images):
        small = cv2.resize(
            np.clip(np.round(image), 0, 255).astype(np.uint8),
            (_SPRITE_SIZE, _SPRITE_SIZE),
            interpolation=cv2.INTER_AREA,
        )
        y, x = (s * _SPRITE_SIZE for s in divmod(index, side))
        sprite[y : y + _SPRITE_SIZE, x : x + _SPRITE_SIZE] = small
    png = cv2.imencode(".png", cv2.cvtColor(sprite, cv2.COLOR_RGB2BGR))[1].tobytes()
    files.write(os.path.join(folder, "sprite.png"), png)
    config = projector.ProjectorConfig()
    embedding = config.embeddings.add(
        tensor_name="embedding",
        tensor_path="projector/vectors.tsv",
        metadata_path="projector/names.tsv",
    )
    embedding.sprite.image_path = "projector/sprite.png"
    embedding.sprite.single_image_dim.extend([_SPRITE_SIZE, _SPRITE_SIZE])
    projector.visualize_embeddings(model_dir, config)


def _write_confusion(tag: str, truths: np.ndarray, called_fake: np.ndarray) -> None:
    counts = sklearn.metrics.confusion_matrix(truths, called_fake, labels=[0, 1])
    figure = matplotlib.figure.Figure(figsize=(4, 4), layout="constrained")
    axes = figure.subplots()
    axes.imshow(counts / np.maximum(counts.sum(1, keepdims=True), 1), "Blues", vmin=0)
    for row in range(2):
        for column in range(2):
            axes.text(column, row, str(counts[row, column]), backgroundcolor="white")
    axes.set(xlabel="called", ylabel="is")
    axes.set(xticks=[0, 1], xticklabels=labels.NAMES)
    axes.set(yticks=[0, 1], yticklabels=labels.NAMES)
    _write_figure(tag, figure)


def _write_plot(
    tag: str,
    x: np.ndarray,
    y: np.ndarray,
    *,
    x_name: str,
    y_name: str,
    diagonal: bool = False,
) -> None:
    figure = matplotlib.figure.Figure(figsize=(4, 4), layout="constrained")
    axes = figure.subplots()
    if diagonal:
        axes.plot([0, 1], [0, 1], color="lightgray")
    axes.plot(x, y, marker="." if len(x) < 30 else None)
    axes.set(xlabel=x_name, ylabel=y_name, xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    _write_figure(tag, figure)


def _write_figure(tag: str, figure: matplotlib.figure.Figure) -> None:
    canvas = backend_agg.FigureCanvasAgg(figure)
    canvas.draw()
    tf.summary.image(tag, np.asarray(canvas.buffer_rgba())[None, :, :, :3])
