"""Weights of EfficientDet by the names of xuannianz/EfficientDet: D0 to D6 in .h5.

The weights that it publishes for COCO are google/automl's and give the outputs of
google/automl's graph. That repository's own graph passes on P4 to P6 of the top-down
path instead of the bottom-up path: a detector that was fine-tuned in it must be
fine-tuned here as well.

Source: model.py, layers.py and efficientnet.py of xuannianz/EfficientDet.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

import keras
import numpy as np

from dfdetect.models import bifpn, efficientnet

_BN_EPSILON = 1e-4  # Outside the backbone.
# Nodes of a cell in their order, and what else feeds those of the first cell.
_NODES = (
    "p6_td",
    "p5_td",
    "p4_td",
    "p3_out",
    "p4_out",
    "p5_out",
    "p6_out",
    "p7_out",
)
_LATERALS = {
    "resample_p6": "p6_lateral",
    "fpn_cells/cell_0/fnode1/resample_0_2_6": "p5_lateral",
    "fpn_cells/cell_0/fnode2/resample_0_1_7": "p4_lateral",
    "fpn_cells/cell_0/fnode3/resample_0_0_8": "p3_lateral",
    "fpn_cells/cell_0/fnode4/resample_0_1_9": "p4_lateral_up",
    "fpn_cells/cell_0/fnode5/resample_0_2_10": "p5_lateral_up",
}

Layers = Mapping[str, Sequence[np.ndarray]]


def is_published(layers: Layers) -> bool:
    """Whether layers of a file (`keras_weights`) are named as in that repository."""
    return "fpn_cells/cell_0/fnode0/op_after_combine5/conv" in layers


def convert_layers(
    model: keras.Model, layers: Layers
) -> dict[tuple[str, str], np.ndarray]:
    """Finds the weights of a detector.

    Args:
        model: An `EfficientDet`.
        layers: Arrays by layer, see `keras_weights`.

    Returns:
        The arrays of the file by the names of our layer and its weight. Batch norms
        outside the backbone are scaled, as ours have another epsilon.

    Raises:
        ValueError: The pyramid of the file has another depth or fusion.
    """
    _check_pyramid(model, layers)
    found = efficientnet.convert_applications(model.backbone, layers)
    for theirs, ours in _pyramid_names(layers):
        name = next((x for x in layers if re.fullmatch(theirs, x)), None)
        if name is None or ours not in {layer.name for layer in model.layers}:
            continue
        arrays = list(layers[name])
        if re.search(r"_bn(\d_p\d)?$", ours):
            scale = np.sqrt((arrays[3] + bifpn.BN_EPSILON) / (arrays[3] + _BN_EPSILON))
            arrays[0] = arrays[0] * scale
        weights = model.get_layer(ours).weights
        for weight, array in zip(weights, arrays, strict=False):
            found[ours, weight.name] = array
    return found


def _check_pyramid(model: keras.Model, layers: Layers) -> None:
    names = "\n".join(layers)
    cells = len(set(re.findall(r"fpn_cells/cell_(\d+)/", names)))
    wanted = sum(layer.name.endswith("_p7_out_conv") for layer in model.layers)
    filters = layers["fpn_cells/cell_0/fnode0/op_after_combine5/conv"][1].shape[-1]
    own = model.get_layer("bifpn0_p7_out_conv").filters
    if (cells, filters) != (wanted, own):
        raise ValueError(
            f"it must be an EfficientDet with {wanted} cells of {own} channels, as "
            f"--phi={model.phi} has, got {cells} cells of {filters}"
        )
    weighted = "fpn_cells/cell_0/fnode0/add" in layers
    if weighted != model.weighted_bifpn:
        fusion, flag = (
            ("weighted sums", "--weighted_bifpn")
            if weighted
            else ("plain sums", "--noweighted_bifpn")
        )
        raise ValueError(f"its pyramid has {fusion}, which {flag} takes")


def _pyramid_names(layers: Layers) -> Iterator[tuple[str, str]]:
    """Yields patterns of the layers outside the backbone, and our names."""
    for theirs, ours in _LATERALS.items():
        yield f"{theirs}/conv2d", f"{ours}_conv"
        yield f"{theirs}/bn", f"{ours}_bn"
    cells = {int(n) for n in re.findall(r"fpn_cells/cell_(\d+)/", "\n".join(layers))}
    for cell in sorted(cells):
        for node, ours in enumerate(_NODES):
            theirs = f"fpn_cells/cell_{cell}/fnode{node}"
            yield f"{theirs}/add", f"bifpn{cell}_{ours}_fusion"
            for part in ("conv", "bn"):
                place = f"{theirs}/op_after_combine{node + 5}/{part}"
                yield place, f"bifpn{cell}_{ours}_{part}"
    for head in ("class", "box"):
        # TensorFlow may put the name of the model within the model before it again.
        start = rf"(?:.*/)?{head}-"
        yield f"{start}predict", f"{head}_predict"
        for depth in range(5):
            yield f"{start}{depth}", f"{head}_conv{depth}"
            for level in bifpn.LEVELS:
                place = f"{start}{depth}-bn-{level}"
                yield place, f"{head}_bn{depth}_p{level}"
