"""Measures a trained model on a split of a prepared data set.

    python train/evaluate.py --task=detect --model_dir=runs/d0 \
      --data_dir=prepared --dataset=hollywood_heads --split=test --output=measured

    python train/evaluate.py --task=classify --model_dir=default,runs/classifier \
      --data_dir=prepared --dataset=labeled_faces,deepfake_challenge --output=measured

    python train/evaluate.py --task=classify --leave_out=source \
      --recipe=train/recipes/leave_one_out.flags --data_dir=prepared \
      --dataset=labeled_faces/sources,deepfake_challenge --output=measured

    python train/evaluate.py --task=classify --model_dir=default \
      --predictions=theirs.csv --detector=their_detector.py \
      --data_dir=prepared --dataset=labeled_faces --output=measured

    python train/evaluate.py --task=video --clips=FOLDER --output=measured

    python train/evaluate.py --task=chain --data_dir=prepared \
      --dataset=labeled_faces,deepfake_challenge --output=measured

A folder of clips has a labels.csv, see `dfdetect.evaluation.clip_evaluation`; instead a
prepared data set of frames, such as faceforensics/c23, may be named, whose videos are
the clips, see `dfdetect.evaluation.frame_clips`. `dfdetect detect` judges them alike.
A chain is such a graph on whole labeled images, next to its classifier on the heads of
the sets, see `dfdetect.evaluation.chain_evaluation`.

Classifiers are also measured on the fakes of each maker against the reals of each
source, see `dfdetect.evaluation.source_pairs`. With --leave_out, makers that a
classifier was not trained on are listed apart, see `dfdetect.evaluation.leave_one_out`:
of the given classifiers, whose manifests say what they were trained on, or of short
runs without each maker in turn (--recipe). Detectors of others are compared with ours,
by their probabilities or by a function, see `dfdetect.evaluation.peer_detectors`.

A summary is printed; --output keeps figures and a report, --json prints all figures.
Several classifiers and sets, also of a chain, may be given: each is measured on each.
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
from absl import flags

from dfdetect import files, manifest, script
from dfdetect.data import detector_input, prepared, record_fields, records
from dfdetect.evaluation import (
    chain_evaluation,
    classifier_comparison,
    clip_evaluation,
    detectors,
    evaluation_flags,
    evaluation_set,
    figures,
    frame_clips,
    maker_evaluation,
    peer_detectors,
)
from dfdetect.export import graph_cache, graph_folder
from dfdetect.media import video
from dfdetect.metrics import coco, detection_protocol
from dfdetect.models import model_directory
from dfdetect.pipeline import clips as clip_findings
from dfdetect.reports import (
    chain_report,
    classification_report,
    detection_report,
    source_tables,
    terminal_summary,
)

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(evaluation_flags)


def main(argv: list[str]) -> None:
    evaluation_flags.check_flags()
    output = FLAGS.output or ""
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
    measured = measure[FLAGS.task](folder)
    text = figures.to_json(measured)
    if output:
        files.write(output, f"{text}\n".encode())
    if FLAGS.json:
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


def _measure_classifiers(folder: str) -> dict[str, Any]:
    """Measures each classifier on each set; `results` of several."""
    others = FLAGS.recipe or evaluation_flags.has_peers()
    folders = evaluation_flags.split_list(
        FLAGS.model_dir or ("" if others else model_directory.DEFAULT_NAME)
    )
    # Fail before the slow part: what is wrong with sets, models and tables is found
    # before anything is trained or measured.
    steps = [int(step) for step in FLAGS.step]
    models = classifier_comparison.load_each(folders, steps)
    peers = _open_peers()
    sets = _load_sets()
    if FLAGS.leave_out:
        maker_evaluation.check_makers(sets, FLAGS.leave_out)
    of_peers = classifier_comparison.measure_peers(peers, sets, FLAGS.guess_missing)
    if FLAGS.recipe:
        models += classifier_comparison.load_each(_train_without_each(folder), steps)
    results = classifier_comparison.measure_each(
        models,
        sets,
        say=script.say,
        batch_size=FLAGS.batch_size,
        precision=FLAGS.precision,
        with_robustness=FLAGS.robustness,
        robustness_crops=FLAGS.robustness_crops,
    )
    results += of_peers
    _say_warnings(w for r in results for w in r.figures["warnings"])
    by_makers = classifier_comparison.measure_makers(
        models,
        peers,
        sets,
        results,
        leave_out=FLAGS.leave_out,
        say=script.say,
        num_resamples=FLAGS.resamples,
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
        [_open_set(name) for name in evaluation_flags.split_list(FLAGS.dataset)],
        FLAGS.leave_out,
        folder=folder,
        command=[
            sys.executable,
            trainer,
            f"--flagfile={FLAGS.recipe}",
            f"--data_dir={FLAGS.data_dir}",
            f"--dataset={FLAGS.dataset}",
            *(f"--where={condition}" for condition in FLAGS.where),
            *(["--allow_leaky_split"] if FLAGS.allow_leaky_split else []),
        ],
        say=script.say,
    )


def _open_peers() -> list[peer_detectors.Peer]:
    makers = FLAGS.peer_makers and [m for m in FLAGS.peer_makers if m != "none"]
    return peer_detectors.open_peers(
        FLAGS.predictions,
        FLAGS.detector,
        say=script.say,
        makers=makers,
        file_input=FLAGS.detector_input,
    )


def _measure_detector(folder: str) -> dict[str, Any]:
    builder = _open_set(FLAGS.dataset)
    coco.import_pycocotools()  # Fail before the slow part.
    detect, described, name = _load_detector()
    where = record_fields.parse_conditions(builder, FLAGS.split, FLAGS.where)
    batches = detector_input.build_evaluation_batches(
        builder,
        FLAGS.split,
        image_size=described["image_size"],
        batch_size=FLAGS.batch_size,
        where=where,
    )
    with records.naming_damage(builder, FLAGS.split):
        measured = detectors.collect_detections(detect, batches)
    found = {
        "task": "detect",
        "model": name,
        "step": int(FLAGS.step[0]) if FLAGS.step else None,
        "split": FLAGS.split,
        "where": FLAGS.where,
        "precision": FLAGS.precision,
        "data": prepared.describe_dataset(builder),
        "metrics": {
            **detection_protocol.compute_metrics(*measured),
            "coco": coco.compute_metrics(*measured),
        },
    }
    if folder:
        images = functools.partial(
            detector_input.read_images, builder, FLAGS.split, where=where
        )
        boxes, truth, extents = measured
        detection_report.write_report(
            folder, found, boxes, truth, extents=extents, images=images
        )
    return found


def _load_detector() -> tuple[detectors.Function, dict[str, Any], str]:
    """Loads the function that detects, its manifest and its name."""
    if FLAGS.tflite:
        path = os.path.join(FLAGS.tflite, "detector.tflite")
        described = manifest.read(FLAGS.tflite, "detector")
        return detectors.build_tflite_function(path), described, path
    step = int(FLAGS.step[0]) if FLAGS.step else None
    model, described = model_directory.load_detector(FLAGS.model_dir, step=step)
    if described.get("validation_split") == FLAGS.split != "validation":
        script.say(f"WARNING: the weights were chosen on the split {FLAGS.split}")
    contained = FLAGS.containment_threshold
    if contained is None:
        contained = described.get("containment_threshold", 1.0)
    detect = detectors.build_detect_function(
        model,
        FLAGS.tile,
        soft_nms_sigma=FLAGS.soft_nms_sigma,
        precision=FLAGS.precision,
        containment_threshold=contained,
    )
    is_default = model_directory.is_default(FLAGS.model_dir)
    return detect, described, "default weights" if is_default else FLAGS.model_dir


def _measure_clips(folder: str) -> dict[str, Any]:
    clips, described, judge_frames = _open_clips()
    graph = graph_folder.find_graph(FLAGS.graph, script.say)
    model = graph_cache.load(graph, script.say)
    thresholds = model.manifest["classifier"]["thresholds"]
    judge = clip_findings.ClipJudge(
        model,
        thresholds,
        _sampling(),
        aggregate=FLAGS.aggregate,
        batch_size=FLAGS.batch_size,
    )
    lines = clip_evaluation.judge_clips(
        clips, functools.partial(judge_frames, judge), script.say
    )
    measured = clip_evaluation.measure_clips(
        clips,
        lines,
        aggregate=FLAGS.aggregate,
        thresholds=thresholds,
        num_resamples=FLAGS.resamples,
    )
    if folder:
        clip_evaluation.write_results(folder, clips, lines)
    return {
        "task": "video",
        "model": graph or "default weights",
        **described,
        "split": FLAGS.split,
        "frames": FLAGS.frames,
        "every": FLAGS.every,
        **measured,
    }


def _open_clips() -> tuple[
    Sequence[clip_evaluation.LabeledClip], dict[str, Any], Callable
]:
    """Opens the clips; returns them, their description and how to judge one."""
    if FLAGS.clips is not None:
        clips = clip_evaluation.read_clips(FLAGS.clips, FLAGS.split)
        return clips, {"clips": FLAGS.clips}, lambda judge, clip: judge(clip.path)
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
    path = graph_folder.find_graph(FLAGS.graph, script.say)
    graph = graph_cache.load(path, script.say)
    name = path or "default weights"
    together, results = chain_evaluation.evaluate_graph(
        name, graph, _load_sets(), script.say, FLAGS.batch_size
    )
    _say_warnings(together.figures["warnings"])
    if folder:
        chain_report.write_report(folder, together, results)
    return together.figures


def _load_sets() -> list[evaluation_set.EvaluatedSet]:
    # Fail before the slow part: open all before any is read.
    builders = [_open_set(name) for name in evaluation_flags.split_list(FLAGS.dataset)]
    return [_load_set(builder) for builder in builders]


def _open_set(name: str) -> tfds.core.DatasetBuilder:
    return prepared.open_builder(FLAGS.data_dir, name)


def _load_set(builder: tfds.core.DatasetBuilder) -> evaluation_set.EvaluatedSet:
    return evaluation_set.load_evaluation_set(
        builder,
        FLAGS.split,
        say=script.say,
        where=FLAGS.where,
        allow_leaky_split=FLAGS.allow_leaky_split,
        num_resamples=FLAGS.resamples,
    )


def _say_warnings(warnings: Iterable[str]) -> None:
    for warning in dict.fromkeys(warnings):
        script.say(f"WARNING: {warning}")


def _sampling() -> video.Sampling:
    return video.Sampling(FLAGS.frames, FLAGS.every)


if __name__ == "__main__":
    script.run_main(main)
