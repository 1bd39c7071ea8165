"""The scripts, run as a user runs them: from drawn images to an exported graph."""

import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import h5py
import numpy as np
import pytest
import tensorflow as tf

import clips
import drawn_heads
import labelled_images
from building_support import encoded
from dfdetect import manifest
from dfdetect.models import kept_steps, model_directory, squeezenet

_DRAWN = (("many", 6), ("rooms", 0), ("few", 1))

DETECTOR = (
    "--dataset=hollywood_heads",
    "--image_size=128",
    "--anchor_scale=2",
    "--batch_size=2",
    "--eval_every=2",
    "--log_every=1",
)
CLASSIFIER = (
    "--dataset=labeled_faces",
    "--model=lightxception",
    "--image_size=71",
    "--batch_size=4",
    "--crop_margin=1.1",
    "--sampling=pairs",
    "--self_blended=0.5",
    "--self_blending_masks=whole,inner,eyes_nose,mouth",
    "--self_blending_mismatches=resolution,warp",
    "--augmentation=forensic",
    "--eval_every=2",
    "--log_every=1",
)


def _train(run_script, script, prepared, model_dir, flags, steps, *more, check=True):
    return run_script(
        f"train/{script}.py",
        f"--data_dir={prepared}",
        f"--model_dir={model_dir}",
        f"--steps={steps}",
        *flags,
        *more,
        check=check,
    )


@pytest.fixture(scope="module")
def detector(run_script, prepared, tmp_path_factory):
    model_dir = tmp_path_factory.mktemp("runs") / "detector"
    _train(run_script, "detector", prepared, model_dir, DETECTOR, 2)
    return model_dir


@pytest.fixture(scope="module")
def classifier(run_script, prepared, tmp_path_factory):
    model_dir = tmp_path_factory.mktemp("runs") / "classifier"
    _train(run_script, "classifier", prepared, model_dir, CLASSIFIER, 2)
    return model_dir


def test_training_leaves_weights_manifest_and_flags(classifier):
    described = manifest.read(classifier, "classifier")
    assert [data["splits"]["train"] for data in described["data"]] == [8]
    assert described["crop_margin"] == 1.1 and described["temperature"] > 0
    band = described["thresholds"]
    assert 0 <= band["real_below"] <= band["fake_from"]
    assert band["false_positive_rate"] == band["false_negative_rate"] == 0
    assert 0 <= described["metrics"]["validation"]["auc"] <= 1
    _check_files(classifier)


@pytest.mark.slow  # A minute: the graph of a detector.
def test_training_of_a_detector_leaves_them_as_well(detector):
    described = manifest.read(detector, "detector")
    assert described["image_size"] == 128 and described["anchor_scale"] == 2.0
    assert [data["splits"]["train"] for data in described["data"]] == [6]
    assert 0 <= described["metrics"]["validation"]["ap"] <= 1
    _check_files(detector)


@pytest.mark.slow
def test_a_detector_is_validated_on_the_test_split_or_on_none(
    run_script, prepared, tmp_path
):
    test, none = tmp_path / "test", tmp_path / "none"
    flags = (*DETECTOR, "--validation_split=test")
    _train(run_script, "detector", prepared, test, flags, 1)
    described = manifest.read(test, "detector")
    assert described["validation_split"] == "test"
    figures = described["metrics"]["validation"]
    assert figures["num_true"] == 3 and 0 <= figures["ap"] <= 1
    flags = (*DETECTOR, "--validation_split=none")
    done = _train(run_script, "detector", prepared, none, flags, 1)
    assert "step 1/1" in done.stderr
    described = manifest.read(none, "detector")
    assert described["validation_split"] == "none"
    assert described["metrics"]["validation"] == {"step": 1}
    assert described["score_threshold"] > 0
    _check_files(none)


