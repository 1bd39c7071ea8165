"""Versions that come and go while clients ask."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_management_pb2,
    model_pb2,
    prediction_log_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

import serving_support
from dfdetect import manifest
from dfdetect.media import decode, image_status
from dfdetect.serving import (
    config,
    errors,
    inference,
    metrics,
    model_store,
    saved_model,
    servable,
    versions,
)

STATES = get_model_status_pb2.ModelVersionStatus.State


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders of x / 2 + 2 and x / 2 + 3."""
    folder = tmp_path_factory.mktemp("saved")
    for number in (2, 3):
        serving_support.save(folder / str(number), serving_support.half_plus(number))
    return folder


def publish(source, base, version):
    """Copies a version aside and renames it."""
    aside = base / f"tmp_{version}"
    shutil.copytree(source, aside)
    aside.rename(base / str(version))


def states(store, name="half"):
    rows = store.status(model_pb2.ModelSpec(name=name)).model_version_status
    return {row.version: STATES.Name(row.state) for row in rows}


def model(text):
    return text_format.Parse(text, model_server_config_pb2.ModelConfig())


@pytest.mark.parametrize(
    "policy, expected",
    [
        ("", [9]),
        ("model_version_policy { latest { num_versions: 2 } }", [3, 9]),
        ("model_version_policy { all {} }", [1, 3, 9]),
        ("model_version_policy { specific { versions: 1 versions: 7 } }", [1]),
    ],
)
def test_policies_choose_versions(policy, expected):
    found = {1: "a", 9: "c", 3: "b"}
    assert list(versions.choose_versions(found, model(policy))) == expected


def test_versions_are_the_names_that_are_numbers(tmp_path):
    for name in ("00000123", "7", "tmp_8", "9.tmp", "-1", "1e3", str(2**63), "٣"):
        (tmp_path / name).mkdir()
    assert versions.find_versions(str(tmp_path)) == {
        7: str(tmp_path / "7"),
        123: str(tmp_path / "00000123"),
    }


@pytest.mark.parametrize(
    "text, message",
    [
        ('config { base_path: "x" }', "Model name must not be empty"),
        ('config { name: "a" }', "Expected model a to have an absolute path"),
        (
            'config { name: "a" base_path: "x" model_platform: "tensorflow" }',
            r"absolute path or URI; got base_path\(\)=x",
        ),
        (
            'config { name: "a" base_path: "/x" model_platform: "tensorflow" } ' * 2,
            "list model a multiple times",
        ),
        ('config { name: "a" base_path: "/x" }', "Illegal setting neither"),
        (
            'config { name: "a" base_path: "/x" model_type: TENSORFLOW '
            'model_platform: "tensorflow" }',
            "Illegal setting both",
        ),
        ('config { name: "a" base_path: "/x" model_type: OTHER }', "not supported"),
        (
            'config { name: "a" base_path: "/x" model_platform: "caffe" }',
            "must be of platform tensorflow, got caffe",
        ),
    ],
)
def test_lists_of_models_that_cannot_be_served(text, message):
    wanted = text_format.Parse(
        f"model_config_list {{ {text} }}", model_server_config_pb2.ModelServerConfig()
    )
    with pytest.raises(errors.ServingError, match=message):
        config.check_models(wanted)


def test_lists_of_models_that_can_be_served(monkeypatch, tmp_path):
    text = (
        'config { name: "a" base_path: "/x" model_type: TENSORFLOW } '
        'config { name: "b" base_path: "gs://x" model_platform: "tensorflow" }'
    )
    config.check_models(
        text_format.Parse(
            f"model_config_list {{ {text} }}",
            model_server_config_pb2.ModelServerConfig(),
        )
    )
    # A path of the command line may be relative.
    monkeypatch.chdir(tmp_path)
    (model,) = config.build_models_config("m", "x").model_config_list.config
    assert model.base_path == str(tmp_path / "x")


