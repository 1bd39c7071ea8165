"""What one classifier reaches on one set: its figures, and what they come from."""

import dataclasses
import datetime
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from dfdetect import console
from dfdetect.evaluation import classification_protocol, detectors, evaluation_set
from dfdetect.evaluation.predictions import Predictions
from dfdetect.models import model_directory


@dataclasses.dataclass(frozen=True)
class Result:
    """One model on one set.

    Attributes:
        figures: `model`, `split`, what `EvaluatedSet.describe` gives, `warnings`,
            `date`, `classifier` (what its manifest says), `metrics`, `video_metrics`,
            `baselines` and `strata`; perhaps `robustness`, see `robustness.measure`.
        predictions: Of the pictures.
        no_pixel_probabilities: Of the same; None where there are none.
    """

    figures: dict[str, Any]
    predictions: Predictions
    no_pixel_probabilities: np.ndarray | None = None

    @property
    def model(self) -> str:
        """The name of the model."""
        return self.figures["model"]

    @property
    def data(self) -> str:
        """What was measured on, in a few words."""
        data, split = self.figures["data"], self.figures["split"]
        name = "/".join(filter(None, (data["name"], data["config"])))
        return ", ".join([name, split, *(f"where {c}" for c in self.figures["where"])])


def measure(
    name: str,
    model: model_directory.Loaded,
    judged: evaluation_set.EvaluatedSet,
    say: Callable[[str], None],
    batch_size: int = 16,
    precision: str | None = None,
) -> Result:
    """Measures a classifier on a set.

    Args:
        name: Its folder, or "default" for the default weights.
        model: The classifier and its manifest.
        judged: The set.
        say: Prints a line.
        batch_size: Pictures at once.
        precision: See `detectors.logits_function`.
    """
    classifier, manifest = model
    with console.Progress(int(judged.wanted.sum()), say, "picture") as bar:
        found = detectors.predict(
            classifier,
            manifest,
            judged.builder,
            judged.split,
            judged.survey,
            judged.wanted,
            batch_size,
            functools.partial(bar.count, "classified"),
            precision,
        )
    figures = {
        "task": "classify",
        "precision": precision,
        "model": "default weights" if name == "default" else name,
        "split": judged.split,
        **judged.describe(),
        "warnings": judged.warnings(manifest),
        "date": datetime.date.today().isoformat(),
        "classifier": {
            "trained_on": manifest.get("data", []),
            **{key: manifest[key] for key in ("model", "image_size", "temperature")},
        },
        **classification_protocol.both_levels(found, judged.num_resamples),
        "baselines": judged.baselines,
        "strata": classification_protocol.strata(found, judged.num_resamples),
    }
    return Result(figures, found, judged.no_pixel_probabilities)