@pytest.mark.slow  # A minute: the graph of a detector.
def test_a_detector_keeps_the_weights_of_the_least_validation_loss(
    run_script, prepared, tmp_path
):
    flags = (*DETECTOR, "--eval_every=1", "--compute_val_loss")
    flags += ("--best_metric=-val_loss",)
    _train(run_script, "detector", prepared, tmp_path, flags, 2)
    lines = (tmp_path / "evaluations.jsonl").read_text().splitlines()
    losses = {
        line["step"]: [line[f"val_{name}loss"] for name in ("", "class_", "box_")]
        for line in map(json.loads, lines)
    }
    (first, *_), (second, *_) = losses[1], losses[2]
    assert first > 0 and second > 0 and first != second
    best = 1 if first < second else 2
    described = manifest.read(tmp_path, "detector")
    assert described["metrics"]["validation"]["step"] == best
    wanted = kept_steps.read_weights(kept_steps.find(str(tmp_path), best))
    with np.load(tmp_path / "weights.npz") as kept:
        for name in kept.files:
            np.testing.assert_array_equal(kept[name], wanted[name], err_msg=name)

    shown = {}
    for path in map(str, tmp_path.glob("*tfevents*")):
        for event in tf.compat.v1.train.summary_iterator(path):
            for value in event.summary.value:
                if value.tag.startswith("training/val_"):
                    number = float(tf.make_ndarray(value.tensor))
                    shown.setdefault(event.step, {})[value.tag] = number
    for step, values in losses.items():
        tags = [f"training/val_{name}loss" for name in ("", "class_", "box_")]
        assert [shown[step][tag] for tag in tags] == pytest.approx(values)


def _check_files(model_dir):
    assert (model_dir / "weights.npz").stat().st_size > 1_000_000
    assert "--batch_size=" in (model_dir / "flags.txt").read_text()


@pytest.mark.slow  # Most of a minute: trains twice.
def test_flags_of_a_run_repeat_it_and_training_goes_on(run_script, classifier):
    done = run_script(
        "train/classifier.py",
        f"--flagfile={classifier / 'flags.txt'}",
        "--steps=3",
    )
    assert "continues from step 2" in done.stderr
    assert "step 3/3" in done.stderr


@pytest.mark.slow
def test_a_classifier_learns_beside_a_teacher(run_script, prepared, tmp_path):
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    as_teacher = ("--model=mobilenet_v2", "--label_smoothing=0.1")
    _train(run_script, "classifier", prepared, teacher, CLASSIFIER, 1, *as_teacher)
    smaller = (f"--teacher={teacher}", "--image_size=96", "--training_size=71")
    done = _train(run_script, "classifier", prepared, student, CLASSIFIER, 2, *smaller)
    assert re.search(r"step 2/2 loss .* teacher \d", done.stderr)
    described = manifest.read(student, "classifier")
    assert described["model"] == "lightxception" and described["image_size"] == 96
    # What it learned from is not part of it.
    with np.load(student / "weights.npz") as weights:
        assert not any("block_" in name or "project" in name for name in weights.files)


@pytest.mark.slow
def test_a_detector_learns_from_several_sets_and_is_measured_on_each(
    run_script, prepared, tmp_path
):
    folder = tmp_path / "data"
    shutil.copytree(prepared / "hollywood_heads", folder / "hollywood_heads")
    drawn_heads.prepare(folder, "many_6", train=4, validation=2)
    drawn_heads.prepare(folder, "rooms_0", train=2, validation=2)
    drawn_heads.prepare(folder, "few_1", train=2)
    sets = ["hollywood_heads", *(f"drawn_heads/{n}_{c}" for n, c in _DRAWN)]
    flags = (*DETECTOR[1:], f"--dataset={','.join(sets)}", "--dataset_weights=2,1,1,1")
    done = _train(run_script, "detector", folder, tmp_path / "run", flags, 2)
    skipped = "drawn_heads/few_1 has no validation split: it is not validated on."
    assert skipped in done.stdout.splitlines()
    described = manifest.read(tmp_path / "run", "detector")
    configs = [(data["name"], data["config"]) for data in described["data"]]
    assert configs[0] == ("hollywood_heads", "")
    assert ("drawn_heads", "rooms_0") in configs and len(configs) == 4
    figures = described["metrics"]["validation"]
    parts = [figures[f"{name}/ap"] for name in sets[:2]]
    assert figures["ap"] == pytest.approx(np.mean(parts))
    assert described["score_threshold"] == figures["f1_score_threshold"]
    assert figures["drawn_heads/rooms_0/false_boxes_per_image"] <= 0.05
    assert not any(name.startswith("drawn_heads/few_1") for name in figures)


