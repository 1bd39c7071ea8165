"""Checks that an exported graph answers as the models did in training.

The graph is loaded as TensorFlow Serving loads it, and is given drawn images, a
portrait, and files that are not images.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dfdetect import boxes as box_format
from dfdetect.export import inspection, model_outputs, runtime, served_verdict
from dfdetect.media import decode, image_status, samples
from dfdetect.metrics import calibration
from dfdetect.pipeline import chunking, deepfake_pipeline, interfaces

_NUM_DRAWN = 6
_BROKEN = (b"", b"no image")
# Most difference of similarities: a box that moves by a hundredth of the head moves the
# crop, and with it the embedding.
_NEIGHBOURS_MOVE = 0.02
# Least IoU of two boxes of the same head.
_SAME_HEAD = 0.5


@dataclasses.dataclass(frozen=True)
class Drift:
    """The largest differences between two graphs, or their bounds.

    Attributes:
        fake_probability: Difference for the same crop.
        head_fake_probability: Difference for a head, whose crop moves with its box.
        head_score: Difference for a head; a head that is this near to the threshold may
            be missed.
        box: Distance of a corner, relative to the longer side of the head.
        embedding: 1 minus the cosine.
        heat_map: Mean difference over a map, which is in [0, 1].
    """

    fake_probability: float
    head_fake_probability: float
    head_score: float
    box: float
    embedding: float
    heat_map: float


BOUNDS = {
    "float32": Drift(1e-4, 1e-4, 1e-4, 1e-4, 1e-5, 1e-3),
    # Embeddings and explanations stay in float32. For 109 heads of 12 photographs,
    # boxes moved by .007 at most, and one probability in a hundred by .06. On a
    # processor with AMX, the box of one drawn head moved by .018.
    "bfloat16": Drift(0.02, 0.15, 0.02, 0.03, 1e-5, 1e-3),
}


@contextlib.contextmanager
def _full_precision() -> Iterator[None]:
    """Keeps GPUs from rounding the inputs of convolutions to TensorFloat-32."""
    config = tf.config.experimental
    before = config.tensor_float_32_execution_enabled()
    config.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        config.enable_tensor_float_32_execution(before)


@_full_precision()
def check(
    reference: deepfake_pipeline.DeepfakePipeline,
    directory: str,
    bounds: Drift,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Compares a saved graph with the models that it was made of.

    Args:
        reference: The graph before it was saved, with variables.
        directory: Folder of the saved graph.
        bounds: The largest differences that are allowed.
        say: Called with a line about each stage.

    Returns:
        The fields of the `Drift` that was found, and `num_heads` that were compared.

    Raises:
        ValueError: The drift is larger, a head or status differs, or an output is
            missing.
    """
    portrait = samples.read_portrait()
    # The last is the frame of `frames`: a JPEG is read otherwise, in parts.
    lossless = tf.io.encode_png(decode.decode_image(portrait)).numpy()
    images = [*samples.draw_samples(_NUM_DRAWN), portrait, lossless]
    # First, as the models then keep hundreds of MB of graphs.
    names = [*interfaces.SIGNATURES, *interfaces.BOX_SIGNATURES]
    names += ["neighbours"] if reference.neighbours is not None else []
    found = _run_saved(directory, names, images, say)
    boxes = found["serving_default"]["boxes"][: len(images), 0]
    expected = model_outputs.compute_outputs(reference, images, _BROKEN, boxes, say)
    described = reference.manifest
    for name in served_verdict.SIGNATURES:
        _take_verdicts(name, found[name], described["classifier"]["thresholds"])
    for name in expected:
        _check_status(name, expected[name], found[name])

    threshold = described["detector"]["score_threshold"]
    heads = [
        _compare_heads(expected[name], found[name], threshold, bounds.head_score)
        for name in ("serving_default", "frames")
    ]
    judged = [
        (expected[name]["fake_probability"], name)
        for name in ("classify_crops", "explain", "explain_heads")
    ]
    cosines = [
        np.sum(expected[name]["embedding"] * found[name]["embedding"], -1)
        for name in ("embed", "embed_content")
    ]
    if "neighbours" in expected:
        exact = reference.manifest["index"]["exact"]
        _check_neighbours(expected["neighbours"], found["neighbours"], exact)
    heat_maps = np.concatenate(
        [
            expected[name]["heat_map"] - found[name]["heat_map"]
            for name in ("explain", "explain_heads")
        ]
    )
    drift = Drift(
        fake_probability=_largest(
            *(_differ(x, found[name]["fake_probability"]) for x, name in judged)
        ),
        head_fake_probability=_largest(*(x["fake_probability"] for x in heads)),
        head_score=_largest(*(x["head_score"] for x in heads)),
        box=_largest(*(x["box"] for x in heads)),
        embedding=_largest(*(1 - x[: len(images)] for x in cosines)),
        heat_map=_largest(np.abs(heat_maps).mean((1, 2))),
    )
    for name, value in dataclasses.asdict(drift).items():
        limit = getattr(bounds, name)
        if not value <= limit:
            raise ValueError(
                f"the exported graph must answer as the models: {name} may drift by "
                f"{limit:g}, got {value:g}."
            )
    return {
        "num_heads": sum(len(x["box"]) for x in heads),
        **{name: float(value) for name, value in dataclasses.asdict(drift).items()},
    }


