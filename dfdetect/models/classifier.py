"""Classifiers of one head: real or fake."""

import keras

from dfdetect.models import xception

NAMES = ("xception", "midwayxception", "lightxception")


def build(name: str, image_size: int, dropout: float = 0.5) -> keras.Model:
    """Builds a classifier with random weights.

    Args:
        name: One of `NAMES`.
        image_size: Side of the crops in pixels.
        dropout: Share of the pooled features dropped in training.

    Returns:
        A model from RGB `[B, image_size, image_size, 3]` float32 in [0, 255] to the
        logit of fake, `[B, 1]` float32.

    Raises:
        ValueError: There is no such classifier, or the size is too small for it.
    """
    if name not in NAMES:
        raise ValueError(f"name must be one of {NAMES}, got {name!r}.")
    return xception.Xception(
        image_size, num_outputs=1, dropout=dropout, name=name, **xception.PRESETS[name]
    )


def embedding_model(model: keras.Model) -> keras.Model:
    """A model that shares the classifier's weights and gives its pooled features.

    Returns:
        A model from the classifier's input to `[B, D]` float32, before dropout and not
        normalised.
    """
    return keras.Model(model.input, model.get_layer("pool").output)