@pytest.mark.slow
def test_a_second_phase_starts_from_every_weight_of_the_first(
    run_script, prepared, tmp_path
):
    first, second = tmp_path / "first", tmp_path / "second"
    changes = ("--mosaic=0.5", "--jpeg_quality=40,95", "--scales=0.1,2")
    frozen = (*changes, "--freeze_backbone")
    done = _train(run_script, "detector", prepared, first, DETECTOR, 1, *frozen)
    missing = int(re.search(r"weights: 0 loaded; (\d+) missing", done.stdout)[1])
    # So small a rate leaves what is loaded as it is; batch norms stand still.
    still = ("--freeze_bn", "--learning_rate=1e-30", "--norandom_transform")
    start = f"--init_from={first}"
    done = _train(run_script, "detector", prepared, second, DETECTOR, 1, start, *still)
    report = f"weights: {missing} loaded; 0 missing; 0 unexpected; 0 mismatched"
    assert done.stdout.splitlines() == [report]
    with np.load(first / "weights.npz") as one, np.load(second / "weights.npz") as two:
        assert len(one.files) == missing and {*one.files} == {*two.files}
        for key in one.files:
            np.testing.assert_allclose(two[key], one[key], atol=1e-12, err_msg=key)
    # No step is better than the start, which is evaluated first.
    lines = (second / "evaluations.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1]
    assert manifest.read(second, "detector")["metrics"]["validation"]["step"] == 0

    other, third = ("--phi=1", start), tmp_path / "third"
    done = _train(
        run_script, "detector", prepared, third, DETECTOR, 1, *other, check=False
    )
    assert done.returncode == 1
    assert "does not fit efficientdet" in done.stderr.strip().splitlines()[-1]


@pytest.mark.slow  # Half a minute.
def test_evaluate_measures_a_classifier(run_script, prepared, classifier, tmp_path):
    output = tmp_path / "figures.json"
    run_script(
        "train/evaluate.py",
        "--task=classify",
        f"--model_dir={classifier}",
        f"--data_dir={prepared}",
        "--dataset=labeled_faces",
        "--robustness",
        f"--output={output}",
    )
    figures = json.loads(output.read_text())
    robustness = figures["robustness"]
    assert robustness["clean"]["auc"] == figures["metrics"]["auc"]
    assert {"rotation", "jpeg", "gamma"} <= robustness["alterations"].keys()
    low, high = figures["metrics"]["auc_interval"]
    assert 0 <= low <= figures["metrics"]["auc"] <= high <= 1
    assert figures["data"]["name"] == "labeled_faces" and figures["split"] == "test"
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]


@pytest.mark.slow
def test_evaluate_compares_classifiers_and_tells_of_leaks(
    run_script, prepared, classifier, tmp_path
):
    leak = {"train": [("a", 20), ("b", 40)], "test": [("b", 40), ("c", 40)]}
    data_dir = tmp_path / "data"
    clips.prepare(data_dir, leak)
    (data_dir / "labeled_faces").symlink_to(prepared / "labeled_faces")
    other = shutil.copytree(classifier, tmp_path / "other")
    folder = tmp_path / "measured"
    done = run_script(
        "train/evaluate.py",
        "--task=classify",
        f"--model_dir={classifier},{other}",
        f"--data_dir={data_dir}",
        "--dataset=labeled_faces,clips",
        "--allow_leaky_split",
        "--resamples=20",
        f"--output={folder}",
    )
    figures = json.loads((folder / "metrics.json").read_text())
    assert figures["leaky_split"]
    titles = [x for x in done.stdout.splitlines() if " on " in x and x[0] != " "]
    assert [x.endswith("(LEAKY SPLIT)") for x in titles] == [False, True] * 2
    assert f"written: {folder / 'report.html'}, " in done.stdout.splitlines()[-1]
    one, two, three, four = figures["results"]
    assert [r["leaky_split"] for r in figures["results"]] == [False, True, False, True]
    assert one["model"] != three["model"] and one["metrics"] == three["metrics"]
    assert two["data"]["name"] == four["data"]["name"] == "clips"
    assert two["num_videos"] == 6 and two["strata"]["method"]["original"]
    assert two["strata"]["method"]["original"]["metrics"]["auc"] is None
    warning = "WARNING: LEAKY SPLIT: 1 group in two splits, such as b"
    assert warning in done.stderr
    for name in ("report.md", "report.html"):
        assert "LEAKY SPLIT" in (folder / name).read_text()
    assert (folder / "4_roc.png").exists()