def test_a_new_version_under_load_fails_no_request(tmp_path, saved):
    base = tmp_path / "half"
    base.mkdir()
    publish(saved / "2", base, 1)
    with serving_support.in_process(
        model_name="half", model_base_path=str(base), enable_batching=True
    ) as started:
        answers, failures, stop = [], [], threading.Event()

        def ask(rest):
            while not stop.is_set():
                try:
                    if rest:
                        path = "/v1/models/half:predict"
                        status, found = started.client.rest(path, {"instances": [0.0]})
                        assert status == 200, found
                        answers.append(found["predictions"][0])
                    else:
                        found = started.client.predict(inputs={"x": np.float32([0.0])})
                        answers.append(found.outputs["y"].float_val[0])
                except Exception as error:
                    failures.append(error)

        threads = [threading.Thread(target=ask, args=(i == 0,)) for i in range(3)]
        for thread in threads:
            thread.start()
        for version in range(2, 6):
            publish(saved / str(2 + version % 2), base, version)
            serving_support.eventually(
                lambda number=version: (
                    states(started.server.store).get(number) == "AVAILABLE"
                )
            )
        serving_support.eventually(
            lambda: list(states(started.server.store).values()).count("END") == 4
        )
        stop.set()
        for thread in threads:
            thread.join()
        assert not failures
        assert set(answers) == {2.0, 3.0}
        # The folder goes, and with it the model.
        (base / "5").rename(base / "gone")
        serving_support.eventually(
            lambda: states(started.server.store)[5] == "END", seconds=5
        )


def test_a_broken_version_leaves_the_old_one(tmp_path, saved, capsys):
    base = tmp_path / "half"
    base.mkdir()
    publish(saved / "2", base, 1)
    with serving_support.in_process(
        model_name="half", model_base_path=str(base), max_num_load_retries=0
    ) as started:
        client = started.client
        (base / "2").mkdir()
        (base / "2" / "saved_model.pb").write_bytes(b"broken")
        serving_support.eventually(
            lambda: states(started.server.store) == {1: "AVAILABLE", 2: "END"}
        )
        status, document = client.rest("/v1/models/half/versions/2")
        (row,) = document["model_version_status"]
        assert status == 200 and row["state"] == "END"
        assert row["status"]["error_code"] != "OK"
        assert "Error parsing" in row["status"]["error_message"]
        assert str(tmp_path) not in row["status"]["error_message"]
        assert (
            client.predict(inputs={"x": np.float32([0.0])}).model_spec.version.value
            == 1
        )
        # Mended under another name, and published again.
        shutil.rmtree(base / "2")
        time.sleep(0.2)
        publish(saved / "3", base, 2)
        serving_support.eventually(
            lambda: states(started.server.store) == {1: "END", 2: "AVAILABLE"}
        )
    assert "Failed to load servable version" in capsys.readouterr().err


def test_loads_are_tried_again(tmp_path):
    (tmp_path / "1").mkdir()
    tries = []

    def load(name, number, path):
        tries.append(number)
        if len(tries) < 3:
            raise OSError(f"{path} is not there yet")
        return Closeable()

    store = model_store.ModelStore(load, 0.02, max_retries=2, retry_seconds=0.02)
    store.configure(config.build_models_config("m", str(tmp_path)))
    failed = store.wait_until_settled(10)
    assert not failed or "is not there yet" in failed["m"]
    serving_support.eventually(lambda: states(store, "m") == {1: "AVAILABLE"})
    assert tries == [1, 1, 1] and store.ready()
    store.close()


class Closeable:
    closed = False

    def close(self):
        self.closed = True


def test_a_version_in_use_is_not_freed(tmp_path):
    (tmp_path / "1").mkdir()
    store = model_store.ModelStore(lambda *version: Closeable(), 0.02)
    store.configure(config.build_models_config("m", str(tmp_path)))
    store.wait_until_settled(10)
    with store.use(model_pb2.ModelSpec(name="m")) as used:
        (tmp_path / "2").mkdir()
        serving_support.eventually(
            lambda: states(store, "m") == {1: "UNLOADING", 2: "AVAILABLE"}
        )
        time.sleep(0.1)
        assert not used.closed
    serving_support.eventually(lambda: states(store, "m")[1] == "END")
    assert used.closed
    store.close()
    assert states(store, "m") == {1: "END", 2: "END"}


