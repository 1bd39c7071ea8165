"""Flags of the evaluation of a model on a prepared data set."""

from typing import Any

from absl import app, flags

from dfdetect.evaluation import peer_detectors
from dfdetect.metrics import bootstrap
from dfdetect.pipeline import aggregation
from dfdetect.pipeline import clips as clip_findings

FLAGS = flags.FLAGS

_TASK = flags.DEFINE_enum(
    "task",
    None,
    ["detect", "classify", "video", "chain"],
    "Task of the model; detect needs pip install 'dfdetect[evaluate]'.",
    required=True,
)
flags.DEFINE_string(
    "model_dir",
    None,
    "Folder of a trained model; by default the default weights. For classifiers "
    "several, separated by commas; 'default' is the default weights.",
)
_STEP = flags.DEFINE_list(
    "step",
    [],
    "Step of a checkpoint that the training keeps, instead of the best weights of "
    "--model_dir; for classifiers several, separated by commas.",
)
flags.DEFINE_string("data_dir", None, "Folder of prepared data sets.")
flags.DEFINE_string(
    "dataset",
    None,
    "A prepared data set, NAME or NAME/CONFIG; for classifiers and chains several, "
    "separated by commas.",
)
flags.DEFINE_string(
    "split", "test", "Split of the data set; clips that name another one are left out."
)
flags.DEFINE_string("clips", None, "Folder of clips with a labels.csv.")
flags.DEFINE_string(
    "graph",
    None,
    "Exported graph that judges clips or images, or a folder of its versions; by "
    "default our weights.",
)
flags.DEFINE_integer("frames", 32, "Frames of each clip; -1 for all.", -1)
flags.DEFINE_float("every", None, "Seconds between frames of a clip instead.")
flags.DEFINE_enum(
    "aggregate",
    clip_findings.DEFAULT_AGGREGATE,
    list(aggregation.METHODS),
    "How the probability of a person in a clip is computed from those of the frames.",
)
flags.DEFINE_integer("batch_size", 16, "Images at once.", lower_bound=1)
flags.DEFINE_bool("tile", False, "Let a detector also look at tiles of large images.")
flags.DEFINE_float(
    "soft_nms_sigma",
    0.0,
    "Sigma of soft suppression, .5 in the paper; 0 for hard.",
    0.0,
)
flags.DEFINE_float(
    "containment_threshold",
    None,
    "Share of the smaller of two boxes from which a detector keeps only the better "
    "one, 1 for none; by default that of its manifest.",
    0.01,
    1.0,
)
flags.DEFINE_enum(
    "precision",
    None,
    ["float32", "bfloat16"],
    "Measure models of images as serve/export.py writes them; by default as trained.",
)
flags.DEFINE_string(
    "tflite", None, "Folder of serve/export_detector.py to measure instead."
)
flags.DEFINE_multi_string(
    "where",
    [],
    "Measure only on records of --dataset that meet this: FIELD=VALUE|VALUE, "
    "FIELD!=VALUE|VALUE or group@0/5. If given more than once, on those that meet all.",
)
flags.DEFINE_bool(
    "allow_leaky_split",
    False,
    "Measure classifiers, clips and chains even if a group is in two splits; every "
    "output says so.",
)
flags.DEFINE_integer(
    "resamples",
    bootstrap.NUM_RESAMPLES,
    "Resamples of the groups for intervals.",
    lower_bound=2,
)
flags.DEFINE_bool(
    "robustness",
    False,
    "Measure classifiers also on altered images: rotated, mirrored, blurred, scaled, "
    "cropped, compressed and more, each at five strengths.",
)
flags.DEFINE_integer(
    "robustness_crops",
    None,
    "Largest number of crops to alter, whole groups drawn at random; by default all. "
    "Each is judged some 40 times.",
    lower_bound=2,
)
flags.DEFINE_enum(
    "leave_out",
    None,
    ["source", "method"],
    "Field that names makers: measure classifiers also by makers that they were, and "
    "were not, trained on.",
)
flags.DEFINE_string(
    "recipe",
    None,
    "A flag file of train/classifier.py: train, or resume, a run without each maker on "
    "--dataset in the folder --output, and measure it for --leave_out.",
)
flags.DEFINE_list(
    "predictions",
    [],
    "Measure also detectors of others, whose fake probabilities are in these CSV "
    "files, separated by commas: columns path (or id) and fake_probability, for all "
    "sets.",
)
flags.DEFINE_list(
    "detector",
    [],
    "Measure also the detectors of these Python files, separated by commas, which are "
    "executed: each has a function predict(paths) that returns fake probabilities.",
)
flags.DEFINE_enum(
    "detector_input",
    "crop",
    peer_detectors.INPUTS,
    "Input of predict: the heads of records, or whole images.",
)
flags.DEFINE_bool(
    "guess_missing",
    False,
    "Count records without a probability in --predictions, or of --detector (NaN), as "
    "guesses of .5; else they are refused.",
)
flags.DEFINE_list(
    "peer_makers",
    None,
    "Makers of fakes that the detectors of others were trained on, separated by "
    "commas, or none; --leave_out separates seen and unseen makers by it.",
)
flags.DEFINE_string(
    "output",
    None,
    "Folder for metrics.json, report.md and its images, for classifiers and chains "
    "also report.html, one file to pass on, and predictions.csv; or a file ending in "
    ".json for the figures alone.",
)
flags.DEFINE_bool("json", False, "Print all figures as JSON instead of a summary.")