@pytest.mark.slow
def test_release_measures_compact_weights_on_each_set(
    run_script, prepared, classifier, tmp_path
):
    other = shutil.copytree(classifier, tmp_path / "other")
    with np.load(classifier / "weights.npz") as weights:
        arrays = dict(weights)
    np.savez(other / "weights.npz", **arrays | {"logits/bias": np.array([4.0], "f4")})
    done = run_script(
        "train/release.py",
        f"--model_dir={classifier},{other}",
        f"--data_dir={prepared}",
        "--dataset=labeled_faces",
        f"--output={tmp_path}",
    )
    described = manifest.read(tmp_path / "classifier", "classifier")
    assert described["metrics"]["validation"]["labeled_faces"]["auc"] >= 0
    assert described["thresholds"]["false_positive_rate"] <= 0.05
    test = described["metrics"]["test"]["labeled_faces"]
    assert test == json.loads(done.stdout)["test"]["labeled_faces"]
    assert test["auc_interval"][0] <= test["auc"] <= test["auc_interval"][1]
    with np.load(tmp_path / "classifier" / "weights.npz") as weights:
        assert weights["logits/kernel"].dtype == np.float16
        mean = (arrays["logits/bias"] + 4.0) / 2
        np.testing.assert_allclose(weights["logits/bias"], mean, rtol=1e-6)

    packed = tmp_path / "packed.npz"
    run_script(
        "train/release.py",
        f"--model_dir={classifier}",
        f"--data_dir={prepared}",
        "--dataset=labeled_faces,hollywood_heads",
        "--max_source_false_negative_rate=0",
        f"--output={packed}",
    )
    _, found = model_directory.load_classifier(str(packed))
    assert found["metrics"]["test"].keys() == {"labeled_faces"}
    assert found["thresholds"]["highest_false_negative_rate"] == 0
    heads = found["metrics"]["reals"]["hollywood_heads"]
    assert heads["test"]["num_heads"] > 0
    assert heads["validation"]["called_fake"] <= 0.05
    done = run_script(
        *("-m", "dfdetect", "detect", f"--classifier={packed}"), check=False
    )
    assert done.returncode == 0 and "fake_probability" in done.stdout

    teacher = shutil.copytree(classifier, tmp_path / "teacher")
    changed = manifest.read(teacher, "classifier") | {"model": "mobilenet_v2"}
    manifest.write(teacher, changed)
    done = run_script(
        "train/release.py",
        f"--model_dir={teacher}",
        f"--data_dir={prepared}",
        "--dataset=labeled_faces",
        check=False,
    )
    assert done.returncode and "is a teacher and cannot be published" in done.stderr


@pytest.mark.slow
def test_release_measures_a_set_of_one_label(run_script, prepared, tmp_path):
    image = encoded(".png", 40, 40)
    fakes = [(f"{i}.png", "fake", image) for i in range(3)]
    labelled_images.prepare(tmp_path, {"train": fakes, "validation": fakes})
    (tmp_path / "labeled_faces").symlink_to(prepared / "labeled_faces")
    flags = (
        "train/release.py",
        "--model_dir=dfdetect/default_weights/classifier",
        f"--data_dir={tmp_path}",
        f"--output={tmp_path / 'packed.npz'}",
    )
    run_script(*flags, "--dataset=labelled_images,labeled_faces")
    _, described = model_directory.load_classifier(str(tmp_path / "packed.npz"))
    found = described["metrics"]["validation"]
    assert found["labelled_images"].keys() == {"accuracy", "log_loss", "brier"}
    assert "auc" in found["labeled_faces"]
    failed = run_script(*flags, "--dataset=labelled_images", check=False)
    assert "reals and fakes in their validation splits, got" in failed.stderr
    assert failed.returncode == 1


