"""The exported version: folded, checked against its models, all of it or nothing."""

import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.protobuf import config_pb2, saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

import serving_messages
import tiny_pipeline
from dfdetect import manifest
from dfdetect.export import (
    freezing,
    inspection,
    parity,
    publish,
    saved_pipeline,
    warmup,
)
from dfdetect.media import samples
from dfdetect.models import classifier as classifiers
from dfdetect.models import efficientdet, weights
from dfdetect.pipeline import build, embedding
from dfdetect.retrieval import storage
from dfdetect.retrieval.index import Index

_SIZES = [1, 2, 4]


@pytest.fixture(name="graph", scope="module")
def _graph():
    return tiny_pipeline.build()


@pytest.fixture(name="published", scope="module")
def _published(graph, tmp_path_factory):
    """Folder of a version in float32, how far it drifts, and what was told."""
    directory = tmp_path_factory.mktemp("base") / "1"
    told = []
    drift = publish.publish(
        graph, str(directory), "float32", _SIZES, 1000, say=told.append
    )
    return directory, drift, told


@pytest.fixture(name="lowered", scope="module")
def _lowered(graph, tmp_path_factory):
    """The same in bfloat16."""
    directory = tmp_path_factory.mktemp("base") / "1"
    return directory, publish.publish(graph, str(directory), "bfloat16", _SIZES, 1000)


def _batch():
    return np.array([*samples.draw_samples(3), b"", samples.read_portrait()], object)


def test_each_stage_is_told(published):
    _, _, told = published
    names = ("serving_default", "frames", "classify_crops", "embed", "embed_content")
    names += ("explain", "explain_heads")
    numbered = [f"{name}, {i} of 7" for i, name in enumerate(names, start=1)]
    assert told[:7] == [f"making the graph of {name}" for name in numbered]
    assert told[7] == "writing the graph"
    of_graph = [
        f"parity check: {name.replace(',', ' of the graph,')}" for name in numbered
    ]
    assert told[9:16] == of_graph
    of_models = [
        f"parity check: {what} by the models" for what in ("whole images", "crops")
    ]
    assert told[16:18] == of_models
    assert told[-1] == "writing warm-up requests and batching parameters"


def test_a_version_is_complete(published):
    directory, *_ = published
    assert [x.name for x in directory.parent.iterdir()] == ["1"]
    files = {str(x.relative_to(directory)) for x in directory.rglob("*")}
    assert {
        "saved_model.pb",
        "assets/manifest.json",
        "assets.extra/tf_serving_warmup_requests",
        "batching_params.pbtxt",
    } <= files
    described = manifest.read(directory / "assets", "pipeline")
    assert described["precision"] == "float32"
    found = inspection.list_operations(str(directory))
    assert not {"VarHandleOp", "ReadVariableOp", "VariableV2"} & found
    assert {"Conv2D", "NonMaxSuppressionV5", "While"} & found