def test_models_go_and_come_again_and_change_their_folder(tmp_path):
    """As in TensorFlow Serving's own server_core_test.cc."""
    for name in ("one/123", "two/123", "two/124"):
        (tmp_path / name).mkdir(parents=True)
    loads = []

    def load(name, number, path):
        loads.append(os.path.relpath(path, tmp_path))
        return Closeable()

    nothing = model_server_config_pb2.ModelServerConfig()
    nothing.model_config_list.SetInParent()
    one, two = (
        config.build_models_config("m", str(tmp_path / name)) for name in ("one", "two")
    )
    store = model_store.ModelStore(load, 0.02)
    store.configure(nothing)
    assert store.wait_until_settled(10) == {} and store.names() == []
    assert not store.ready()
    store.configure(one)
    store.wait_until_settled(10)
    assert states(store, "m") == {123: "AVAILABLE"}
    # What is no longer wanted goes, and is still told.
    store.configure(nothing)
    serving_support.eventually(lambda: states(store, "m") == {123: "END"})
    assert store.names() == []
    store.configure(one)
    store.wait_until_settled(10)
    assert states(store, "m") == {123: "AVAILABLE"}
    store.configure(two)
    swapped = {123: "END", 124: "AVAILABLE"}
    serving_support.eventually(lambda: states(store, "m") == swapped)
    store.configure(one)
    swapped = {123: "AVAILABLE", 124: "END"}
    serving_support.eventually(lambda: states(store, "m") == swapped)
    assert loads == ["one/123", "one/123", "two/124", "one/123"]
    custom = model_server_config_pb2.ModelServerConfig()
    custom.custom_model_config.SetInParent()
    with pytest.raises(errors.ServingError, match="custom_model_config"):
        store.configure(custom)
    assert states(store, "m") == swapped
    store.close()


def test_a_missing_base_path_is_refused_and_an_empty_one_is_not(tmp_path):
    lines = []
    store = model_store.ModelStore(lambda *version: Closeable(), 0.02, say=lines.append)
    with pytest.raises(errors.ServingError, match="Could not find base path") as caught:
        store.configure(config.build_models_config("m", str(tmp_path / "missing")))
    assert caught.value.code == "NOT_FOUND" and str(tmp_path) not in str(caught.value)
    store.configure(config.build_models_config("m", str(tmp_path)))
    assert lines == ["No versions of servable m found under base path"]
    assert not store.ready() and store.wait_until_settled(10) == {}
    (tmp_path / "1").mkdir()
    serving_support.eventually(store.ready)
    store.close()


def test_reloading_takes_the_new_models_alone(tmp_path, saved):
    base = tmp_path / "half"
    base.mkdir()
    publish(saved / "2", base, 1)
    publish(saved / "3", base, 2)
    with serving_support.in_process(
        model_name="half",
        model_base_path=str(base),
        allow_version_labels_for_unavailable_models=True,
    ) as started:
        client = started.client
        request = model_management_pb2.ReloadConfigRequest()
        labels = 'version_labels { key: "stable" value: 1 }'
        text = serving_support.config_text(
            other=(base, "model_version_policy { all {} } " + labels)
        )
        text_format.Parse(text, request.config)
        answer = client.models.HandleReloadConfigRequest(request)
        assert answer.HasField("status") and answer.status.error_code == 0
        found = client.predict("other", {"x": np.float32([0.0])}, label="stable")
        assert found.outputs["y"].float_val == [2.0]
        status, document = client.rest("/v1/models/half:predict", {"instances": [1]})
        assert status == 404 and document["error"].endswith("Latest(half)")


def labelled(base, stable, *numbers, **others):
    """The config of some versions with the label `stable`, and others."""
    listed = " ".join(f"versions: {number}" for number in numbers)
    labels = " ".join(
        f'version_labels {{ key: "{label}" value: {number} }}'
        for label, number in {"stable": stable, **others}.items()
    )
    policy = f"model_version_policy {{ specific {{ {listed} }} }} "
    return serving_support.config_text(half=(base, policy + labels))