@pytest.mark.slow
def test_release_fits_a_detector_to_another_size(
    run_script, prepared, detector, tmp_path
):
    done = run_script(
        "train/release.py",
        f"--model_dir={detector}",
        f"--data_dir={prepared}",
        "--dataset=hollywood_heads",
        "--image_size=96",
        "--containment_threshold=0.8",
        f"--output={tmp_path}",
    )
    described = manifest.read(tmp_path / "detector", "detector")
    assert (described["image_size"], described["containment_threshold"]) == (96, 0.8)
    metrics = described["metrics"]
    assert json.loads(done.stdout)["test"] == metrics["test"]
    assert described["score_threshold"] == metrics["validation"]["f1_score_threshold"]
    assert metrics["test"]["num_true"] == 3
    model, _ = model_directory.load_detector(str(tmp_path / "detector"))
    assert model.image_size == 96


@pytest.mark.slow
def test_evaluate_refuses_a_leaky_split(run_script, classifier, tmp_path):
    clips.prepare(tmp_path, {split: [("a", 20)] for split in ("train", "test")})
    done = run_script(
        "train/evaluate.py",
        "--task=classify",
        f"--model_dir={classifier}",
        f"--data_dir={tmp_path}",
        "--dataset=clips",
        check=False,
    )
    assert done.returncode == 1 and done.stdout == ""
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("evaluate.py: clips/1.0.0 has a leaky split: 1 group")


@pytest.mark.slow  # Most of a minute.
def test_evaluate_leaves_a_report_of_a_detector(
    run_script, prepared, detector, tmp_path
):
    folder = tmp_path / "measured"
    done = run_script(
        "train/evaluate.py",
        "--task=detect",
        f"--model_dir={detector}",
        f"--data_dir={prepared}",
        "--dataset=hollywood_heads",
        f"--output={folder}",
    )
    figures = json.loads((folder / "metrics.json").read_text())
    metrics = figures["metrics"]
    lines = done.stdout.splitlines()
    assert lines[0] == f"{detector} on hollywood_heads, test"
    assert re.search(rf"AP at IoU \.5 +{metrics['ap']:.3f} \[", done.stdout)
    assert lines[-1] == f"written: {folder / 'report.md'}, {folder / 'metrics.json'}"
    assert metrics["num_images"] == 3 and metrics["num_true"] == 3
    low, high = metrics["ap_interval"]
    assert 0 <= low <= metrics["ap"] <= high <= 1
    assert {"voc_ap", "recall_at_fppi", "by_size"} <= metrics.keys()
    assert (
        metrics["by_size"]["<16"]["num_true"]
        + sum(metrics["by_size"][name]["num_true"] for name in ("16-32", "32-64"))
        == metrics["num_true"]
    )
    assert metrics["by_size"][">=128"]["ap"] is None
    assert 0 <= metrics["coco"]["ap50"] <= 1 and metrics["coco"]["ap_large"] is None
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["metrics.json", "report.md", "precision_recall.png", "worst_images.jpg"]
    )
    assert figures["data"]["fingerprint"] in (folder / "report.md").read_text()

    names = [path.name for path in prepared.rglob("JPEGImages/mov_004_*")]
    where = f"image/filename={names[0]}|{names[1]}"
    done = run_script(
        "train/evaluate.py",
        "--task=detect",
        f"--model_dir={detector}",
        f"--data_dir={prepared}",
        "--dataset=hollywood_heads",
        f"--where={where}",
        f"--output={folder}",
    )
    assert done.stdout.startswith(f"{detector} on hollywood_heads, test, where {where}")
    figures = json.loads((folder / "metrics.json").read_text())
    assert figures["where"] == [where] and figures["metrics"]["num_images"] == 2
    report = (folder / "report.md").read_text()
    assert names[2] not in report
    assert f"| chosen | image/filename={names[0]}\\|{names[1]} |" in report

    done = run_script(
        "train/evaluate.py",
        "--task=detect",
        "--model_dir=default",
        f"--data_dir={prepared}",
        "--dataset=hollywood_heads",
    )
    assert done.stdout.startswith("default weights on hollywood_heads, test")


