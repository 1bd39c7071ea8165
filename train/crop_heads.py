"""Crops every head out of a prepared data set of labeled images.

    python train/crop_heads.py --data_dir=DATA --dataset=NAME --output=CROPS

CROPS gets one PNG per head, `heads.csv`, `no_head.csv` with the images without heads,
and `crops.json`; `dfdetect/data/crop_heads.py` explains them. An interrupted run
resumes with the same command and ends with the same files. The exit code is 2 for a
usage error, such as other settings for a folder in use, and 1 if data cannot be used.
"""

import functools
import os

if __name__ == "__main__":
    from dfdetect import console

    # Before TensorFlow is imported: its notes would bury the messages.
    console.capture()

# The graph runs on TensorFlow, whichever backend Keras is set to.
os.environ["KERAS_BACKEND"] = "tensorflow"

from absl import flags, logging

from dfdetect import script
from dfdetect.corpora import beam_setup
from dfdetect.data import crop_heads, head_tables, prepared

_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of prepared data sets.", required=True
)
_DATASET = flags.DEFINE_string(
    "dataset",
    None,
    "A prepared data set; NAME or NAME/CONFIG.",
    required=True,
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "Folder of the crops; created if missing.", required=True
)
_DETECTOR = flags.DEFINE_string(
    "detector", None, "Model directory of the detector; by default our weights."
)
_SCORE_THRESHOLD = flags.DEFINE_float(
    "score_threshold",
    None,
    "Heads must score above it; by default the detector's own threshold.",
    lower_bound=0.0,
    upper_bound=1.0,
)
_MARGIN = flags.DEFINE_float(
    "margin", 1.3, "Side of a crop over the longer side of its box.", lower_bound=0.1
)
_MIN_SIZE = flags.DEFINE_integer(
    "min_size", 0, "Smallest longer side of a head, in pixels.", lower_bound=0
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Images at once.", lower_bound=1)
_BEAM_RUNNER = flags.DEFINE_string(
    "beam_runner",
    None,
    "Cut on Apache Beam (pip install dfdetect[beam]), such as DirectRunner; all of its "
    "workers must see --data_dir and --output.",
)
_BEAM_OPTIONS = flags.DEFINE_list(
    "beam_options", [], "Options of the runner, see serve/batch_detect.py."
)

_ATTEMPTS = 3  # Of a run on Beam, in a row without a finished part.


def crop_on_beam(data_dir: str, output: str) -> None:
    """Cuts the heads on Apache Beam."""
    beam_setup.require_beam()
    from dfdetect.corpora import crop_parts, running

    settings = crop_heads.CropSettings.choose(
        prepared.open_builder(data_dir, _DATASET.value),
        detector=_DETECTOR.value,
        score_threshold=_SCORE_THRESHOLD.value,
        margin=_MARGIN.value,
        min_size=_MIN_SIZE.value,
        batch_size=_BATCH_SIZE.value,
    )

    def run_once() -> None:
        crop_parts.crop_on_beam(
            data_dir,
            _DATASET.value,
            output,
            settings,
            run=lambda build: running.run(
                build, str(_BEAM_RUNNER.value), _BEAM_OPTIONS.value
            ),
        )

    running.run_until_done(
        run_once,
        _ATTEMPTS,
        script.say,
        functools.partial(crop_parts.count_finished, output),
    )
    script.say(
        f"{output} is finished: see {head_tables.HEADS} and {crop_heads.SUMMARY}."
    )


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.ERROR)  # TFDS warns about its internals.
    data_dir, output = map(os.path.expanduser, (_DATA_DIR.value, _OUTPUT.value))
    if _BEAM_RUNNER.value:
        crop_on_beam(data_dir, output)
        return
    crop_heads.crop_heads(
        prepared.open_builder(data_dir, _DATASET.value),
        output,
        say=script.say,
        detector=_DETECTOR.value,
        score_threshold=_SCORE_THRESHOLD.value,
        margin=_MARGIN.value,
        min_size=_MIN_SIZE.value,
        batch_size=_BATCH_SIZE.value,
    )


if __name__ == "__main__":
    script.run_main(main)
