"""Exports the whole graph as a version that a server can pick up.

    python serve/export.py --output=BASE [--detector=DIR] [--classifier=DIR] \
        [--precision=auto] [--tile] [--index=INDEX [--exact]]

Writes BASE/<version>/ for TensorFlow Serving and `dfdetect detect --model`: the graph
with its weights as constants, warm-up requests and batching parameters. It is checked
against the models that it was made of, and written aside and then renamed, so that a
server that polls BASE never sees half of it or one that answers otherwise. Without the
model directories, the default weights are exported. Prints the path of the new version;
what goes on meanwhile is told on standard error.
"""

import os

from absl import app, flags

from dfdetect import console, script

_OUTPUT = flags.DEFINE_string(
    "output", None, "Folder of the versions; made when missing.", required=True
)
_DETECTOR = flags.DEFINE_string(
    "detector", None, "Model directory of the detector; by default our weights."
)
_CLASSIFIER = flags.DEFINE_string(
    "classifier",
    None,
    "Model directory of the classifier, or a file that train/release.py packed; by "
    "default our weights.",
)
_DETECTOR_STEP = flags.DEFINE_integer(
    "detector_step",
    None,
    "Step of the detector's training, one that its checkpoints keep; by default the "
    "best.",
    lower_bound=1,
)
_CLASSIFIER_STEP = flags.DEFINE_integer(
    "classifier_step", None, "Of the classifier's, likewise.", lower_bound=1
)
_VERSION = flags.DEFINE_integer(
    "version", None, "Number of the version; by default the next one.", lower_bound=1
)
_PRECISION = flags.DEFINE_enum(
    "precision",
    "float32",
    ["float32", "bfloat16", "auto"],
    "Of convolutions. bfloat16 has smaller weights and takes less time on processors "
    "that compute in it (avx512_bf16, AMX); on others it takes more. auto measures "
    "both and takes bfloat16 where it is faster by a twentieth.",
)
_BATCH_SIZES = flags.DEFINE_list(
    "batch_sizes",
    # All of them: an image of padding costs as much as any other.
    ["1", "2", "3", "4", "5", "6", "7", "8"],
    "Images that a server may join, ascending; the last is the most of a request.",
)
_BATCH_TIMEOUT = flags.DEFINE_integer(
    "batch_timeout", 5000, "Microseconds that an image waits for others.", 0
)
_TILE = flags.DEFINE_bool(
    "tile", False, "Look for small heads in overlapping tiles of large images."
)
_SOFT_NMS_SIGMA = flags.DEFINE_float(
    "soft_nms_sigma", 0.0, "Of soft suppression, .5 in the paper; 0 for hard.", 0.0
)
_INDEX = flags.DEFINE_string(
    "index",
    None,
    "Of train/index.py: adds the signature `neighbours`, that looks in it.",
)
_EXACT = flags.DEFINE_bool(
    "exact",
    False,
    "Compare heads with all of --index, by operations of stock TensorFlow. Else ScaNN "
    "searches: TensorFlow Serving must be built with it; `dfdetect serve` has it.",
)
_TOP_K = flags.DEFINE_integer("top_k", 10, "Neighbours of a head.", lower_bound=1)


def batch_sizes() -> list[int]:
    """The flag as numbers.

    Raises:
        app.UsageError: They are not ascending numbers from 1 on.
    """
    sizes = _BATCH_SIZES.value
    if all(size.isdecimal() for size in sizes):
        numbers = [int(size) for size in sizes]
        if numbers and numbers[0] > 0 and numbers == sorted(set(numbers)):
            return numbers
    raise app.UsageError(
        f"--batch_sizes must be ascending numbers from 1 on, got {','.join(sizes)}."
    )


def main(argv: list[str]) -> None:
    sizes = batch_sizes()
    script.say("importing TensorFlow")
    console.exit_on_sigterm()
    # The graph is TensorFlow whatever backend Keras is set to.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    from dfdetect.export import publish
    from dfdetect.pipeline import build
    from dfdetect.retrieval import neighbours as index_graph
    from dfdetect.retrieval import storage

    version = _VERSION.value or publish.find_next_version(_OUTPUT.value)
    directory = os.path.join(_OUTPUT.value, str(version))
    if os.path.exists(directory):
        raise app.UsageError(f"{directory} is there already.")
    neighbours = None
    if _INDEX.value:
        index, _ = storage.load(_INDEX.value, say=script.say)
        neighbours = index_graph.Neighbours(index, _TOP_K.value, _EXACT.value)
    script.say("building the networks and loading their weights")
    graph = build.build_from_directories(
        _DETECTOR.value,
        _CLASSIFIER.value,
        tile=_TILE.value,
        soft_nms_sigma=_SOFT_NMS_SIGMA.value,
        index=neighbours,
        detector_step=_DETECTOR_STEP.value,
        classifier_step=_CLASSIFIER_STEP.value,
    )
    found = publish.publish(
        graph,
        directory,
        _PRECISION.value,
        sizes,
        _BATCH_TIMEOUT.value,
        say=script.say,
    )
    num_heads = found.pop("num_heads")
    figures = ", ".join(f"{name} {value:.2g}" for name, value in found.items())
    script.say(
        f"largest drift from the models: {figures} (also of the {num_heads} places in "
        "drawn images that both take for heads)"
    )
    print(directory)


if __name__ == "__main__":
    script.run_main(main)