@pytest.mark.slow
def test_export_writes_a_version_that_detect_reads(
    run_script, prepared, detector, classifier, tmp_path
):
    export = (
        "serve/export.py",
        f"--output={tmp_path / 'base'}",
        f"--detector={detector}",
        f"--classifier={classifier}",
    )
    assert run_script(*export).stdout.strip().endswith("base/1")
    image = next((prepared / "source/hollywood_heads/JPEGImages").iterdir())
    command = "import sys; from dfdetect.cli import main; sys.exit(main.main())"
    done = run_script("-c", command, "detect", image, "--model", tmp_path / "base/1")
    line = json.loads(done.stdout)
    assert (line["width"], line["height"]) == (160, 96)
    assert line["status"] in ("ok", "no_head", "head_too_small")


@pytest.mark.slow
def test_distilled_weights_start_a_training(run_script, prepared, tmp_path):
    teacher = tmp_path / "teacher.h5"
    _write_teacher(teacher)
    run_script(
        "train/distill.py",
        "--model=lightxception",
        f"--teacher={teacher}",
        f"--images={prepared / 'source' / 'labeled_faces'}",
        f"--model_dir={tmp_path / 'distilled'}",
        "--image_size=71",
        "--teacher_size=64",
        "--held_out=2",
        "--batch_size=2",
        "--steps=2",
        "--eval_every=2",
    )
    done = _train(
        run_script,
        "classifier",
        prepared,
        tmp_path / "run",
        CLASSIFIER,
        1,
        f"--snapshot={tmp_path / 'distilled'}",
    )
    loaded, missing = (
        int(re.search(rf"(\d+) {word}", done.stdout)[1])
        for word in ("loaded", "missing")
    )
    assert loaded > 100 and missing == 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("train/classifier.py", "--model_dir=x"), "data_dir"),
        (("train/detector.py", "--phi=8", "--model_dir=x", "--data_dir=x"), "phi"),
        (("train/evaluate.py", "--task=sing"), "task"),
        (
            ("train/evaluate.py", "--task=detect", "--data_dir=x", "--dataset=x")
            + ("--output=setup.py",),
            "setup.py",
        ),
        (
            ("train/evaluate.py", "--task=video", "--clips=x", "--where=source=a"),
            "where chooses records",
        ),
        (("serve/export.py",), "output"),
    ],
)
def test_usage_errors_name_the_flag(run_script, arguments, message):
    done = run_script(*arguments, check=False)
    assert done.returncode != 0 and message in done.stderr


def test_the_detector_turns_away_bounds_and_changes_that_make_no_sense(run_script):
    code = """
import runpy
runpy.run_path("train/detector.py")
from absl import flags
for given in (
    ["--scales=2,1"], ["--scales=a,b"], ["--jpeg_quality=9"], ["--jpeg_quality=9,101"],
    ["--norandom_transform", "--mosaic=.5"], ["--norandom_transform"],
):
    flags.FLAGS.unparse_flags()
    for name in ("scales", "jpeg_quality", "random_transform", "mosaic"):
        flags.FLAGS[name].unparse()
    try:
        flags.FLAGS(["x", "--model_dir=x", "--data_dir=x", *given])
        print("taken")
    except flags.IllegalFlagValueError as error:
        print(error)
"""
    lines = run_script("-c", code).stdout.splitlines()
    for line, message in zip(
        lines,
        ["--scales=['2', '1']", "--scales", "--jpeg_quality", "--jpeg_quality"]
        + ["excludes --mosaic", "taken"],
        strict=True,
    ):
        assert message in line