def _run_saved(
    directory: str,
    names: Sequence[str],
    images: list[bytes],
    say: Callable[[str], None],
) -> dict[str, chunking.Outputs]:
    """Runs the signatures of the saved graph on images, and files that are none.

    Args:
        directory: Folder of the saved graph.
        names: Names of the signatures, `serving_default` among them.
        images: Encoded images. `frames` gets the last; `explain_heads` gets the first
            head of each, or padding.
        say: Called with a line about each stage.
    """
    batch = np.array([*images, *_BROKEN], object)
    inputs: dict[str, inspection.Inputs] = dict.fromkeys(names, batch)
    inputs["frames"] = decode.decode_image(tf.constant(images[-1])).numpy()[None]
    found: dict[str, chunking.Outputs] = {}
    say("parity check: loading the graph as TensorFlow Serving does")
    # Optimized, `serving_default` alone, which has all that the others consist of but
    # for gradients: to optimize each would take longer than all calls.
    for optimize in (True, False):
        with inspection.open_signatures(directory, optimize) as run:
            # One after the other: in one call, they would wait for each other's
            # threads.
            for number, name in enumerate(names, start=1):
                if optimize != (name == "serving_default"):
                    continue
                say(f"parity check: {name} of the graph, {number} of {len(names)}")
                if name == "explain_heads":
                    boxes = found["serving_default"]["boxes"][:, 0]
                    inputs[name] = {"image_bytes": batch, "boxes": boxes}
                found[name] = run(name, inputs[name])
        runtime.release_memory()
    return found


def _take_verdicts(
    name: str, found: chunking.Outputs, thresholds: calibration.Thresholds
) -> None:
    """Removes the verdicts from outputs; they must follow from the probabilities."""
    wanted = [
        calibration.decide_verdict(float(probability), thresholds) or ""
        for probability in found["fake_probability"]
    ]
    verdicts = found.pop(served_verdict.OUTPUT, np.array([]))
    came = [verdict.decode() for verdict in verdicts]
    if came != wanted:
        raise ValueError(
            f"verdict of {name} must be {wanted}, the exported graph gives {came}."
        )


def _check_status(
    name: str, expected: chunking.Outputs, found: chunking.Outputs
) -> None:
    if expected.keys() != found.keys():
        raise ValueError(
            f"{name} must give {sorted(expected)}, the exported graph gives "
            f"{sorted(found)}."
        )
    if "status" not in expected:
        return
    # A head that comes or goes near its threshold changes other statuses.
    wanted, came = (
        np.isin(outputs["status"], [image_status.UNREADABLE, image_status.TOO_LARGE])
        for outputs in (expected, found)
    )
    if not np.array_equal(wanted, came):
        raise ValueError(
            f"status of {name} must be {expected['status'].tolist()}, the exported "
            f"graph gives {found['status'].tolist()}."
        )