def test_its_functions_are_called_as_they_are(published):
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((published[0] / "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0].graph_def
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    calls = [
        node.attr["config_proto"].s for node in nodes if "config_proto" in node.attr
    ]
    assert len(calls) > 7
    for call in calls:
        config = config_pb2.ConfigProto.FromString(call)
        assert config.graph_options.rewrite_options.disable_meta_optimizer


def test_float32_is_the_same(published):
    # All signatures, in a session, against the models.
    drift = dict(published[1])
    assert drift.pop("num_heads") >= 15
    assert max(drift.values()) < 1e-5


@pytest.mark.slow
def test_the_loaded_graph_answers_alike(graph, published):
    loaded = saved_pipeline.load(str(published[0]))
    for name in ("detect", "classify_crops", "embed", "explain"):
        expected = getattr(graph, name)(_batch())
        found = getattr(loaded, name)(_batch())
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_allclose(found[key], value, atol=1e-5)


@pytest.mark.slow
def test_bfloat16_is_near_and_smaller(graph, lowered, published):
    directory, drift = lowered
    assert drift["fake_probability"] < 0.02 and 1e-7 < drift["box"] < 0.01
    sizes = [
        (folder / "saved_model.pb").stat().st_size
        for folder in (directory, published[0])
    ]
    assert sizes[0] < sizes[1]
    expected = {name: getattr(graph, name)(_batch()) for name in ("embed", "explain")}
    with inspection.open_signatures(str(directory)) as run:
        # An index that was made in float32 stays valid, and so do explanations.
        for name, outputs in expected.items():
            for key, value in outputs.items():
                np.testing.assert_allclose(run(name, _batch())[key], value, atol=1e-5)
        found = run("serving_default", _batch())
    assert found["status"].tolist() == [0, 0, 0, 2, 0]


@pytest.mark.slow
def test_another_answer_is_refused(graph, tmp_path):
    saved_pipeline.save(
        freezing.freeze(tiny_pipeline.build(temperature=1.0)), str(tmp_path / "1")
    )
    with pytest.raises(ValueError, match=r"fake_probability may drift by 0.0001, got"):
        parity.check(graph, str(tmp_path / "1"), parity.BOUNDS["float32"])


def test_heads_that_are_missing_are_told():
    boxes = np.array([[[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]]], np.float32)
    outputs = {
        "num_heads": np.array([2]),
        "boxes": boxes,
        "head_scores": np.array([[0.9, 0.51]]),
        "fake_probabilities": np.array([[0.2, np.nan]]),
    }
    one = outputs | {"num_heads": np.array([1])}
    # The second is at the threshold.
    found = parity._compare_heads(outputs, one, 0.5, 0.02)
    assert len(found["box"]) == 1
    for pair in ((outputs, one), (one, outputs)):
        with pytest.raises(ValueError, match="must find the heads of image 0"):
            parity._compare_heads(*pair, 0.5, 0.001)
    moved = outputs | {"boxes": boxes + np.float32([[[0, 0, 0, 0.01]]])}
    found = parity._compare_heads(outputs, moved, 0.5, 0.02)
    np.testing.assert_allclose(found["box"], 0.02, rtol=1e-4)
    judged = outputs | {"fake_probabilities": np.array([[0.2, 0.3]])}
    found = parity._compare_heads(outputs, judged, 0.5, 0.02)
    assert found["fake_probability"].tolist() == [0, np.inf]


def test_neighbours_that_are_not_as_near_are_told():
    boxes = np.array([[[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1], [0, 0, 0, 0]]], np.float32)

    def outputs(ids, similarities):
        nothing = [[b"", b""], [math.nan, math.nan]]
        return {
            "num_heads": np.array([2]),
            "boxes": boxes,
            # The second is too small.
            "neighbour_ids": np.array([[ids, *[nothing[0]] * 2]], object),
            "neighbour_similarities": np.array([[similarities, *[nothing[1]] * 2]]),
        }

    wanted = outputs([b"a", b"b"], [0.9, 0.5])
    for exact in (True, False):
        parity._check_neighbours(wanted, wanted, exact)
        near = outputs([b"a", b"c"], [0.91, 0.6])
        parity._check_neighbours(wanted, near, exact)
        with pytest.raises(ValueError, match="as near as the models do, 0.5000, got 0"):
            parity._check_neighbours(wanted, outputs([b"a", b"b"], [0.9, 0.4]), exact)
    # ScaNN may miss the nearest, but not find nothing of what there is.
    missed = outputs([b"b", b""], [0.5, math.nan])
    parity._check_neighbours(wanted, missed, exact=False)
    with pytest.raises(ValueError, match="as near as the models do, 0.9000, got 0.50"):
        parity._check_neighbours(wanted, missed, exact=True)
    with pytest.raises(ValueError, match="that the models find, got none"):
        parity._check_neighbours(wanted, outputs([b"d", b"e"], [0.9, 0.5]), False)


class _Graph:
    """Is not saved, as a folder takes its place."""

    manifest = {"precision": "float32"}


def _save_folder(graph, directory, say):
    # No server takes it for a version.
    assert not os.path.basename(directory).isdecimal()
    os.makedirs(directory)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize(
    "module, function",
    [
        (inspection, "check_operations"),
        (parity, "check"),
        (warmup, "write_batching"),
    ],
)
def test_nothing_is_left_of_what_is_refused(
    module, function, error, tmp_path, monkeypatch
):
    def refuse(*_):
        raise error

    for name in ("check_operations", "open_signatures"):
        monkeypatch.setattr(inspection, name, lambda *_: None)
    for name in ("write_requests", "write_batching"):
        monkeypatch.setattr(warmup, name, lambda *_: None)
    monkeypatch.setattr(parity, "check", lambda *_: {})
    monkeypatch.setattr(freezing, "freeze", lambda graph, precision: graph)
    monkeypatch.setattr(saved_pipeline, "save", _save_folder)
    monkeypatch.setattr(module, function, refuse)
    with pytest.raises(error):
        publish.publish(_Graph(), str(tmp_path / "1"), "float32", _SIZES, 0)
    assert not list(tmp_path.iterdir())


def test_a_version_is_never_replaced(tmp_path):
    (tmp_path / "7").mkdir()
    with pytest.raises(FileExistsError, match="is there already"):
        publish.publish(_Graph(), str(tmp_path / "7"), "float32", _SIZES, 0)
    (tmp_path / "12.tmp").mkdir()
    assert publish.find_next_version(str(tmp_path)) == 8
    assert publish.find_next_version(str(tmp_path / "none")) == 1


class _Python(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
    def call(self, numbers):
        return tf.map_fn(lambda x: tf.numpy_function(abs, [x], tf.float32), numbers)


def test_python_in_the_graph_is_refused(tmp_path):
    module = _Python()
    tf.saved_model.save(module, str(tmp_path), {"serving_default": module.call})
    with pytest.raises(ValueError, match="of stock TensorFlow only, got PyFunc"):
        inspection.check_operations(str(tmp_path))


def test_operations_of_a_library_are_refused(tmp_path):
    saved = inspection.saved_model_pb2.SavedModel()
    function = saved.meta_graphs.add().graph_def.library.function.add()
    function.signature.name = "body"
    function.node_def.add(op="Scann>ScannSearchBatched")
    saved.meta_graphs[0].graph_def.node.add(op="body")
    (tmp_path / "saved_model.pb").write_bytes(saved.SerializeToString())
    with pytest.raises(ValueError, match="got Scann>ScannSearchBatched"):
        inspection.check_operations(str(tmp_path))


def test_warm_up_requests_can_be_answered(published):
    directory, *_ = published
    path = str(directory / warmup.REQUESTS)
    with inspection.open_signatures(str(directory)) as run:
        records = list(tf.compat.v1.io.tf_record_iterator(path))
        asked = []
        for record in records:
            request = prediction_log_pb2.PredictionLog.FromString(record)
            request = request.predict_log.request
            inputs = {k: tf.make_ndarray(v) for k, v in request.inputs.items()}
            batch = inputs.get("image_bytes", inputs.get("frames"))
            signature = request.model_spec.signature_name
            asked.append((signature, len(batch)))
            if asked[-1] == ("serving_default", 1):  # All of them would take long.
                assert run(signature, batch)["status"].tolist() == [0]
    others = ("classify_crops", "embed", "embed_content", "explain")
    others += ("explain_heads", "frames")
    assert asked == [("serving_default", size) for size in _SIZES] + [
        (name, 1) for name in others
    ]


def test_batching_parameters(published):
    text = (published[0] / warmup.BATCHING).read_text()
    parsed = text_format.Parse(text, serving_messages.BatchingParameters())
    assert parsed.max_batch_size.value == 4
    assert list(parsed.allowed_batch_sizes) == _SIZES
    assert parsed.batch_timeout_micros.value == 1000


def test_drawn_images_decode():
    images = samples.draw_samples(4)
    assert images == samples.draw_samples(4) and images != samples.draw_samples(
        4, seed=1
    )
    shapes = {
        cv2.imdecode(np.frombuffer(x, np.uint8), cv2.IMREAD_COLOR).shape for x in images
    }
    assert len(shapes) == 4
    assert images[0][:2] == b"\xff\xd8" and images[1][1:4] == b"PNG"


# The script, with real models of the smallest size.


@pytest.fixture(name="command", scope="module")
def _command(tmp_path_factory):
    base = tmp_path_factory.mktemp("models")
    described = tiny_pipeline.build().manifest
    described["detector"]["image_size"] = 128
    described["classifier"]["image_size"] = 64
    models = {
        "detector": efficientdet.EfficientDet(image_size=128),
        "classifier": classifiers.build("efficientnet_b0", 64),
    }
    for name, model in models.items():
        manifest.write(base / name, described[name])
        weights.save(model, base / name)
    return ["serve/export.py", *(f"--{x}={base / x}" for x in models)]


@pytest.mark.slow
def test_the_script_exports_for_saved_model_cli(command, tmp_path, run_script):
    done = run_script(*command, f"--output={tmp_path}", "--batch_sizes=1,2")
    assert done.stdout.splitlines()[-1] == str(tmp_path / "1")
    assert "largest drift from the models: fake_probability" in done.stderr
    np.save(tmp_path / "images.npy", np.array(samples.draw_samples(2)))
    done = run_script(
        *("-m", "tensorflow.python.tools.saved_model_cli", "run"),
        *("--dir", tmp_path / "1", "--tag_set", "serve"),
        *("--signature_def", "classify_crops"),
        *("--inputs", f"image_bytes={tmp_path / 'images.npy'}"),
        *("--outdir", tmp_path / "out"),
    )
    assert np.load(tmp_path / "out/status.npy").tolist() == [0, 0]
    assert np.load(tmp_path / "out/fake_probability.npy").shape == (2,)
    image = tmp_path / "image.png"
    image.write_bytes(samples.draw_samples(2)[1])
    done = run_script("-m", "dfdetect", "detect", image, "--model", tmp_path / "1")
    assert json.loads(done.stdout)["status"] in ("ok", "no_head", "head_too_small")


@pytest.mark.slow
def test_the_script_exports_an_index(command, tmp_path, run_script):
    directories = [flag.split("=")[1] for flag in command[1:]]
    described = build.build_from_directories(*directories).manifest
    wanted = embedding.describe(described, "forgery", 1.3)
    rows = np.random.default_rng(0).normal(size=(4, wanted["dimension"]))
    index = Index(rows, ["a", "b", "c", "d"], embedding=wanted)
    storage.save(index, str(tmp_path / "index"))
    command = [*command, f"--output={tmp_path / 'base'}", "--batch_sizes=1"]
    done = run_script(*command, f"--index={tmp_path / 'index'}", "--exact", "--top_k=3")
    version = done.stdout.splitlines()[-1]
    described = manifest.read(os.path.join(version, "assets"), "pipeline")
    assert described["index"] == {
        "count": 4,
        "top_k": 3,
        "exact": True,
        "embedding": wanted,
    }
    with inspection.open_signatures(version) as run:
        found = run("neighbours", np.array([samples.read_portrait(), b""], object))
    assert found["neighbour_ids"].shape[::2] == (2, 3)
    ids = found["neighbour_ids"][0][: found["num_heads"][0]].ravel()
    assert set(ids) <= {b"a", b"b", b"c", b"d"}
    # Another model's.
    rows = Index(rows, list("abcd"), embedding={**wanted, "fingerprint": "another"})
    storage.save(rows, str(tmp_path / "other"))
    done = run_script(*command, f"--index={tmp_path / 'other'}", check=False)
    assert done.returncode == 1 and "made with another model" in done.stderr


@pytest.mark.slow
def test_the_script_says_what_is_wrong(command, tmp_path, run_script):
    command = [*command, f"--output={tmp_path / 'base'}"]
    done = run_script(*command, "--batch_sizes=2,1", check=False)
    assert done.returncode == 2
    assert "must be ascending numbers from 1 on, got 2,1" in done.stderr
    package = tmp_path / "path" / "tensorflow_serving"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('none')\n")
    code = (
        f"import sys; sys.path.insert(0, {str(package.parent)!r}); "
        "sys.argv = sys.argv[1:]; import runpy; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = run_script("-c", code, *command, check=False)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.endswith("pip install 'dfdetect[serve]'"), done.stderr
    assert not (tmp_path / "base").exists()


@pytest.mark.slow
def test_a_script_that_is_ended_leaves_nothing(command, tmp_path):
    root = pathlib.Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, *command, f"--output={tmp_path}"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [x.name for x in tmp_path.iterdir() if x.name[0] != "."] == []
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 128 + signal.SIGTERM
    assert not list(tmp_path.iterdir())
