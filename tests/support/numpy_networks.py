"""Xception and EfficientDet in NumPy, with the weight names of public files.

Images and maps are `[B, H, W, C]`. Written from the papers and the public code's names,
as what an independent reader of these files would compute.
"""

import itertools
import math

import numpy as np


def _windows(x, size, stride, pads, fill=0.0):
    """`[B, h, w, C, size, size]`, and pads `(before, after)` of both axes alike."""
    x = np.pad(x, ((0, 0), pads, pads, (0, 0)), constant_values=fill)
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))
    return windows[:, ::stride, ::stride]


def _same(side, size, stride):
    total = max((math.ceil(side / stride) - 1) * stride + size - side, 0)
    return total // 2, total - total // 2


def conv(x, kernel, stride=1, pads=None):
    """A convolution with a kernel `[y, x, in, out]`; "same" as TensorFlow pads."""
    size = kernel.shape[0]
    pads = _same(x.shape[1], size, stride) if pads is None else pads
    windows = _windows(x, size, stride, pads)
    return np.einsum("bhwcyx,yxco->bhwo", windows, kernel, optimize=True)


def depthwise(x, kernel, stride=1):
    """One filter a channel, `[y, x, C, 1]`; "same" as TensorFlow pads."""
    size = kernel.shape[0]
    windows = _windows(x, size, stride, _same(x.shape[1], size, stride))
    return np.einsum("bhwcyx,yxc->bhwc", windows, kernel[..., 0], optimize=True)


def max_pool(x, pads=None):
    pads = _same(x.shape[1], 3, 2) if pads is None else pads
    return _windows(x, 3, 2, pads, -np.inf).max((-1, -2))


def _relu(x):
    return np.maximum(x, 0)


def _swish(x):
    return x / (1 + np.exp(-np.maximum(x, -60)))


# Of PyTorch's Xception: channels in and out, convolutions, stride, the first ReLU.
_BLOCKS = (
    (64, 128, 2, 2, False),
    (128, 256, 2, 2, True),
    (256, 728, 2, 2, True),
    *[(728, 728, 3, 1, True)] * 8,
    (728, 1024, 2, 2, True),
)


def xception_shapes(classes, top="last_linear"):
    """Returns names and shapes of a state dict of PyTorch's Xception."""
    shapes = {}

    def norm(name, channels):
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (channels,)
        shapes[f"{name}.num_batches_tracked"] = ()

    def separable(name, before, after):
        shapes[f"{name}.conv1.weight"] = (before, 1, 3, 3)
        shapes[f"{name}.pointwise.weight"] = (after, before, 1, 1)

    shapes["conv1.weight"] = (32, 3, 3, 3)
    norm("bn1", 32)
    shapes["conv2.weight"] = (64, 32, 3, 3)
    norm("bn2", 64)
    for number, (before, after, repeats, stride, starts) in enumerate(_BLOCKS, 1):
        if before != after or stride > 1:
            shapes[f"block{number}.skip.weight"] = (after, before, 1, 1)
            norm(f"block{number}.skipbn", after)
        widths = [before] + [after] * repeats
        if number == 12:
            widths = [before, before, after]
        place = int(starts)
        for one, other in itertools.pairwise(widths):
            separable(f"block{number}.rep.{place}", one, other)
            norm(f"block{number}.rep.{place + 1}", other)
            place += 3
    separable("conv3", 1024, 1536)
    norm("bn3", 1536)
    separable("conv4", 1536, 2048)
    norm("bn4", 2048)
    shapes[f"{top}.weight"] = (classes, 2048)
    shapes[f"{top}.bias"] = (classes,)
    return shapes