def _check_neighbours(
    expected: chunking.Outputs, found: chunking.Outputs, exact: bool
) -> None:
    """Checks the similarities of heads and entries that both graphs found.

    Where all entries were compared, also those of the nearest entries. ScaNN compares
    rounded numbers: a change in the last digit may give other entries to a head that is
    similar to none.

    Raises:
        ValueError: Similarities differ, or no entry was found by both graphs.
    """
    pairs, num_heads = [], 0
    for image, count in enumerate(expected["num_heads"]):
        boxes = [
            x["boxes"][image][:n]
            for x, n in ((expected, count), (found, found["num_heads"][image]))
        ]
        overlaps = np.asarray(box_format.iou(*boxes))
        for i in np.flatnonzero(overlaps.max(1, initial=0) >= _SAME_HEAD):
            one = _read_neighbours(expected, image, int(i))
            other = _read_neighbours(found, image, int(overlaps[i].argmax()))
            num_heads += bool(one)
            pairs += [(one[id], other[id]) for id in one.keys() & other.keys()]
            if exact:
                wanted = max(one.values(), default=math.nan)
                pairs.append((wanted, max(other.values(), default=math.nan)))
    if num_heads and not pairs:
        raise ValueError(
            "the exported graph must find neighbours that the models find, got none."
        )
    for wanted, came in pairs:
        if _differ(np.array(wanted), np.array(came)) > _NEIGHBOURS_MOVE:
            raise ValueError(
                "the exported graph must find neighbours that are as near as the "
                f"models do, {wanted:.4f}, got {came:.4f}."
            )


def _read_neighbours(
    outputs: chunking.Outputs, image: int, head: int
) -> dict[bytes, float]:
    """Reads similarities by id, without padding."""
    ids = outputs["neighbour_ids"][image][head]
    similarities = outputs["neighbour_similarities"][image][head]
    return {
        id: float(value)
        for id, value in zip(ids, similarities, strict=True)
        if not math.isnan(value)
    }


def _compare_heads(
    expected: chunking.Outputs, found: chunking.Outputs, threshold: float, margin: float
) -> dict[str, np.ndarray]:
    """Measures the differences of heads that both graphs found.

    Raises:
        ValueError: A head with a score clearly above the threshold is missing in one.
    """
    differences: dict[str, list[float]] = {
        "box": [],
        "head_score": [],
        "fake_probability": [],
    }
    for image in range(len(expected["num_heads"])):
        one, other = (
            {
                key: outputs[key][image][: outputs["num_heads"][image]]
                for key in ("boxes", "head_scores", "fake_probabilities")
            }
            for outputs in (expected, found)
        )
        overlaps = np.asarray(box_format.iou(one["boxes"], other["boxes"]))
        for heads, best in (
            (one, overlaps.max(1, initial=0)),
            (other, overlaps.max(0, initial=0)),
        ):
            clear = heads["head_scores"] > threshold + margin
            if (best[clear] < _SAME_HEAD).any():
                raise ValueError(
                    f"the exported graph must find the heads of image {image}, "
                    f"{len(one['boxes'])}, got {len(other['boxes'])}, not the same."
                )
        for i in np.flatnonzero(overlaps.max(1, initial=0) >= _SAME_HEAD):
            j = overlaps[i].argmax()
            box = one["boxes"][i]
            side = max(box[2] - box[0], box[3] - box[1])
            differences["box"].append(np.abs(box - other["boxes"][j]).max() / side)
            for key, name in (
                ("head_score", "head_scores"),
                ("fake_probability", "fake_probabilities"),
            ):
                pair = np.array([one[name][i], other[name][j]])
                differences[key].append(_differ(*pair[:, None])[0])
    return {name: np.array(values) for name, values in differences.items()}


def _differ(expected: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Computes absolute differences; 0 where both are NaN, infinite where one is."""
    both = np.isnan(expected) & np.isnan(found)
    difference = np.where(both, 0.0, np.abs(expected - found))
    return np.where(np.isnan(difference), np.inf, difference)


def _largest(*differences: np.ndarray) -> float:
    values = np.concatenate([np.ravel(values) for values in differences])
    return float(values.max(initial=0.0))
