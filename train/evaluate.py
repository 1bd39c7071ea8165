"""Measures a trained model on a split of a prepared data set.

    python train/evaluate.py --task=detect --model_dir=runs/d0 \
      --data_dir=prepared --dataset=hollywood_heads --split=test --output=measured

    python train/evaluate.py --task=classify --model_dir=default,runs/classifier \
      --data_dir=prepared --dataset=labeled_faces,deepfake_challenge --output=measured

    python train/evaluate.py --task=classify --leave_out=source \
      --recipe=train/recipes/leave_one_out.flags --data_dir=prepared \
      --dataset=labeled_faces/sources,deepfake_challenge --output=measured

    python train/evaluate.py --task=classify --model_dir=runs/classifier \
      --step=1000,2000,3000 --data_dir=prepared --dataset=labeled_faces

    python train/evaluate.py --task=classify --model_dir=default \
      --predictions=theirs.csv --detector=their_detector.py \
      --data_dir=prepared --dataset=labeled_faces --output=measured

    python train/evaluate.py --task=video --clips=FOLDER --output=measured

    python train/evaluate.py --task=chain --data_dir=prepared \
      --dataset=labeled_faces,deepfake_challenge --output=measured

A folder of clips has a labels.csv, see `dfdetect.evaluation.clip_evaluation`; instead a
prepared data set of frames, such as faceforensics/c23, may be named, whose videos are
the clips, see `dfdetect.evaluation.frame_clips`. They are judged as by `dfdetect
detect`, with the default weights or `--graph`.

A chain is such a graph on whole labeled images, next to its classifier on the heads of
the sets, see `dfdetect.evaluation.chain_evaluation`.

Classifiers are also measured on the fakes of each maker against the reals of each
source, see `dfdetect.evaluation.source_pairs`. With --leave_out, makers that a
classifier was not trained on are listed apart, see `dfdetect.evaluation.leave_one_out`:
of the given classifiers, whose manifests say what they were trained on, or of short
runs without each maker in turn (--recipe).

Detectors of others are compared with ours, by their probabilities or by a function, see
`dfdetect.evaluation.peer_detectors`.

A summary is printed; --output keeps all figures and a report, --json prints all
figures.

A detector needs `pip install dfdetect[evaluate]`. Several classifiers and sets may be
given, also sets of a chain: each is measured on each.
"""

import functools
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

if __name__ == "__main__":
    from dfdetect import console

    # Before TensorFlow is imported: its notes would bury the messages.
    console.capture()

import tensorflow_datasets as tfds
from absl import app, flags

from dfdetect import files, manifest, script
from dfdetect.data import detector_input, prepared, record_columns, records
from dfdetect.evaluation import (
    chain_evaluation,
    classifier_comparison,
    clip_evaluation,
    detectors,
    evaluation_set,
    figures,
    frame_clips,
    maker_evaluation,
    peer_detectors,
)
from dfdetect.export import graph_cache, graph_folder
from dfdetect.media import video
from dfdetect.metrics import bootstrap, coco, detection_protocol
from dfdetect.models import model_directory
from dfdetect.pipeline import aggregation
from dfdetect.pipeline import clips as clip_findings
from dfdetect.reports import (
    chain_report,
    classification_report,
    detection_report,
    source_tables,
    terminal_summary,
)

FLAGS = flags.FLAGS