def xception(arrays, images, top="last_linear"):
    """Computes PyTorch's Xception of RGB in [0, 255]: `[B, classes]`."""

    def norm(x, name):
        gamma, beta, mean, variance = (
            arrays[f"{name}.{part}"]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta

    def full(x, name, stride=1):
        kernel = arrays[f"{name}.weight"].transpose(2, 3, 1, 0)
        return conv(x, kernel, stride, (0, 0))

    def separable(x, name):
        x = depthwise(x, arrays[f"{name}.conv1.weight"].transpose(2, 3, 0, 1))
        return full(x, f"{name}.pointwise")

    x = (images / 255 - 0.5) / 0.5
    x = _relu(norm(full(x, "conv1", 2), "bn1"))
    x = _relu(norm(full(x, "conv2"), "bn2"))
    for number, (_, _, repeats, stride, starts) in enumerate(_BLOCKS, 1):
        skip, place = x, int(starts)
        for index in range(repeats):
            x = _relu(x) if index or starts else x
            x = norm(
                separable(x, f"block{number}.rep.{place}"),
                f"block{number}.rep.{place + 1}",
            )
            place += 3
        if stride > 1:
            x = max_pool(x, (1, 1))
            skip = full(skip, f"block{number}.skip", 2)
            skip = norm(skip, f"block{number}.skipbn")
        x = x + skip
    x = _relu(norm(separable(x, "conv3"), "bn3"))
    x = _relu(norm(separable(x, "conv4"), "bn4"))
    return x.mean((1, 2)) @ arrays[f"{top}.weight"].T + arrays[f"{top}.bias"]


# Of EfficientNet-B0: kernel, repeats, channels out, expansion, stride.
_STAGES = (
    (3, 1, 16, 1, 1),
    (3, 2, 24, 6, 2),
    (5, 2, 40, 6, 2),
    (3, 3, 80, 6, 2),
    (5, 3, 112, 6, 1),
    (5, 4, 192, 6, 2),
    (3, 1, 320, 6, 1),
)
_NODES = {  # Of a cell: inputs by the nodes and levels that they come from.
    0: ("p6", "p7^"),
    1: ("p5", "0^"),
    2: ("p4", "1^"),
    3: ("p3", "2^"),
    4: ("p4+", "2", "3v"),
    5: ("p5+", "1", "4v"),
    6: ("p6", "0", "5v"),
    7: ("p7", "6v"),
}


class EfficientDetD0:
    """D0 by the names of xuannianz/EfficientDet, its outputs as in google/automl.

    Layers are made as they are first called: arrays by layer, as Keras orders them.
    """

    def __init__(self, classes, seed=0):
        self.layers = {}
        self._rng = np.random.default_rng(seed)
        self._classes = classes

    def __call__(self, images):
        """RGB in [0, 255] to logits `[B, N, classes]` and offsets `[B, N, 4]`."""
        mean, deviation = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        features = self._backbone((images / 255 - mean) / deviation)
        maps = self._pyramid(features)
        return (
            self._head(maps, "class", 9 * self._classes, self._classes),
            self._head(maps, "box", 36, 4),
        )

    def _make(self, name, *shapes):
        if name not in self.layers:
            self.layers[name] = [
                self._rng.normal(0, 1 / math.sqrt(max(np.prod(s[:-1]), 1)), s)
                for s in shapes
            ]
            self.layers[name] = [x.astype(np.float32) for x in self.layers[name]]
        return self.layers[name]

    def _conv(self, x, name, out, size=1, stride=1, bias=False):
        shapes = [(size, size, x.shape[-1], out)] + [(out,)] * bias
        kernel, *biases = self._make(name, *shapes)
        return conv(x, kernel, stride) + sum(biases)

    def _norm(self, x, name, epsilon):
        if name not in self.layers:
            self.layers[name] = list(
                self._rng.uniform(0.5, 1.5, (4, x.shape[-1])).astype(np.float32)
            )
            # Small ones tell the epsilons apart.
            self.layers[name][3][:2] = 1e-4, 1e-3
        gamma, beta, mean, variance = self.layers[name]
        return (x - mean) / np.sqrt(variance + epsilon) * gamma + beta

    def _separable(self, x, name, out):
        spatial, kernel, bias = self._make(
            name, (3, 3, x.shape[-1], 1), (1, 1, x.shape[-1], out), (out,)
        )
        return conv(depthwise(x, spatial), kernel) + bias

    def _backbone(self, x):
        x = _swish(self._norm(self._conv(x, "stem_conv", 32, 3, 2), "stem_bn", 1e-3))
        features = []
        for stage, (size, repeats, out, ratio, stride) in enumerate(_STAGES, 1):
            for index in range(repeats):
                name = f"block{stage}{'abcd'[index]}_"
                step = stride if index == 0 else 1
                y, channels = x, x.shape[-1]
                if ratio > 1:
                    y = self._conv(y, f"{name}expand_conv", channels * ratio)
                    y = _swish(self._norm(y, f"{name}expand_bn", 1e-3))
                (kernel,) = self._make(f"{name}dwconv", (size, size, y.shape[-1], 1))
                y = _swish(self._norm(depthwise(y, kernel, step), f"{name}bn", 1e-3))
                s = y.mean((1, 2), keepdims=True)
                s = _swish(self._conv(s, f"{name}se_reduce", channels // 4, bias=True))
                s = self._conv(s, f"{name}se_expand", y.shape[-1], bias=True)
                y = y / (1 + np.exp(-s))
                y = self._conv(y, f"{name}project_conv", out)
                y = self._norm(y, f"{name}project_bn", 1e-3)
                x = y + x if step == 1 and channels == out else y
            if stage in (3, 5, 7):
                features.append(x)
        return features

    def _lateral(self, x, name):
        x = self._conv(x, f"{name}/conv2d", 64, bias=True)
        return self._norm(x, f"{name}/bn", 1e-4)

    def _pyramid(self, features):
        c3, c4, c5 = features
        first = "fpn_cells/cell_0/fnode"
        p6 = max_pool(self._lateral(c5, "resample_p6"))
        maps = {
            "p3": self._lateral(c3, f"{first}3/resample_0_0_8"),
            "p4": self._lateral(c4, f"{first}2/resample_0_1_7"),
            "p4+": self._lateral(c4, f"{first}4/resample_0_1_9"),
            "p5": self._lateral(c5, f"{first}1/resample_0_2_6"),
            "p5+": self._lateral(c5, f"{first}5/resample_0_2_10"),
            "p6": p6,
            "p7": max_pool(p6),
        }
        for cell in range(3):
            for node, sources in _NODES.items():
                name = f"fpn_cells/cell_{cell}/fnode{node}"
                found = [self._moved(maps[s.rstrip("^v")], s[-1]) for s in sources]
                (shares,) = self._make(f"{name}/add", (len(found),))
                shares[:] = np.abs(shares)
                mixed = sum(a * b for a, b in zip(shares, found, strict=True))
                x = _swish(mixed / (shares.sum() + 1e-4))
                place = f"{name}/op_after_combine{node + 5}"
                x = self._separable(x, f"{place}/conv", 64)
                maps[str(node)] = self._norm(x, f"{place}/bn", 1e-4)
            outs = [maps[str(node)] for node in range(3, 8)]
            maps = dict(zip(("p3", "p4", "p5", "p6", "p7"), outs, strict=True))
            maps |= {"p4+": maps["p4"], "p5+": maps["p5"]}
        return outs

    def _moved(self, x, way):
        if way == "^":
            return x.repeat(2, 1).repeat(2, 2)
        return max_pool(x) if way == "v" else x

    def _head(self, maps, name, channels, outputs):
        levels = []
        for level, x in enumerate(maps, 3):
            for depth in range(3):
                x = self._separable(x, f"{name}_net/{name}-{depth}", 64)
                x = self._norm(x, f"{name}_net/{name}-{depth}-bn-{level}", 1e-4)
                x = _swish(x)
            x = self._separable(x, f"{name}_net/{name}-predict", channels)
            levels.append(x.reshape(len(x), -1, outputs))
        return np.concatenate(levels, 1)
