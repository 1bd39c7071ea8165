"""Writes a prepared data set of labeled images as files and lists of them.

    python datasets/export_lists.py --data_dir=DATA --dataset=NAME --output=LISTS

For tools that read no TFDS: LISTS gets `train.txt`, `val.txt` and `test.txt`, lines of
`path label`, the images, and a text file with the label of each;
`dfdetect/data/export_lists.py` explains them. The same command resumes a run that was
stopped, for whatever reason; the lists come last. The exit code is 2 for a usage error,
other files in LISTS among them, and 1 where data cannot be used.
"""

import os

if __name__ == "__main__":
    from dfdetect import console

    # Before TensorFlow is imported: its notes would bury the messages.
    console.capture()

from absl import flags, logging

from dfdetect import script
from dfdetect.data import export_lists, prepared

_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of prepared data sets.", required=True
)
_DATASET = flags.DEFINE_string(
    "dataset", None, "A prepared data set; NAME or NAME/CONFIG.", required=True
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "Folder of the lists; made when missing.", required=True
)
_BALANCED = flags.DEFINE_bool(
    "balanced", False, "As many real as fake images in each split."
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the choice for --balanced.")


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.ERROR)  # TFDS warns of its own innards.
    export_lists.export_dataset(
        prepared.open_builder(os.path.expanduser(_DATA_DIR.value), _DATASET.value),
        os.path.expanduser(_OUTPUT.value),
        say=script.say,
        balanced=_BALANCED.value,
        seed=_SEED.value,
    )


if __name__ == "__main__":
    script.run_main(main)