def of_label(client, label):
    found = client.predict(inputs={"x": np.float32([0.0])}, label=label)
    return found.model_spec.version.value


@pytest.mark.parametrize("allowed", [False, True])
def test_a_label_stays_where_its_new_version_is_not_loaded(tmp_path, saved, allowed):
    base = tmp_path / "half"
    base.mkdir()
    for number in (1, 2):
        publish(saved / "2", base, number)
    path = tmp_path / "models.config"
    path.write_text(labelled(base, 1, 1))
    with serving_support.in_process(
        model_config_file=str(path), allow_version_labels_for_unavailable_models=allowed
    ) as started:
        client = started.client

        def reload(text):
            request = model_management_pb2.ReloadConfigRequest()
            text_format.Parse(text, request.config)
            return client.models.HandleReloadConfigRequest(request)

        # The version and the label in one step.
        with pytest.raises(grpc.RpcError) as caught:
            reload(labelled(base, 2, 1, 2))
        assert caught.value.code().name == "FAILED_PRECONDITION"
        assert "assign label stable to version 2" in caught.value.details()
        assert of_label(client, "stable") == 1
        assert states(started.server.store) == {1: "AVAILABLE"}
        # One step after the other.
        reload(labelled(base, 1, 1, 2))
        assert of_label(client, "stable") == 1
        reload(labelled(base, 2, 1, 2))
        assert of_label(client, "stable") == 2
        reload(labelled(base, 2, 2))
        serving_support.eventually(lambda: states(started.server.store)[1] == "END")
        assert of_label(client, "stable") == 2
        # A new label waits for its version only where that is allowed.
        if allowed:
            reload(labelled(base, 2, 2, canary=7))
            with pytest.raises(grpc.RpcError, match=r"Specific\(half, 7\)"):
                of_label(client, "canary")
        else:
            with pytest.raises(grpc.RpcError, match="assign label canary to version 7"):
                reload(labelled(base, 2, 2, canary=7))
            with pytest.raises(grpc.RpcError, match="Unrecognized .* label: canary"):
                of_label(client, "canary")


def test_a_refused_file_of_models_is_told_and_tried_again(tmp_path, saved, capsys):
    base = tmp_path / "half"
    base.mkdir()
    publish(saved / "2", base, 1)
    path = tmp_path / "models.config"
    path.write_text(labelled(base, 1, 1))
    with serving_support.in_process(
        model_config_file=str(path), model_config_file_poll_wait_seconds=0.05
    ) as started:
        publish(saved / "3", base, 2)
        path.write_text(labelled(base, 2, 1, 2))
        time.sleep(0.5)
        assert of_label(started.client, "stable") == 1
        assert states(started.server.store) == {1: "AVAILABLE"}
        path.write_text(labelled(base, 1, 1, 2))
        serving_support.eventually(
            lambda: states(started.server.store).get(2) == "AVAILABLE"
        )
        path.write_text(labelled(base, 2, 1, 2))
        serving_support.eventually(lambda: of_label(started.client, "stable") == 2)
    told = capsys.readouterr().err
    refused = "the model config stays as it was: Request to assign label stable to"
    assert told.count(refused) == 1


def test_the_list_of_models_is_read_again(tmp_path, saved):
    path = tmp_path / "models.config"
    for number in (2, 3):
        (tmp_path / f"half{number}").mkdir()
        publish(saved / str(number), tmp_path / f"half{number}", 1)
    path.write_text(serving_support.config_text(a=(tmp_path / "half2", "")))
    with serving_support.in_process(
        model_config_file=str(path), model_config_file_poll_wait_seconds=0.05
    ) as started:
        rest = started.client.rest
        assert rest("/v1/models/a")[0] == 200 and rest("/v1/models/b")[0] == 404
        for text in ("nonsense", ""):  # Empty: it is just being written.
            path.write_text(text)
            time.sleep(0.2)
            assert rest("/v1/models/a")[0] == 200
        path.write_text(serving_support.config_text(b=(tmp_path / "half3", "")))
        body = {"instances": [0.0]}
        serving_support.eventually(
            lambda: rest("/v1/models/b:predict", body) == (200, {"predictions": [3.0]})
        )
        serving_support.eventually(lambda: rest("/v1/models/a:predict", body)[0] == 404)