@flags.validator(_STEP, "must be whole numbers above 0")
def _are_steps(texts: list[str]) -> bool:
    return all(text.isdecimal() and int(text) for text in texts)


@flags.multi_flags_validator(
    [_STEP, _TASK], "--step is for classifiers; of a detector one."
)
def _is_step_of_task(values: dict[str, Any]) -> bool:
    most = {"classify": len(values[_STEP.name]), "detect": 1}.get(values[_TASK.name], 0)
    return len(values[_STEP.name]) <= most


def check_flags() -> None:
    """Checks what flags ask for together.

    Raises:
        app.UsageError: A flag lacks another one, or excludes it.
    """
    of_folder = FLAGS.task == "video" and FLAGS.clips is not None
    for name in () if of_folder else ("data_dir", "dataset"):
        if FLAGS[name].value is None:
            instead = ", or --clips" if FLAGS.task == "video" else ""
            raise app.UsageError(f"--task={FLAGS.task} needs --{name}{instead}")
    if of_folder and FLAGS.where:
        raise app.UsageError("--where chooses records of --dataset, not of --clips")
    if FLAGS.task == "chain" and FLAGS.model_dir:
        raise app.UsageError("--task=chain takes --graph instead of --model_dir")
    if FLAGS.leave_out and FLAGS.task != "classify":
        raise app.UsageError("--leave_out needs --task=classify")
    if has_peers() and FLAGS.task != "classify":
        raise app.UsageError("--predictions and --detector need --task=classify")
    if has_peers() and FLAGS.leave_out and FLAGS.peer_makers is None:
        raise app.UsageError("--leave_out needs --peer_makers, or --peer_makers=none")
    if FLAGS.recipe and not FLAGS.leave_out:
        raise app.UsageError("--recipe needs --leave_out")
    output = FLAGS.output or ""
    if FLAGS.recipe and (not output or output.endswith(".json")):
        raise app.UsageError("--recipe needs a folder as --output")


def has_peers() -> bool:
    """Whether detectors of others are measured as well."""
    return bool(FLAGS.predictions or FLAGS.detector)


def split_list(names: str) -> list[str]:
    """Splits at commas; each name once."""
    return list(dict.fromkeys(filter(None, map(str.strip, names.split(",")))))
