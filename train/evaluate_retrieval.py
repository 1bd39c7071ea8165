"""Measures how often altered copies find their originals, and fakes their sources.

    python train/evaluate_retrieval.py --data_dir=DATA --dataset=labeled_faces \
        [--split=test] [--model=GRAPH] [--output=retrieval.json]

Compares both embeddings of a graph, see `dfdetect/pipeline/embedding.py`, and a
perceptual hash as the control (pip install dfdetect[audit]); the protocol stands in
`dfdetect/evaluation/retrieval_evaluation.py`. `train/baseline.py --retrieval` adds
Harris corners.
"""

import os
from typing import Any

if __name__ == "__main__":
    from dfdetect import console

    # Before TensorFlow is imported: its notes would bury the messages.
    console.capture()

# The graph runs on TensorFlow, whichever backend Keras is set to.
os.environ["KERAS_BACKEND"] = "tensorflow"

from absl import flags, logging

from dfdetect import console, files, script
from dfdetect.data import prepared
from dfdetect.evaluation import retrieval_evaluation
from dfdetect.evaluation.audit import near_duplicates
from dfdetect.evaluation.figures import to_json
from dfdetect.export import saved_pipeline
from dfdetect.pipeline import build

_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of prepared data sets.", required=True
)
_DATASET = flags.DEFINE_string(
    "dataset", None, "A prepared data set; NAME or NAME/CONFIG.", required=True
)
_SPLIT = flags.DEFINE_string("split", "test", "The split to measure on.")
_MODEL = flags.DEFINE_string(
    "model",
    None,
    "Exported graph that embeds, or a folder of its versions; by default our weights.",
)
_NUM_COPIES = flags.DEFINE_integer(
    "num_copies",
    retrieval_evaluation.NUM_COPIES,
    "Most images to alter.",
    lower_bound=1,
)
_SEED = flags.DEFINE_integer(
    "seed", 0, "Seed of the choice of images and of intervals."
)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file with the figures.")


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.ERROR)  # TFDS warns about its internals.
    builder = prepared.open_builder(os.path.expanduser(_DATA_DIR.value), _DATASET.value)
    model: Any = (
        saved_pipeline.load(_MODEL.value, script.say)
        if _MODEL.value
        else build.build_from_directories()
    )
    descriptions = {
        "content": retrieval_evaluation.build_description(model.embed_content),
        "forgery": retrieval_evaluation.build_description(model.embed),
        "perceptual_hash": near_duplicates.describe,
    }
    total = sum(info.num_examples for info in builder.info.splits.values())
    with console.Progress(total, script.say, noun="image") as bar:
        measured = retrieval_evaluation.measure_descriptions(
            builder,
            _SPLIT.value,
            descriptions=descriptions,
            num_copies=_NUM_COPIES.value,
            seed=_SEED.value,
            count=bar.count,
        )
    print(
        f"{_DATASET.value}, {_SPLIT.value}: {measured['num_copies']} altered copies "
        f"among {measured['num_pool']:,} images; {measured['num_fakes']:,} fakes "
        f"among {measured['num_reals']:,} reals of all splits; 95 % by group.\n"
    )
    print("\n".join(retrieval_evaluation.format_table(measured)))
    if _OUTPUT.value:
        figures = {
            "split": _SPLIT.value,
            "data": prepared.describe_dataset(builder),
            "embeddings": model.manifest["embeddings"],
            **measured,
        }
        files.write(_OUTPUT.value, f"{to_json(figures)}\n".encode())


if __name__ == "__main__":
    script.run_main(main)
