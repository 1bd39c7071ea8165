"""Training scripts as a user runs them: what they refuse, keep and resume."""

import json
import re
import shutil

import numpy as np
import pytest

import clips
import tiny_pipeline
from dfdetect import manifest
from dfdetect.export import saved_pipeline
from dfdetect.models import efficientdet, kept_steps, model_directory, weights
from dfdetect.training import checkpoints

CLASSIFIER = (
    "train/classifier.py",
    "--model=mesonet4",
    "--image_size=64",
    "--batch_size=4",
    "--eval_every=1",
    "--keep=3",
    "--projected=0",
    "--explained=0",
)


def _rename(source, target, name, config):
    """Copies a prepared set under another name, as a config of it."""
    (version,) = (source / "labeled_faces").iterdir()
    folder = target / name / config / version.name
    shutil.copytree(version, folder)
    for path in [*folder.iterdir()]:
        path.rename(folder / path.name.replace("labeled_faces", name))
    info = json.loads((folder / "dataset_info.json").read_text())
    info |= {"name": name, "configName": config}
    (folder / "dataset_info.json").write_text(json.dumps(info))


def _last_line(done):
    return done.stderr.strip().splitlines()[-1]


@pytest.fixture(scope="module", name="run")
def _run(run_script, prepared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "three"
    run_script(
        *CLASSIFIER,
        f"--data_dir={prepared}",
        "--dataset=labeled_faces",
        f"--model_dir={folder}",
        "--steps=3",
        "--warmup_steps=2",
    )
    return folder


@pytest.mark.slow
def test_a_run_is_continued_as_itself_or_not_at_all(run_script, prepared, run):
    for changes, code, message in (
        (["--image_size=96"], 2, "--image_size=96 now, --image_size=64 before; that"),
        (["--learning_rate=0.1"], 2, "--allow_changed_flags continues anyway"),
        # Its warm-up is as long, but over.
        (["--steps=2"], 0, "at step 3 after"),
        (["--steps=2", "--learning_rate=0.1"], 2, "--learning_rate=0.1 now"),
        (["--allow_changed_flags", "--warmup_steps=4", "--steps=4"], 2, "got 4"),
    ):
        done = run_script(
            *CLASSIFIER,
            f"--data_dir={prepared}",
            f"--model_dir={run}",
            "--steps=3",
            "--warmup_steps=2",
            *changes,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert message in _last_line(done)


@pytest.mark.slow
def test_what_is_refused_leaves_the_run_as_it_was(run_script, prepared, run, tmp_path):
    shutil.copytree(prepared / "labeled_faces", tmp_path / "labeled_faces")
    (path,) = tmp_path.rglob("dataset_info.json")
    recorded = [(run / name).read_text() for name in ("flags.txt", "data.json")]
    fingerprint = json.loads(recorded[1])[0]["fingerprint"]
    for place in path.parent.glob("*.json"):
        place.write_text(place.read_text().replace(fingerprint, "0" * 64))
    for data_dir, more, message in (
        (tmp_path, [], f"was {fingerprint} when"),
        (prepared, ["--snapshot=absent.npz"], "absent.npz"),
        (prepared, ["--freeze_through=absent"], "no layer 'absent' in"),
    ):
        done = run_script(
            *CLASSIFIER,
            f"--data_dir={data_dir}",
            f"--model_dir={run}",
            "--steps=4",
            "--learning_rate=0.1",
            "--allow_changed_flags",
            *more,
            check=False,
        )
        assert done.returncode and message in _last_line(done), done.stderr
        # What was refused is not on record.
        assert recorded == [(run / n).read_text() for n in ("flags.txt", "data.json")]
        assert len(list(run.glob("checkpoints/*.index"))) == 3


@pytest.mark.slow
def test_every_kept_step_is_measured_and_started_from(
    run_script, prepared, run, tmp_path
):
    done = run_script(
        "train/evaluate.py",
        "--task=classify",
        f"--model_dir={run}",
        "--step=1,3",
        f"--data_dir={prepared}",
        "--dataset=labeled_faces",
        "--split=validation",
        "--resamples=20",
        "--json",
    )
    results = json.loads(done.stdout)["results"]
    lines = (run / "evaluations.jsonl").read_text().splitlines()
    evaluated = {line["step"]: line for line in map(json.loads, lines)}
    assert [r["model"] for r in results] == [f"{run} step 1", f"{run} step 3"]
    for result, step in zip(results, (1, 3), strict=True):
        assert result["metrics"]["auc"] == pytest.approx(evaluated[step]["auc"])

    second = tmp_path / "second"
    done = run_script(
        *CLASSIFIER,
        f"--data_dir={prepared}",
        f"--model_dir={second}",
        f"--snapshot={run}",
        "--snapshot_step=2",
        "--validation_split=none",
        "--learning_rate=1e-30",
        "--steps=1",
    )
    assert "loaded; 0 missing; 0 unexpected; 0 mismatched" in done.stdout
    described = manifest.read(second, "classifier")
    assert described["validation_split"] == "none"
    assert described["metrics"]["validation"] == {"step": 1}
    assert described["thresholds"] == {"real_below": 0.5, "fake_from": 0.5}

    wanted = kept_steps.read_weights(kept_steps.find(str(run), 2))
    with np.load(second / "weights.npz") as found:
        np.testing.assert_allclose(found["logits/kernel"], wanted["logits/kernel"])

    done = run_script(
        "train/evaluate.py",
        "--task=classify",
        f"--model_dir={run}",
        "--step=9",
        f"--data_dir={prepared}",
        "--dataset=labeled_faces",
        check=False,
    )
    assert done.returncode == 1 and "keeps (1, 2, 3), got 9" in _last_line(done)


@pytest.mark.slow  # Most of a minute: exports.
def test_kept_steps_of_both_models_are_exported(run_script, run, tmp_path):
    best = manifest.read(run, "classifier")["metrics"]["validation"]["step"]
    other = best % 3 + 1
    folder = tmp_path / "detector"
    network = efficientdet.EfficientDet(image_size=128)
    arrays = {
        f"model/{key}": variable.value.numpy()
        for key, variable in weights.variables(network).items()
    }
    saved = checkpoints.Checkpoints(str(folder / kept_steps.FOLDER), keep=1)
    described = tiny_pipeline.build().manifest["detector"] | {"image_size": 128}
    saved.describe(7, described)
    saved.save(7, arrays)
    saved.wait()
    run_script(
        "serve/export.py",
        f"--output={tmp_path / 'base'}",
        f"--detector={folder}",  # It has no best weights.
        "--detector_step=7",
        f"--classifier={run}",
        f"--classifier_step={other}",
        "--batch_sizes=1",
    )
    graph = saved_pipeline.load(str(tmp_path / "base" / "1"))
    steps = [graph.manifest[kind]["step"] for kind in ("detector", "classifier")]
    assert steps == [7, other]
    wanted, chosen = (
        weights.fingerprint(model_directory.load_classifier(str(run), step=step)[0])
        for step in (other, best)
    )
    found = {kind: x["fingerprint"] for kind, x in graph.manifest["embeddings"].items()}
    network = weights.fingerprint(model_directory.load_content_network())
    assert found == {"forgery": wanted, "content": network}
    assert wanted != chosen


@pytest.mark.slow
def test_two_configs_of_a_set_are_validated_on_both(run_script, prepared, tmp_path):
    for config in ("full", "cropped"):
        _rename(prepared, tmp_path, "cvcs", config)
    run_script(
        *CLASSIFIER,
        f"--data_dir={tmp_path}",
        "--dataset=cvcs/full,cvcs/cropped",
        f"--model_dir={tmp_path / 'run'}",
        "--steps=1",
    )
    figures = json.loads((tmp_path / "run" / "evaluations.jsonl").read_text())
    both = [figures[f"auc_cvcs/{config}"] for config in ("full", "cropped")]
    assert figures["auc"] == pytest.approx(np.mean(both))
    packed = tmp_path / "packed.npz"
    done = run_script(
        "train/release.py",
        f"--model_dir={tmp_path / 'run'}",
        f"--data_dir={tmp_path}",
        "--dataset=cvcs/full,cvcs/cropped",
        f"--output={packed}",
    )
    _, described = model_directory.load_classifier(str(packed))
    measured = described["metrics"]
    assert measured["validation"].keys() == {"cvcs/full", "cvcs/cropped"}
    assert measured["test"].keys() == {"cvcs/full", "cvcs/cropped"}
    assert json.loads(done.stdout)["test"] == measured["test"]


@pytest.mark.parametrize("flags", [CLASSIFIER, ("train/detector.py",)])
def test_a_leaky_split_is_refused_at_the_start(run_script, tmp_path, flags):
    clips.prepare(tmp_path, {x: [("a", 20)] for x in ("train", "validation")})
    done = run_script(
        *flags,
        "--dataset=clips",
        f"--data_dir={tmp_path}",
        f"--model_dir={tmp_path / 'run'}",
        check=False,
    )
    assert done.returncode == 1
    assert "has a leaky split: 1 group in two splits" in _last_line(done)


@pytest.mark.slow
def test_what_cannot_be_trained_on_is_told_at_the_start(run_script, prepared, tmp_path):
    shutil.copytree(prepared / "labeled_faces", tmp_path / "labeled_faces")
    (path,) = tmp_path.rglob("metadata.json")
    metadata = json.loads(path.read_text())
    real_only = {"real": 4, "fake": 0}
    metadata["counts"]["validation"] |= real_only
    path.write_text(json.dumps(metadata))
    metadata["counts"]["train"] |= real_only
    other = shutil.copytree(tmp_path / "labeled_faces", tmp_path / "x/labeled_faces")
    (path,) = other.rglob("metadata.json")
    path.write_text(json.dumps(metadata))
    for flags, message in (
        ([f"--data_dir={tmp_path / 'x'}"], "real and fake examples to train on, got"),
        ([], "real and fake .*split validation .*labeled_faces .*'fake': 0"),
        (["--validation_split=holdout"], "examples in its split holdout, got .*none"),
        (["--best_metric=acc"], "best_metric must be one of .*got acc"),
        (["--strategy=mirrored", "--devices=3"], "multiple of 3 devices, got 4"),
    ):
        done = run_script(
            *CLASSIFIER,
            f"--data_dir={tmp_path}",
            f"--model_dir={tmp_path / 'run'}",
            "--steps=1",
            *flags,
            check=False,
        )
        assert done.returncode in (1, 2)

        assert re.search(message, _last_line(done)), done.stderr