def warmup(folder, *logs):
    (folder / "assets.extra").mkdir()
    with tf.io.TFRecordWriter(str(folder / servable.WARMUP)) as writer:
        for log in logs:
            writer.write(log.SerializeToString())


def warmup_log(kind, signature=""):
    log = prediction_log_pb2.PredictionLog()
    request = getattr(log, f"{kind}_log").request
    if kind == "multi_inference":
        task = request.tasks.add(method_name="tensorflow/serving/regress")
        task.model_spec.name, task.model_spec.signature_name = "half", signature
    else:
        request.model_spec.name = "half"
        request.model_spec.signature_name = signature
    if kind == "predict":
        request.inputs["x"].CopyFrom(tf.make_tensor_proto([[1.0]]))
    else:
        request.input.example_list.examples.add()
    return log


def test_warm_up_requests_are_answered_before_the_version_is_there(tmp_path, saved):
    base = tmp_path / "half"
    base.mkdir()
    shutil.copytree(saved / "2", tmp_path / "warm")
    warmup(
        tmp_path / "warm",
        warmup_log("predict"),
        warmup_log("classify", "classify_x"),
        warmup_log("regress", "regress_x"),
        warmup_log("multi_inference", "regress_x"),
    )
    publish(tmp_path / "warm", base, 1)
    shutil.copytree(saved / "3", tmp_path / "cold")
    warmup(tmp_path / "cold", warmup_log("predict", "missing"))
    with serving_support.in_process(
        model_name="half", model_base_path=str(base), max_num_load_retries=0
    ) as started:
        page = started.client.rest("/monitoring/prometheus/metrics")[1]
        warmed = 'model_warmup_latency_count{model_path="half",status="OK"} 1.0'
        assert f":tensorflow:serving:{warmed}" in page
        # No request of a client.
        assert "request_count{" not in page
        publish(tmp_path / "cold", base, 2)
        serving_support.eventually(lambda: states(started.server.store).get(2) == "END")
        assert states(started.server.store)[1] == "AVAILABLE"
        status = started.server.store.status(model_pb2.ModelSpec(name="half"))
        told = status.model_version_status[0].status.error_message
        name = "2/assets.extra/tf_serving_warmup_requests"
        assert told == f'{name}, record 1: Serving signature key "missing" not found.'


@pytest.mark.parametrize(
    "damage, number",
    [
        (lambda content: content[:-3], 2),
        (lambda content: content + b"\0", 3),
        (lambda content: content[:20] + b"?" + content[21:], 1),
        (lambda content: b"a text", 1),
    ],
)
def test_a_damaged_file_of_warm_up_requests_is_named(tmp_path, saved, damage, number):
    base = tmp_path / "half"
    base.mkdir()
    publish(saved / "2", base, 1)
    warmup(base / "1", warmup_log("predict"), warmup_log("predict"))
    path = base / "1" / servable.WARMUP
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(errors.ServingError) as stop:
        serving_support.InProcess(
            model_name="half", model_base_path=str(base), max_num_load_retries=0
        )
    assert f"1/{servable.WARMUP}, record {number}: " in str(stop.value)
    assert str(tmp_path) not in str(stop.value)


def test_a_value_where_a_list_is_wanted_is_told_with_the_rank(tmp_path):
    serving_support.save(tmp_path / "heads" / "1", serving_support.no_heads)
    with serving_support.in_process(
        model_name="heads", model_base_path=str(tmp_path / "heads")
    ) as started:
        for rank, value in enumerate(({"b64": "eA=="}, [{"b64": "eA=="}])):
            body = {"inputs": {"image_bytes": value}}
            status, answer = started.client.rest("/v1/models/heads:predict", body)
            if rank == 1:
                assert status == 200
                continue
            assert status == 400
            told = "input tensor `image_bytes` has rank 0 (lists within lists); wanted"
            assert answer["error"].startswith(f"{told} is 1.")