_TASK = flags.DEFINE_enum(
    "task",
    None,
    ["detect", "classify", "video", "chain"],
    "Task of the model.",
    required=True,
)
_MODEL_DIR = flags.DEFINE_string(
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
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of prepared data sets.")
_DATASET = flags.DEFINE_string(
    "dataset",
    None,
    "A prepared data set, NAME or NAME/CONFIG; for classifiers and chains several, "
    "separated by commas.",
)
_SPLIT = flags.DEFINE_string(
    "split", "test", "Split of the data set; clips that name another one are left out."
)
_CLIPS = flags.DEFINE_string("clips", None, "Folder of clips with a labels.csv.")
_GRAPH = flags.DEFINE_string(
    "graph",
    None,
    "Exported graph that judges clips or images, or a folder of its versions; by "
    "default our weights.",
)
_FRAMES = flags.DEFINE_integer("frames", 32, "Frames of each clip; -1 for all.", -1)
_EVERY = flags.DEFINE_float("every", None, "Seconds between frames of a clip instead.")
_AGGREGATE = flags.DEFINE_enum(
    "aggregate",
    clip_findings.DEFAULT_AGGREGATE,
    list(aggregation.METHODS),
    "How the probability of a person in a clip is computed from those of the frames.",
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Images at once.", lower_bound=1)
_TILE = flags.DEFINE_bool(
    "tile", False, "Let a detector also look at tiles of large images."
)
_SOFT_NMS_SIGMA = flags.DEFINE_float(
    "soft_nms_sigma",
    0.0,
    "Sigma of soft suppression, .5 in the paper; 0 for hard.",
    0.0,
)
_CONTAINMENT_THRESHOLD = flags.DEFINE_float(
    "containment_threshold",
    None,
    "Share of the smaller of two boxes from which a detector keeps only the better "
    "one, 1 for none; by default that of its manifest.",
    0.01,
    1.0,
)
_PRECISION = flags.DEFINE_enum(
    "precision",
    None,
    ["float32", "bfloat16"],
    "Measure models of images as serve/export.py writes them; by default as trained.",
)
_TFLITE = flags.DEFINE_string(
    "tflite", None, "Folder of serve/export_detector.py to measure instead."
)
_WHERE = flags.DEFINE_multi_string(
    "where",
    [],
    "Measure classifiers, clips and chains only on records that meet this: "
    "FIELD=VALUE|VALUE or FIELD!=VALUE|VALUE. If given more than once, on those that "
    "meet all.",
)
_ALLOW_LEAKY_SPLIT = flags.DEFINE_bool(
    "allow_leaky_split",
    False,
    "Measure classifiers, clips and chains even if a group is in two splits; every "
    "output says so.",
)
_RESAMPLES = flags.DEFINE_integer(
    "resamples",
    bootstrap.NUM_RESAMPLES,
    "Resamples of the groups for intervals.",
    lower_bound=2,
)
_ROBUSTNESS = flags.DEFINE_bool(
    "robustness",
    False,
    "Measure classifiers also on altered images: rotated, mirrored, blurred, scaled, "
    "cropped, compressed and more, each at five strengths.",
)
_ROBUSTNESS_CROPS = flags.DEFINE_integer(
    "robustness_crops",
    None,
    "Largest number of crops to alter, whole groups drawn at random; by default all. "
    "Each is judged some 40 times.",
    lower_bound=2,
)
_LEAVE_OUT = flags.DEFINE_enum(
    "leave_out",
    None,
    ["source", "method"],
    "Field that names makers: measure classifiers also by makers that they were, and "
    "were not, trained on.",
)
_RECIPE = flags.DEFINE_string(
    "recipe",
    None,
    "A flag file of train/classifier.py: train, or resume, a run without each maker on "
    "--dataset in the folder --output, and measure it for --leave_out.",
)
_PREDICTIONS = flags.DEFINE_list(
    "predictions",
    [],
    "Measure also detectors of others, whose fake probabilities are in these CSV "
    "files, separated by commas: columns path (or id) and fake_probability, for all "
    "sets.",
)
_DETECTOR = flags.DEFINE_list(
    "detector",
    [],
    "Measure also the detectors of these Python files, separated by commas, which are "
    "executed: each has a function predict(paths) that returns fake probabilities.",
)
_DETECTOR_INPUT = flags.DEFINE_enum(
    "detector_input",
    "crop",
    peer_detectors.INPUTS,
    "Input of predict: the heads of records, or whole images.",
)
_GUESS_MISSING = flags.DEFINE_bool(
    "guess_missing",
    False,
    "Count records without a probability in --predictions, or of --detector (NaN), as "
    "guesses of .5; else they are refused.",
)
_PEER_MAKERS = flags.DEFINE_list(
    "peer_makers",
    None,
    "Makers of fakes that the detectors of others were trained on, separated by "
    "commas, or none; --leave_out separates seen and unseen makers by it.",
)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "Folder for metrics.json, report.md and its images, for classifiers and chains "
    "also report.html, one file to pass on, and predictions.csv; or a file ending in "
    ".json for the figures alone.",
)
_JSON = flags.DEFINE_bool(
    "json", False, "Print all figures as JSON instead of a summary."
)


@flags.validator(_STEP, "must be whole numbers above 0")
def _are_steps(texts: list[str]) -> bool:
    return all(text.isdecimal() and int(text) for text in texts)


@flags.multi_flags_validator(
    [_STEP, _TASK], "--step is for classifiers; of a detector one."
)
def _is_step_of_task(values: dict[str, Any]) -> bool:
    most = {"classify": len(values[_STEP.name]), "detect": 1}.get(values[_TASK.name], 0)
    return len(values[_STEP.name]) <= most


def main(argv: list[str]) -> None:
    _check_flags()
    output = _OUTPUT.value or ""
    folder = "" if output.endswith(".json") else output
    if folder:
        os.makedirs(folder, exist_ok=True)
        output = os.path.join(folder, "metrics.json")
    measure = {
        "detect": _measure_detector,
        "classify": _measure_classifiers,
        "video": _measure_clips,
        "chain": _measure_chain,
    }
    measured = measure[_TASK.value](folder)
    text = figures.to_json(measured)
    if output:
        files.write(output, f"{text}\n".encode())
    if _JSON.value:
        print(text)
        return
    print("\n".join(terminal_summary.summarize_figures(measured)))
    if output:
        print(f"\nwritten: {', '.join(_list_written(folder) or [output])}")
    else:
        print("\n--output=FOLDER keeps a report and all figures; --json prints these.")


def _list_written(folder: str) -> list[str]:
    """Lists the files for a reader in a folder, the first to look at first."""
    names = ("report.html", "report.md", "metrics.json", "predictions.csv")
    paths = [os.path.join(folder, name) for name in names]
    return [path for path in paths if folder and os.path.exists(path)]


def _check_flags() -> None:
    of_folder = _TASK.value == "video" and _CLIPS.value is not None
    for name in () if of_folder else ("data_dir", "dataset"):
        if FLAGS[name].value is None:
            instead = ", or --clips" if _TASK.value == "video" else ""
            raise app.UsageError(f"--task={_TASK.value} needs --{name}{instead}")
    if _TASK.value == "chain" and _MODEL_DIR.value:
        raise app.UsageError("--task=chain takes --graph instead of --model_dir")
    if _LEAVE_OUT.value and _TASK.value != "classify":
        raise app.UsageError("--leave_out needs --task=classify")
    if _has_peers() and _TASK.value != "classify":
        raise app.UsageError("--predictions and --detector need --task=classify")
    if _has_peers() and _LEAVE_OUT.value and _PEER_MAKERS.value is None:
        raise app.UsageError("--leave_out needs --peer_makers, or --peer_makers=none")
    if _RECIPE.value and not _LEAVE_OUT.value:
        raise app.UsageError("--recipe needs --leave_out")
    output = _OUTPUT.value or ""
    if _RECIPE.value and (not output or output.endswith(".json")):
        raise app.UsageError("--recipe needs a folder as --output")


def _measure_classifiers(folder: str) -> dict[str, Any]:
    """Measures each classifier on each set; `results` of several."""
    others = _RECIPE.value or _has_peers()
    folders = _split_list(_MODEL_DIR.value or ("" if others else "default"))
    peers = _open_peers()
    if _RECIPE.value:
        folders += _train_without_each(folder)
    # Fail before the slow part: open everything before anything is measured.
    steps = [int(step) for step in _STEP.value]
    models = classifier_comparison.load_each(folders, steps)
    sets = _load_sets()
    results = classifier_comparison.measure_each(
        models,
        peers,
        sets,
        say=script.say,
        batch_size=_BATCH_SIZE.value,
        precision=_PRECISION.value,
        with_robustness=_ROBUSTNESS.value,
        robustness_crops=_ROBUSTNESS_CROPS.value,
        guess_missing=_GUESS_MISSING.value,
    )
    _say_warnings(w for r in results for w in r.figures["warnings"])
    by_makers = classifier_comparison.measure_makers(
        models,
        peers,
        sets,
        results,
        leave_out=_LEAVE_OUT.value,
        say=script.say,
        num_resamples=_RESAMPLES.value,
    )
    if "leave_one_out" in by_makers:
        for line in source_tables.summarize_left_out(by_makers["leave_one_out"]):
            script.say(line)
    if folder:
        sections = source_tables.build_sections(by_makers)
        classification_report.write_report(folder, results, sections)
    return classifier_comparison.join_figures(results, sets, by_makers)


def _train_without_each(folder: str) -> list[str]:
    """Trains by --recipe without each maker; returns the model folders."""
    trainer = os.path.join(os.path.dirname(os.path.abspath(__file__)), "classifier.py")
    return maker_evaluation.train_without_each(
        [_open_set(name) for name in _split_list(FLAGS.dataset)],
        FLAGS.leave_out,
        folder=folder,
        command=[
            sys.executable,
            trainer,
            f"--flagfile={_RECIPE.value}",
            f"--data_dir={_DATA_DIR.value}",
            f"--dataset={_DATASET.value}",
            *(f"--where={condition}" for condition in _WHERE.value),
        ],
        say=script.say,
    )


def _has_peers() -> bool:
    return bool(_PREDICTIONS.value or _DETECTOR.value)


def _open_peers() -> list[peer_detectors.Peer]:
    makers = _PEER_MAKERS.value
    return peer_detectors.open_peers(
        _PREDICTIONS.value,
        _DETECTOR.value,
        say=script.say,
        makers=None
        if makers is None
        else [maker for maker in makers if maker != "none"],
        file_input=_DETECTOR_INPUT.value,
    )


def _split_list(names: str) -> list[str]:
    """Splits at commas; each name once."""
    return list(dict.fromkeys(filter(None, map(str.strip, names.split(",")))))


def _measure_detector(folder: str) -> dict[str, Any]:
    builder = _open_set(FLAGS.dataset)
    coco.import_pycocotools()  # Fail before the slow part.
    detect, described, name = _load_detector()
    record_columns.open_columns(builder, _SPLIT.value)  # Names a file cut short.
    batches = detector_input.build_evaluation_batches(
        builder,
        _SPLIT.value,
        image_size=described["image_size"],
        batch_size=_BATCH_SIZE.value,
    )
    with records.naming_damage(builder, _SPLIT.value):
        measured = detectors.collect_detections(detect, batches)
    found = {
        "task": "detect",
        "model": name,
        "step": int(_STEP.value[0]) if _STEP.value else None,
        "split": _SPLIT.value,
        "precision": _PRECISION.value,
        "data": prepared.describe_dataset(builder),
        "metrics": {
            **detection_protocol.compute_metrics(*measured),
            "coco": coco.compute_metrics(*measured),
        },
    }
    if folder:
        images = functools.partial(detector_input.read_images, builder, _SPLIT.value)
        boxes, truth, extents = measured
        detection_report.write_report(
            folder, found, boxes, truth, extents=extents, images=images
        )
    return found


def _load_detector() -> tuple[detectors.Function, dict[str, Any], str]:
    """Loads the function that detects, its manifest and its name."""
    if _TFLITE.value:
        path = os.path.join(_TFLITE.value, "detector.tflite")
        described = manifest.read(_TFLITE.value, "detector")
        return detectors.build_tflite_function(path), described, path
    step = int(_STEP.value[0]) if _STEP.value else None
    model, described = model_directory.load_detector(_MODEL_DIR.value, step=step)
    if described.get("validation_split") == _SPLIT.value != "validation":
        script.say(f"WARNING: the weights were chosen on the split {_SPLIT.value}")
    contained = _CONTAINMENT_THRESHOLD.value
    if contained is None:
        contained = described.get("containment_threshold", 1.0)
    detect = detectors.build_detect_function(
        model,
        _TILE.value,
        soft_nms_sigma=_SOFT_NMS_SIGMA.value,
        precision=_PRECISION.value,
        containment_threshold=contained,
    )
    return detect, described, _MODEL_DIR.value or "default weights"


def _measure_clips(folder: str) -> dict[str, Any]:
    clips, described, judge_frames = _open_clips()
    graph = graph_folder.find_graph(_GRAPH.value, script.say)
    model = graph_cache.load(graph, script.say)
    thresholds = model.manifest["classifier"]["thresholds"]
    judge = clip_findings.ClipJudge(
        model,
        thresholds,
        _sampling(),
        aggregate=_AGGREGATE.value,
        batch_size=_BATCH_SIZE.value,
    )
    lines = clip_evaluation.judge_clips(
        clips, functools.partial(judge_frames, judge), script.say
    )
    measured = clip_evaluation.measure_clips(
        clips,
        lines,
        aggregate=_AGGREGATE.value,
        thresholds=thresholds,
        num_resamples=_RESAMPLES.value,
    )
    if folder:
        clip_evaluation.write_results(folder, clips, lines)
    return {
        "task": "video",
        "model": graph or "default weights",
        **described,
        "split": _SPLIT.value,
        "frames": _FRAMES.value,
        "every": _EVERY.value,
        **measured,
    }


def _open_clips() -> tuple[
    Sequence[clip_evaluation.LabeledClip], dict[str, Any], Callable
]:
    """Opens the clips; returns them, their description and how to judge one."""
    if _CLIPS.value is not None:
        clips = clip_evaluation.read_clips(_CLIPS.value, _SPLIT.value)
        return clips, {"clips": _CLIPS.value}, lambda judge, clip: judge(clip.path)
    judged = _load_set(_open_set(FLAGS.dataset))
    warnings = judged.warnings({})
    _say_warnings(warnings)
    reader = frame_clips.FrameReader(judged, _sampling())
    return (
        frame_clips.find_clips(judged),
        {**judged.describe(), "warnings": warnings},
        lambda judge, clip: judge.judge_frames(clip.name, reader.frames(clip)),
    )


def _measure_chain(folder: str) -> dict[str, Any]:
    path = graph_folder.find_graph(_GRAPH.value, script.say)
    graph = graph_cache.load(path, script.say)
    name = path or "default weights"
    together, results = chain_evaluation.evaluate_graph(
        name, graph, _load_sets(), script.say, _BATCH_SIZE.value
    )
    _say_warnings(together.figures["warnings"])
    if folder:
        chain_report.write_report(folder, together, results)
    return together.figures


def _load_sets() -> list[evaluation_set.EvaluatedSet]:
    # Fail before the slow part: open all before any is read.
    builders = [_open_set(name) for name in _split_list(FLAGS.dataset)]
    return [_load_set(builder) for builder in builders]


def _open_set(name: str) -> tfds.core.DatasetBuilder:
    return prepared.open_builder(FLAGS.data_dir, name)


def _load_set(builder: tfds.core.DatasetBuilder) -> evaluation_set.EvaluatedSet:
    return evaluation_set.load_evaluation_set(
        builder,
        _SPLIT.value,
        say=script.say,
        where=_WHERE.value,
        allow_leaky_split=_ALLOW_LEAKY_SPLIT.value,
        num_resamples=_RESAMPLES.value,
    )


def _say_warnings(warnings: Iterable[str]) -> None:
    for warning in dict.fromkeys(warnings):
        script.say(f"WARNING: {warning}")


def _sampling() -> video.Sampling:
    return video.Sampling(_FRAMES.value, _EVERY.value)


if __name__ == "__main__":
    script.run_main(main)