def test_what_the_user_can_mend_is_one_line(run_script, classifier, prepared, tmp_path):
    done = _train(
        run_script, "classifier", tmp_path, tmp_path / "x", (), 1, check=False
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("classifier.py: labeled_faces is not prepared in")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "x").exists()
    heads = ("--dataset=hollywood_heads", "--self_blended=1", "--sampling=pairs")
    done = _train(
        run_script, "classifier", prepared, tmp_path / "x", heads, 1, check=False
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "must name a set with labels to validate on, got ['hollywood_heads']" in last
    masks = ("--self_blending_masks=mouth,ear",)
    done = _train(
        run_script, "classifier", prepared, tmp_path / "x", masks, 1, check=False
    )
    assert done.returncode != 0
    assert "['mouth', 'ear']: must be of whole, inner, eyes_nose" in done.stderr
    other = ("--dataset=labeled_faces", "--model=xception", "--image_size=71")
    done = _train(run_script, "classifier", prepared, classifier, other, 4, check=False)
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert "--model=xception" in last and "Choose another --model_dir" in last


@pytest.mark.parametrize("script", ["classifier", "detector", "distill"])
def test_recipes_name_flags_that_there_are(run_script, script):
    code = f"""
import glob, runpy
runpy.run_path("train/{script}.py")
from absl import flags
for path in glob.glob("train/recipes/*.flags"):
    if "train/{script}.py" in open(path).read():
        flags.FLAGS.unparse_flags()
        required = ["--model_dir=x", "--data_dir=x", "--teacher=x", "--images=x"]
        required = [flag for flag in required if flag[2:-2] in flags.FLAGS]
        flags.FLAGS(["x", f"--flagfile={{path}}", *required])
        changed = flags.FLAGS.flag_values_dict().get("random_transform")
        print(path.split("/")[-1], changed)
"""
    read = dict(line.split() for line in run_script("-c", code).stdout.splitlines())
    assert len(read) >= {"classifier": 10, "detector": 4, "distill": 2}[script]
    if script == "detector":
        # As the reference project's detector was trained.
        for phase in (1, 2):
            assert read[f"reference_detector_{phase}.flags"] == "True"


@pytest.mark.slow
def test_tensorboard_shows_a_run(detector, classifier, tmp_path):
    for model_dir in (detector, classifier):
        (tmp_path / model_dir.name).symlink_to(model_dir)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", f"--logdir={tmp_path}"]
        + [f"--port={port}", "--load_fast=false"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def tags(plugin, page="tags"):
        with urllib.request.urlopen(
            f"http://127.0.0.1:{port}/data/plugin/{plugin}/{page}", timeout=10
        ) as answer:
            return json.load(answer)

    try:
        until = time.monotonic() + 60
        while True:
            try:
                scalars = tags("scalars")
                if {"detector", "classifier"} <= scalars.keys():
                    break
            except urllib.error.URLError:
                pass
            assert time.monotonic() < until
            time.sleep(0.5)
        training = ("loss", "learning_rate", "gradient_norm", "images_per_second")
        wanted = {f"training/{name}" for name in (*training, "input_wait_share")}
        assert wanted | {"validation/ap"} <= scalars["detector"].keys()
        assert wanted | {"validation/auc"} <= scalars["classifier"].keys()
        images = tags("images")
        shown = {"training/batch", "validation/pr_curve"}
        assert shown | {"validation/detections"} <= images["detector"].keys()
        curves = {"validation/roc_curve", "validation/confusion_matrix"}
        heat = {"validation/grad_cam_of_real", "validation/grad_cam_of_fake"}
        assert shown | curves | heat <= images["classifier"].keys()
        assert "validation/pr_curves" in tags("pr_curves")["classifier"]
        assert {"flags", "manifest"} <= set(tags("text")["classifier"])
        assert "validation/fake_probability_of_real" in tags("histograms")["classifier"]
        assert "classifier" in tags("projector", "runs")
    finally:
        server.kill()
        server.wait()


def _write_teacher(path):
    """A SqueezeNet with random weights, in the layout of the public file."""
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for layer in squeezenet.SqueezeNet(64).layers:
            name = layer.name.replace("_", "/", 1)
            for variable in layer.weights:
                key = f"{name}_b" if variable.name == "bias" else "kernel"
                shape = tuple(variable.shape)
                file[f"{name}/{key}"] = random.normal(0, 0.05, shape)
