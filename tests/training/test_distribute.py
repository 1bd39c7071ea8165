"""One run on one device, on two devices and in two processes: it must be the same."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from dfdetect.training import distribute, rendezvous

ROOT = pathlib.Path(__file__).resolve().parents[2]
STEPS = 10

LINE = (
    "tests/support/line_training.py",
    "--batch_size=8",
    "--learning_rate=0.05",
    "--ema_decay=0.9",
    "--log_every=1",
    "--checkpoint_every=5",
    "--eval_every=15",
)
SCRIPT = (
    f"--steps={STEPS}",
    "--eval_every=10",
    "--checkpoint_every=3",
    "--log_every=1",
    "--batch_size=4",
    # A rounding error may turn a unit on or off: at a small rate that stays without
    # consequence.
    "--optimizer=sgd",
    "--learning_rate=0.0001",
    "--deterministic",
)
CLASSIFIER = (
    "train/classifier.py",
    *SCRIPT,
    "--dataset=labeled_faces",
    "--model=lightxception",
    "--image_size=71",
    "--dropout=0",
    "--projected=0",
    "--snapshot=dfdetect/default_weights/classifier",
)
DETECTOR = (
    "train/detector.py",
    *SCRIPT,
    "--dataset=hollywood_heads",
    "--image_size=128",
    # On the few pixels of the last maps, batch statistics enlarge rounding errors to
    # some 1e-5 of the loss. The classifier's test has batch norms of all replicas.
    "--freeze_bn",
    "--anchor_scale=2",
    "--scales=0.5,2",
    "--mosaic=0.5",
    "--jpeg_quality=50,95",
    "--drop_connect_rate=0",
    "--snapshot=dfdetect/default_weights/detector",
)


def _start(arguments, log, tf_config=None):
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    environment.pop("TF_CONFIG", None)
    if tf_config:
        environment["TF_CONFIG"] = json.dumps(tf_config)
    with open(log, "w", encoding="utf-8") as file:
        return subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            cwd=ROOT,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def _free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for opened in sockets:
        opened.bind(("127.0.0.1", 0))
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


class _Workers:
    """Two processes of one training, over loopback; both are ended on leaving."""

    def __init__(self, arguments, folder, of_second=()):
        hosts = [f"127.0.0.1:{port}" for port in _free_ports(2)]
        folder.mkdir(exist_ok=True)
        self.logs = [folder / f"worker{index}.log" for index in range(2)]
        self.processes = [
            _start(
                [*arguments, "--strategy=multi_worker", *(of_second if index else ())],
                log,
                {
                    "cluster": {"worker": hosts},
                    "task": {"type": "worker", "index": index},
                },
            )
            for index, log in enumerate(self.logs)
        ]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()

    def finish(self):
        codes = [process.wait(240) for process in self.processes]
        assert codes == [0, 0], [log.read_text()[-3000:] for log in self.logs]


def _run(arguments, log):
    process = _start(arguments, log)
    assert process.wait(240) == 0, log.read_text()[-3000:]


def _wait_for(text, log, process):
    until = time.monotonic() + 240
    while text not in log.read_text():
        assert process.poll() is None and time.monotonic() < until, log.read_text()
        time.sleep(0.02)


def _state(model_dir):
    path = tf.io.gfile.glob(str(model_dir / "checkpoints" / "*.index"))
    reader = tf.train.load_checkpoint(sorted(path)[-1].removesuffix(".index"))
    return {
        name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()
    }


def _losses(model_dir):
    """By step; a step that was done twice counts once."""
    losses = {}
    for name in sorted(model_dir.glob("*tfevents*")):
        for event in tf.compat.v1.train.summary_iterator(str(name)):
            for value in event.summary.value:
                if value.tag == "training/loss":
                    losses[event.step] = float(tf.make_ndarray(value.tensor))
    return [losses[step] for step in sorted(losses)]


def _assert_same(model_dir, other, tolerance=1e-5):
    first, second = _losses(model_dir)[:STEPS], _losses(other)[:STEPS]
    assert len(first) == STEPS and np.ptp(first) > 1e-3
    np.testing.assert_allclose(first, second, rtol=0, atol=tolerance)
    one, two = _state(model_dir), _state(other)
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_allclose(one[name], two[name], 0, tolerance, err_msg=name)


@pytest.fixture(scope="module", name="runs")
def _runs(tmp_path_factory):
    return tmp_path_factory.mktemp("distributed")


@pytest.fixture(scope="module", name="line")
def _line(runs):
    """The tiny model, trained on one device."""
    _run([*LINE, "--steps=30", f"--model_dir={runs / 'line'}"], runs / "line.log")
    return runs / "line"


@pytest.fixture(scope="module", name="classifier")
def _classifier(runs, prepared):
    arguments = [*CLASSIFIER, f"--data_dir={prepared}"]
    _run([*arguments, f"--model_dir={runs / 'classifier'}"], runs / "classifier.log")
    return runs / "classifier"


@pytest.fixture(scope="module", name="detector")
def _detector(runs, prepared):
    arguments = [*DETECTOR, f"--data_dir={prepared}"]
    _run([*arguments, f"--model_dir={runs / 'detector'}"], runs / "detector.log")
    return runs / "detector"


def test_two_devices_give_what_one_gives(line, runs):
    both = runs / "line_mirrored"
    arguments = [*LINE, "--steps=30", "--strategy=mirrored", "--devices=2"]
    _run([*arguments, f"--model_dir={both}"], runs / "line_mirrored.log")
    _assert_same(line, both)


@pytest.mark.slow
def test_a_killed_worker_ends_both_and_they_go_on(line, runs):
    whole, parts = runs / "line_workers", runs / "line_killed"
    arguments = [*LINE, "--steps=30", "--pause=0.1"]
    with _Workers([*arguments, f"--model_dir={whole}"], whole) as workers:
        workers.finish()
    _assert_same(line, whole)
    # Only the chief writes.
    assert len(list(whole.glob("*tfevents*"))) == 1

    with _Workers([*arguments, f"--model_dir={parts}"], parts) as workers:
        chief, other = workers.processes
        _wait_for("step 12/30", workers.logs[0], chief)
        other.kill()
        assert chief.wait(60) == 138
        last = workers.logs[0].read_text().strip().splitlines()[-1]
        assert last.startswith("line_training.py: another worker is lost at step 1")
        assert "they continue from step 10" in last
    with _Workers([*arguments, f"--model_dir={parts}"], parts) as workers:
        workers.finish()
        assert "continues from step 10" in workers.logs[0].read_text()
    expected, found = _state(whole), _state(parts)
    assert all(np.array_equal(expected[name], found[name]) for name in expected)
    assert _losses(parts) == _losses(whole)


@pytest.mark.slow  # Half a minute each.
@pytest.mark.parametrize("place", [0, 1], ids=["chief", "other"])
def test_a_worker_that_stands_still_ends_both(runs, place):
    """As one whose machine or network is gone without a word."""
    folder = runs / f"line_still_{place}"
    arguments = [*LINE, "--steps=500", "--pause=0.1", f"--model_dir={folder}"]
    with _Workers(arguments, folder) as workers:
        still, left = workers.processes[place], workers.processes[1 - place]
        _wait_for("step 12/500", workers.logs[0], workers.processes[0])
        still.send_signal(signal.SIGSTOP)
        assert left.wait(60) == 138
        last = workers.logs[1 - place].read_text().strip().splitlines()[-1]
        assert "another worker is lost at step 1" in last
        assert "Collective ops is aborted by" in last
        still.send_signal(signal.SIGCONT)
        assert still.wait(60) == 138


@pytest.mark.slow  # Half a minute each, which it waits.
@pytest.mark.parametrize("place", [0, 1], ids=["chief", "other"])
def test_a_worker_that_is_lost_before_all_are_connected_ends_the_others(runs, place):
    folder = runs / f"line_lost_{place}"
    folder.mkdir()
    hosts = [f"127.0.0.1:{port}" for port in _free_ports(2)]
    configs = [
        {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}}
        for index in range(2)
    ]
    log = folder / "worker.log"
    arguments = [*LINE, "--steps=30", f"--model_dir={folder}"]
    arguments += ["--strategy=multi_worker", "--start_timeout=20"]
    process = _start(arguments, log, configs[1 - place])
    try:
        # It comes, is found, and goes.
        rendezvous.wait_for_workers(json.dumps(configs[place]), 60, print)
        assert process.wait(90) == 138
    finally:
        process.kill()
        process.wait()
    assert "ends with code 138 if that takes more than 30 s" in log.read_text()


@pytest.mark.slow  # Half a minute.
def test_sigterm_to_one_worker_ends_both_after_a_checkpoint(runs):
    folder = runs / "line_terminated"
    arguments = [*LINE, "--steps=500", "--pause=0.1", f"--model_dir={folder}"]
    # No checkpoint but that of the signal.
    arguments += ["--checkpoint_every=1000", "--eval_every=1000"]
    with _Workers(arguments, folder) as workers:
        _wait_for("step 7/500", workers.logs[0], workers.processes[0])
        workers.processes[1].send_signal(signal.SIGTERM)
        codes = [process.wait(60) for process in workers.processes]
    assert codes == [128 + signal.SIGTERM] * 2
    (step,) = [int(path.stem[5:]) for path in folder.glob("checkpoints/*.index")]
    assert 7 <= step < 500 and f"step {step} is kept" in workers.logs[0].read_text()


@pytest.mark.slow
def test_workers_with_other_flags_both_leave_and_say_which(runs):
    folder = runs / "line_flags"
    arguments = [*LINE, "--steps=30", f"--model_dir={folder}"]
    others = ["--learning_rate=0.1", "--checkpoint_every=6", "--devices=2"]
    with _Workers(arguments, folder, others) as workers:
        assert [process.wait(240) for process in workers.processes] == [2, 2]
    first, second = (log.read_text().strip().splitlines()[-1] for log in workers.logs)
    assert (
        "this one has --checkpoint_every=6, the chief --checkpoint_every=5; "
        "--devices=2, the chief no --devices; "
        "--learning_rate=0.1, the chief --learning_rate=0.05." in second
    )
    assert "1 other workers cannot start" in first
    assert not list(folder.glob("*tfevents*")) and not (folder / "flags.txt").exists()


@pytest.mark.slow  # Half a minute.
def test_the_weights_of_the_chief_are_those_of_all(line, runs):
    folder = runs / "line_started"
    arguments = [*LINE, "--steps=2", f"--model_dir={folder}", f"--snapshot={line}"]
    with _Workers(arguments, folder, ["--snapshot=none"]) as workers:
        workers.finish()
    first = json.loads((folder / "evaluations.jsonl").read_text().splitlines()[0])
    lines = (line / "evaluations.jsonl").read_text().splitlines()
    best = max(map(json.loads, lines), key=lambda figures: figures["nearness"])
    assert first == {"nearness": pytest.approx(best["nearness"]), "step": 0}


@pytest.mark.slow
def test_where_the_chief_cannot_start_the_other_asks_to_be_started_again(runs):
    folder = runs / "line_spoilt"
    (folder / "checkpoints").mkdir(parents=True)
    for ending in ("index", "data-00000-of-00001"):
        (folder / "checkpoints" / f"step_00000005.{ending}").write_bytes(b"no bundle")
    arguments = [*LINE, "--steps=30", f"--model_dir={folder}"]
    with _Workers(arguments, folder) as workers:
        assert [process.wait(240) for process in workers.processes] == [1, 138]
    last = workers.logs[0].read_text().strip().splitlines()[-1]
    assert f"No checkpoint in {folder / 'checkpoints'} can be read" in last
    assert "start all of them again" in workers.logs[1].read_text()

    # So it does before any model is built, where the chief's system fails.
    (folder / "flags.txt").mkdir()
    with _Workers(arguments, folder) as workers:
        assert [process.wait(240) for process in workers.processes] == [1, 138]
    first, second = (log.read_text().strip().splitlines()[-1] for log in workers.logs)
    assert str(folder / "flags.txt") in first
    assert "1 other workers cannot start" in second and second.endswith("again")


@pytest.mark.slow  # Half a minute.
def test_workers_share_an_evaluation_and_get_what_one_gets(runs, prepared):
    arguments = ["tests/support/shared_evaluation.py", f"--data_dir={prepared}"]
    alone, both = runs / "evaluation_alone", runs / "evaluation_workers"
    _run([*arguments, f"--model_dir={alone}"], runs / "evaluation_alone.log")
    with _Workers([*arguments, f"--model_dir={both}"], both) as workers:
        workers.finish()
    (expected,) = (json.loads(p.read_text()) for p in alone.glob("worker*.json"))
    chief, other = (
        json.loads((both / f"worker{place}.json").read_text()) for place in range(2)
    )
    for case, of_chief, of_other in zip(expected, chief, other, strict=True):
        for part in ("classifier", "detector"):
            total = case[part].pop("judged")
            shares = [found[part].pop("judged") for found in (of_chief, of_other)]
            # Whole batches, the chief's first: of a single one the other has nothing.
            assert sum(shares) == total and shares[0] >= shares[1]
        assert of_chief == case
        assert of_other["detector"] == case["detector"]
        assert of_other["classifier"] == {"figures": {}, "calibration": {}}
    assert [case["detector"]["losses"]["val_loss"] > 0 for case in expected] == [
        True
    ] * 4


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_waits_for_others_obeys_signals(runs, number):
    host, other = (f"127.0.0.1:{port}" for port in _free_ports(2))
    config = {
        "cluster": {"worker": [host, other]},
        "task": {"type": "worker", "index": 0},
    }
    log = runs / "line_alone.log"
    arguments = [*LINE, "--steps=30", f"--model_dir={runs / 'line_alone'}"]
    process = _start([*arguments, "--strategy=multi_worker"], log, config)
    try:
        _wait_for(f"waits for worker 1 ({other})", log, process)
        process.send_signal(number)
        assert process.wait(30) in (-number, 128 + number)
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_the_classifier_on_two_devices(classifier, runs, prepared):
    arguments = [*CLASSIFIER, f"--data_dir={prepared}", "--devices=2"]
    both = runs / "classifier_mirrored"
    arguments += ["--strategy=mirrored", f"--model_dir={both}"]
    _run(arguments, runs / "classifier_mirrored.log")
    _assert_same(classifier, both)


@pytest.mark.slow
def test_the_classifier_killed_goes_on_bit_for_bit(classifier, runs, prepared):
    folder, log = runs / "classifier_killed", runs / "classifier_killed.log"
    arguments = [*CLASSIFIER, f"--data_dir={prepared}", f"--model_dir={folder}"]
    process = _start(arguments, log)
    while not list(folder.glob("checkpoints/*.index")):
        assert process.poll() is None, log.read_text()
        time.sleep(0.02)
    process.kill()
    process.wait()
    _run(arguments, log)
    assert re.search("continues from step [369]", log.read_text())
    expected, found = _state(classifier), _state(folder)
    assert all(np.array_equal(expected[name], found[name]) for name in expected)
    assert _losses(folder) == _losses(classifier)


@pytest.mark.slow
def test_the_classifier_in_two_processes(classifier, runs, prepared):
    both = runs / "classifier_workers"
    arguments = [*CLASSIFIER, f"--data_dir={prepared}", f"--model_dir={both}"]
    with _Workers(arguments, both) as workers:
        workers.finish()
    _assert_same(classifier, both)


@pytest.mark.slow
def test_the_detector_on_two_devices(detector, runs, prepared):
    both = runs / "detector_mirrored"
    arguments = [*DETECTOR, f"--data_dir={prepared}", "--devices=2"]
    arguments += ["--strategy=mirrored", f"--model_dir={both}"]
    _run(arguments, runs / "detector_mirrored.log")
    _assert_same(detector, both)


@pytest.mark.slow
def test_the_detector_in_two_processes(detector, runs, prepared):
    both = runs / "detector_workers"
    arguments = [*DETECTOR, f"--data_dir={prepared}", f"--model_dir={both}"]
    with _Workers(arguments, both) as workers:
        workers.finish()
    _assert_same(detector, both)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "multi_worker needs TF_CONFIG, such as .*is not set"),
        ("{", "TF_CONFIG must be like"),
        ('{"cluster": {"worker": ["a:1"]}}', "TF_CONFIG must be like .*'task'"),
        (
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
            "TF_CONFIG has no task worker 1",
        ),
        (
            '{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}',
            "each task once as host:port, got 'a'",
        ),
        (
            '{"cluster": {"worker": ["a:1", "a:1"]}, '
            '"task": {"type": "worker", "index": 0}}',
            "each task once",
        ),
        (
            '{"cluster": {"worker": ["a:1"], "ps": ["a:2"]}, '
            '"task": {"type": "worker", "index": 0}}',
            "may name chief and worker only",
        ),
    ],
)
def test_a_wrong_tf_config_is_one_clear_line(text, message):
    with pytest.raises(ValueError, match=message) as raised:
        distribute.check_tf_config(text)
    assert "\n" not in str(raised.value)


def test_a_wrong_strategy_is_refused():
    with pytest.raises(ValueError, match="one of .*multi_worker.*got 'many'"):
        distribute.build_strategy("many")
    with pytest.raises(ValueError, match="devices must fit the strategy one, got 2"):
        distribute.build_strategy("one", 2)
