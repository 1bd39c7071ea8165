"""The graph that is kept: made once, loaded alike, made anew where it is damaged."""

import ast
import concurrent.futures
import functools
import os
import pathlib
import threading

import numpy as np
import pytest
import tensorflow as tf

import tiny_pipeline
from dfdetect.export import freezing, graph_cache
from dfdetect.media import samples
from dfdetect.pipeline import build as graphs


@functools.cache
def _build(temperature):
    """The tiny pipeline, once for all tests, as tracing is slow."""
    return tiny_pipeline.build(temperature=temperature)


@pytest.fixture
def made(monkeypatch, tmp_path):
    """What was said and which graphs were made, of a tiny pipeline for the real one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    calls = []

    def build(classifier, tile):
        calls.append(tile)
        temperature = 3.0 if classifier else 1.0
        return _build(temperature)

    monkeypatch.setattr(graphs, "build_from_directories", build)
    return calls


def _answers(model):
    batch = tf.constant([*samples.draw_samples(2), b"no image"])
    return {name: value.numpy() for name, value in model.detect(batch).items()}


def _same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_allclose(other[name], value, atol=1e-6)


def test_it_is_made_once_and_each_signature_when_it_is_called(made, tmp_path):
    said = []
    first = graph_cache.load(None, said.append)
    answers = _answers(first)
    assert made == [False]
    assert "building the networks" in said[0] and "serving_default" in said[1]
    assert said[2] == "prepared; the next start will be faster"
    (directory,) = (tmp_path / "cache" / "dfdetect").iterdir()
    kept = sorted(os.listdir(directory))
    assert kept == ["lock", "manifest.json", "serving_default.pb"]

    second = graph_cache.load(None, said.append)
    assert second.manifest == first.manifest and second.neighbours is None
    _same(answers, _answers(second))
    assert made == [False] and len(said) == 3  # From disk.

    crop = tf.constant([samples.read_portrait()])
    plain = _build(1.0)
    expected = plain.embed(crop)["embedding"]
    np.testing.assert_allclose(second.embed(crop)["embedding"], expected, atol=1e-6)
    assert made == [False, False] and (directory / "embed.pb").is_file()


def test_a_damaged_one_is_made_anew(made, tmp_path):
    answers = _answers(graph_cache.load(None, str))
    (directory,) = (tmp_path / "cache" / "dfdetect").iterdir()
    saved = directory / "serving_default.pb"
    whole = saved.read_bytes()
    saved.write_bytes(whole[: len(whole) // 2])
    (directory / "manifest.json").write_text("{")
    _same(answers, _answers(graph_cache.load(None, str)))
    assert made == [False, False]
    assert saved.stat().st_size > len(whole) // 2


def test_what_one_process_builds_another_waits_for(made, monkeypatch):
    build = graphs.build_from_directories
    begun, go_on = threading.Event(), threading.Event()

    def build_slowly(**options):
        begun.set()
        assert go_on.wait(60)
        return build(**options)

    monkeypatch.setattr(graphs, "build_from_directories", build_slowly)
    # Locks are of open files, so that threads stand for processes.
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(graph_cache.load, None, str)
        assert begun.wait(60)
        second = pool.submit(graph_cache.load, None, str)
        assert not concurrent.futures.wait([second], 0.2).done
        go_on.set()
        models = [one.result(60) for one in (first, second)]
    assert models[0].manifest == models[1].manifest
    _same(_answers(models[0]), _answers(models[1]))
    assert made == [False]


@pytest.mark.slow  # Traces twice.
def test_it_answers_where_nothing_can_be_kept(made, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    said = []
    in_the_way = _answers(graph_cache.load(None, said.append))
    # Once, before the slow part, and nothing is promised.
    assert "cannot be kept" in said[0] and "Not a directory" in said[0]
    assert "XDG_CACHE_HOME" in said[0]
    assert not any("cannot" in line or "faster" in line for line in said[1:])
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.chdir(tmp_path)
    _same(in_the_way, _answers(graph_cache.load(None, str)))
    assert sorted(os.listdir(tmp_path)) == ["file"]


def test_settings_have_graphs_of_their_own_and_old_ones_go(made, tmp_path):
    parent = tmp_path / "cache" / "dfdetect"
    for age in range(6):
        old = parent / f"graph-{age}"
        old.mkdir(parents=True)
        os.utime(old, (age, age))
    graph_cache.load(None, str)
    graph_cache.load(None, str, tile=True)
    kept = sorted(x.name for x in parent.iterdir())
    assert {"graph-4", "graph-5"} < set(kept) and len(kept) == 4
    assert sum(name.endswith("-tile") for name in kept) == 1
    assert made == [False, True]


@pytest.mark.slow  # Traces twice.
def test_each_classifier_has_a_graph_of_its_own(made, tmp_path):
    said = []
    plain = _answers(graph_cache.load(None, said.append))
    (tmp_path / "other.npz").write_bytes(b"some weights")
    other = str(tmp_path / "other.npz")
    judged = _answers(graph_cache.load(None, said.append, classifier=other))
    assert any(line.startswith(f"preparing {other}: ") for line in said)
    assert not np.allclose(
        judged["fake_probabilities"], plain["fake_probabilities"], equal_nan=True
    )
    assert made == [False, False]
    _same(judged, _answers(graph_cache.load(None, str, classifier=other)))
    assert made == [False, False]  # From disk.
    (tmp_path / "other.npz").write_bytes(b"other weights")
    graph_cache.load(None, str, classifier=other)
    assert made == [False] * 3


def test_with_a_gpu_nothing_is_fused_for_the_processor(made, monkeypatch):
    key = graph_cache._compute_key(False, None)
    frozen = []
    monkeypatch.setattr(freezing, "has_gpu", lambda: True)
    monkeypatch.setattr(
        freezing, "freeze", lambda built, **options: frozen.append(options) or built
    )
    assert graph_cache._compute_key(False, None) != key
    model = graph_cache.load(None, str)
    assert model._built.manifest == model.manifest
    assert frozen == [{"for_this_machine": False}]


def test_only_what_makes_the_graph_is_in_its_key(monkeypatch, tmp_path):
    monkeypatch.setattr(graph_cache, "_PACKAGE", tmp_path)
    for name in ("boxes.py", "media/decode.py", "default_weights/weights.npz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("a")
    for folder in ("cli", "media/__pycache__"):
        (tmp_path / folder).mkdir()
    key = graph_cache._compute_key(False, None)
    (tmp_path / "cli" / "detect.py").write_text("a")
    (tmp_path / "media" / "__pycache__" / "decode.pyc").write_text("a")
    assert graph_cache._compute_key(False, None) == key
    assert graph_cache._compute_key(True, None) != key
    for name in ("boxes.py", "media/decode.py", "default_weights/weights.npz"):
        (tmp_path / name).write_text("b")
        assert graph_cache._compute_key(False, None) != key
        key = graph_cache._compute_key(False, None)


def test_all_modules_that_make_the_graph_are_in_its_key():
    root = pathlib.Path(graph_cache.__file__).parents[2]
    listed = {path.relative_to(root) for path in graph_cache._list_sources()}
    found, left = set(), [pathlib.Path("dfdetect/export/graph_cache.py")]
    # It only reads and writes files, and looks into an index that a cached graph lacks.
    unrelated = ("files", "retrieval", "console", "iterators", "resumable")
    while left:
        path = left.pop()
        if path in found or not (root / path).is_file():
            continue
        found.add(path)
        for node in ast.walk(ast.parse((root / path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("dfdetect"):
                for alias in node.names:
                    parts = [*node.module.split("."), alias.name]
                    if parts[1] not in unrelated:
                        left.append(pathlib.Path(*parts).with_suffix(".py"))
    assert len(found) > 30 and found <= listed