def endless():
    """A loop of as many steps as it is told."""
    steps = tf.compat.v1.placeholder(tf.int32, [], "steps")
    _, ones = tf.while_loop(
        lambda step, value: step < steps,
        lambda step, value: (step + 1, tf.matmul(value, value) * 0.0 + 1.0),
        (0, tf.ones([50, 50])),
    )
    signature = {"steps": steps}, {"ones": ones}, "predict"
    names = ["serving_default", *(f"signature{number}" for number in range(50))]
    return dict.fromkeys(names, signature)


def endless_warmup(folder, steps=2**31 - 1, records=1):
    serving_support.save(folder, endless)
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.model_spec.name = "endless"
    log.predict_log.request.inputs["steps"].CopyFrom(tf.make_tensor_proto(steps))
    logs = []
    for number in range(records):
        logs.append(prediction_log_pb2.PredictionLog())
        logs[-1].CopyFrom(log)
        spec = logs[-1].predict_log.request.model_spec
        spec.signature_name = f"signature{number}"
    warmup(folder, *logs)


def test_a_load_is_given_up_between_its_warm_up_requests(tmp_path):
    endless_warmup(tmp_path / "1", 50_000, 50)
    loader = servable.Loader(metrics.Metrics(), None, ["serve"], None, warm_up)
    failed = []

    def load():
        with pytest.raises(errors.ServingError) as caught:
            loader.load("endless", 1, str(tmp_path / "1"))
        failed.append(caught.value)

    thread = threading.Thread(target=load)
    thread.start()
    time.sleep(1.0)
    loader.give_up()
    thread.join(20)
    assert failed and failed[0].code == "CANCELLED"


@pytest.mark.parametrize("joins", [False, True])
def test_warm_up_requests_are_answered_once_a_shape(tmp_path, saved, joins):
    shutil.copytree(saved / "2", tmp_path / "1")
    logs = []
    for size in (1, 1, 2, 3):
        logs.append(warmup_log("predict"))
        rows = tf.make_tensor_proto(np.ones([size, 1], np.float32))
        logs[-1].predict_log.request.inputs["x"].CopyFrom(rows)
        logs.append(warmup_log("classify", "classify_x"))
        examples = logs[-1].classify_log.request.input.example_list.examples
        for _ in range(size - 1):
            examples.add()
    logs += [warmup_log("regress", "regress_x"), warmup_log("predict")]
    warmup(tmp_path / "1", *logs)
    asked = []
    loader = servable.Loader(
        metrics.Metrics(),
        config.Batching() if joins else None,
        ["serve"],
        None,
        lambda model, log: asked.append(log.WhichOneof("log_type")),
    )
    loader.load("half", 1, str(tmp_path / "1")).close()
    times = 3 if joins else 1
    assert asked == ["predict_log", "classify_log"] * times + ["regress_log"]


def warm_up(model, log):
    inference.warm_up(model, log, 2**20)


@pytest.mark.slow
@pytest.mark.parametrize("first", [True, False])
def test_a_server_ends_in_time_while_a_version_loads(tmp_path, first):
    base = tmp_path / "endless"
    if not first:
        serving_support.save(base / "1", endless)
    endless_warmup(tmp_path / "aside")
    port, rest_port = serving_support.free_port(), serving_support.free_port()
    arguments = [
        *("--model_name=endless", f"--model_base_path={base}", "--max_run_seconds=0"),
        *(f"--port={port}", f"--rest_api_port={rest_port}", "--drain_seconds=4"),
    ]
    if first:
        (tmp_path / "aside").rename(tmp_path / "2")
        base.mkdir()
        (tmp_path / "2").rename(base / "2")
        process = subprocess.Popen(
            [sys.executable, "-m", "dfdetect", "serve", *arguments],
            cwd=serving_support.ROOT,
            env={**os.environ, "PYTHONPATH": str(serving_support.ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        while "Loading servable version" not in process.stderr.readline():
            assert process.poll() is None
        time.sleep(5)
    else:
        process = serving_support.start_process(*arguments)
        (tmp_path / "aside").rename(base / "2")
        client = serving_support.Client(port, rest_port)

        def loads():
            rows = client.rest("/v1/models/endless")[1]["model_version_status"]
            return {"2": "LOADING"}.items() <= {
                (row["version"], row["state"]) for row in rows
            }

        serving_support.eventually(loads)
        time.sleep(3)
        client.close()
    assert process.poll() is None
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert time.monotonic() - begun < 6
    said = process.stderr.read()
    assert "stopped; what was being loaded or run is given up" in said
    assert "Traceback" not in said


def test_a_graph_that_works_too_long_is_left(tmp_path):
    serving_support.save(tmp_path / "endless" / "1", endless)
    with serving_support.in_process(
        model_name="endless",
        model_base_path=str(tmp_path / "endless"),
        max_run_seconds=0.5,
    ) as started:
        path, begun = "/v1/models/endless:predict", time.monotonic()
        assert started.client.rest(path, {"inputs": 2**31 - 1})[0] == 504
        assert time.monotonic() < begun + 10
        assert started.client.rest(path, {"inputs": 1})[0] == 200


def test_large_images_are_not_decoded(tmp_path):
    spec = [tf.TensorSpec([None], tf.string, "image_bytes")]
    signatures = {
        "serving_default": tf.function(
            lambda image_bytes: {"status": decode.decode(image_bytes)[1]}, spec
        ),
        # As embeddings, which come without a status.
        "embed": tf.function(
            lambda image_bytes: {"embedding": tf.strings.length(image_bytes)}, spec
        ),
        "other": tf.function(lambda image_bytes: {"echo": image_bytes + ""}, spec),
    }
    tf.saved_model.save(tf.Module(), str(tmp_path / "ours" / "1"), signatures)
    encoded = [
        tf.io.encode_png(np.zeros([side, 100, 3], np.uint8)).numpy()
        for side in (100, 101)
    ] + [b"no image"]
    with serving_support.in_process(
        model_name="ours", model_base_path=str(tmp_path / "ours"), max_pixels=10_000
    ) as started:
        given = {"image_bytes": np.array(encoded, object)}
        found = started.client.predict("ours", given).outputs["status"].int_val
        assert list(found) == [
            image_status.OK,
            image_status.TOO_LARGE,
            image_status.UNREADABLE,
        ]
        assert (
            not started.client.predict("ours", {"image_bytes": np.array([], object)})
            .outputs["status"]
            .int_val
        )
        found = started.client.predict("ours", given, "embed").outputs["embedding"]
        same = [x == len(y) for x, y in zip(found.int_val, encoded, strict=True)]
        assert same == [True, False, True]
        # A model that is not ours gets what was sent.
        found = started.client.predict("ours", given, "other").outputs["echo"]
        assert list(found.string_val) == encoded


def test_headers_are_read_within_the_time_of_a_request(tmp_path):
    spec = [tf.TensorSpec([None], tf.string, "image_bytes")]
    signature = tf.function(
        lambda image_bytes: {"status": decode.decode(image_bytes)[1]}, spec
    )
    tf.saved_model.save(tf.Module(), str(tmp_path / "ours" / "1"), signature)
    # Segments of nothing, which are cheap to send.
    slow = b"\xff\xd8" + b"\xff\xe0\x00\x02" * 1990
    with serving_support.in_process(
        model_name="ours",
        model_base_path=str(tmp_path / "ours"),
        max_pixels=10_000,
        max_run_seconds=1,
    ) as started:
        given = {"image_bytes": np.array([slow] * 1000, object)}
        with pytest.raises(grpc.RpcError) as caught:
            started.client.predict("ours", given)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert "while headers were read" in caught.value.details()


class PreparedSlowly(saved_model.SavedModel):
    """A model that prepares some outputs only once it may."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.begun, self.allowed = threading.Event(), threading.Event()

    def _make_callable(self, feeds, fetches):
        if len(fetches) > 1:
            self.begun.set()
            assert self.allowed.wait(60)
        return super()._make_callable(feeds, fetches)


def test_outputs_that_are_being_prepared_keep_no_others_waiting(tmp_path):
    serving_support.save(tmp_path / "1", serving_support.adder)
    model = PreparedSlowly(str(tmp_path / "1"))
    signature = model.signatures["serving_default"]
    feeds = {
        signature.inputs["a"].name: np.float32([1.0]),
        signature.inputs["b"].name: np.int32([2]),
    }
    names = sorted(info.name for info in signature.outputs.values())
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(model.run(feeds, names)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    assert model.begun.wait(60)
    one = signature.outputs["sum"].name
    assert model.run(feeds, [one]) == {one: [3.0]} and not found
    model.allowed.set()
    for thread in threads:
        thread.join()
    assert [answer[one].tolist() for answer in found] == [[3.0], [3.0]]
    assert len(model._callables) == 2
    model.close()


def test_a_graph_that_is_optimized_already_is_not_optimized_again(tmp_path):
    for name, more in (("frozen", {"precision": "float32"}), ("plain", {})):
        serving_support.save(tmp_path / name, serving_support.no_heads)
        manifest.write(tmp_path / name / "assets", {**serving_support.PIPELINE, **more})
    serving_support.save(tmp_path / "other", serving_support.no_heads)
    has_gpu = bool(tf.config.list_physical_devices("GPU"))
    for name, is_optimized in (
        ("frozen", not has_gpu),
        ("plain", False),
        ("other", False),
    ):
        model = saved_model.SavedModel(str(tmp_path / name))
        rewriting = model._session._config.graph_options.rewrite_options
        assert rewriting.disable_meta_optimizer == is_optimized, name
        output = model.signatures["serving_default"].outputs["status"].name
        given = model.signatures["serving_default"].inputs["image_bytes"].name
        feeds = {given: np.array([b""], object)}
        assert model.run(feeds, [output])[output] == [1]
        model.close()


def test_a_server_may_leave_warm_up_requests_alone(tmp_path, saved):
    base = tmp_path / "half"
    base.mkdir()
    publish(saved / "2", base, 1)
    warmup(base / "1", warmup_log("predict", "missing"))
    with serving_support.in_process(
        model_name="half", model_base_path=str(base), enable_model_warmup=False
    ) as started:
        assert states(started.server.store) == {1: "AVAILABLE"}


def test_more_warm_up_records_than_are_allowed(tmp_path, saved):
    base = tmp_path / "half"
    base.mkdir()
    publish(saved / "2", base, 1)
    warmup(base / "1", *[warmup_log("predict")] * 1001)
    with pytest.raises(errors.ServingError, match="exceeds the maximum"):
        serving_support.InProcess(
            model_name="half", model_base_path=str(base), max_num_load_retries=0
        )


_SAVE_SCANN = """
import sys

import numpy as np
import tensorflow as tf
from scann.scann_ops.py import scann_ops


class Index(tf.Module):
    def __init__(self):
        super().__init__()
        rows = np.eye(32, dtype=np.float32)
        built = scann_ops.builder(rows, 1, "dot_product").score_brute_force().build()
        self.searcher = built.serialize_to_module()

    @tf.function(input_signature=[tf.TensorSpec([None, 32], tf.float32, "query")])
    def nearest(self, query):
        searcher = scann_ops.searcher_from_module(self.searcher)
        return {"ids": searcher.search_batched(query)[0]}


index = Index()
tf.saved_model.save(index, sys.argv[1], {"serving_default": index.nearest})
"""

_LOAD_SCANN = """
import sys

import numpy as np

from dfdetect.serving import saved_model

assert "scann" not in sys.modules
model = saved_model.SavedModel(sys.argv[1])
signature = model.signatures["serving_default"]
query = np.eye(32, dtype=np.float32)[3:5]
ids = signature.outputs["ids"].name
print(model.run({signature.inputs["query"].name: query}, [ids])[ids].tolist())
"""


@pytest.mark.slow
def test_operations_of_scann_are_there_when_a_graph_has_them(tmp_path, run_script):
    run_script("-c", _SAVE_SCANN, tmp_path / "1")
    found = run_script("-c", _LOAD_SCANN, tmp_path / "1")
    assert found.stdout == "[[3], [4]]\n"
