"""The signature `neighbours` of a graph with an index, before and after saving."""

import base64
import json

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

import serving_support
import tiny_pipeline
from dfdetect import manifest
from dfdetect.export import freezing, inspection, publish, saved_pipeline, warmup
from dfdetect.media import samples
from dfdetect.pipeline import deepfake_pipeline, embedding
from dfdetect.retrieval import neighbours as graph
from dfdetect.retrieval import searchers
from dfdetect.retrieval.entries import Entry
from dfdetect.retrieval.index import Index

_COUNT, _TOP_K = 2000, 10


@pytest.fixture(name="plain", scope="module")
def _plain():
    return tiny_pipeline.build()


@pytest.fixture(name="described", scope="module")
def _described(plain):
    """Description of the content embedding of heads."""
    margin = plain.manifest["classifier"]["crop_margin"]
    return embedding.describe(plain.manifest, "content", margin)


@pytest.fixture(name="known", scope="module")
def _known(described):
    """An index of random directions, searched exactly."""
    return Index(
        _random(_COUNT, described["dimension"]), _entries(), embedding=described
    )


@pytest.fixture(name="with_index", scope="module")
def _with_index(plain, known):
    return _attached(plain, graph.Neighbours(known, _TOP_K, exact=True))


def _random(count, dimension, seed=0):
    return np.random.default_rng(seed).normal(size=(count, dimension))


def _entries(count=_COUNT):
    """Entries of all labels, with ids that are not ASCII and one that is not UTF-8."""
    ids = [f"é{i}.jpg#{i % 3}" for i in range(count - 1)] + ["\udcff.png"]
    return [Entry(id, label=i % 3 - 1) for i, id in enumerate(ids)]


def _attached(plain, neighbours, **detector):
    """Attaches an index to the same models; `detector` changes its manifest."""
    described = {**plain.manifest, "detector": plain.manifest["detector"] | detector}
    return deepfake_pipeline.DeepfakePipeline(*plain._models(), described, neighbours)


def _near(centers, count, seed):
    """Draws unit vectors `[count, D]` near the centers."""
    random = np.random.default_rng(seed)
    rows = centers[random.integers(0, len(centers), count)]
    rows = rows + 0.3 * random.normal(size=rows.shape)
    return np.float32(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def _small():
    """Draws an image without any head that is large enough to be judged."""
    return tf.io.encode_png(np.full([12, 12, 3], 90, np.uint8)).numpy()


def _batch():
    """Images with heads, with heads that are too small, and without heads."""
    drawn = samples.draw_samples(3)
    return np.array([drawn[0], b"", _small(), *drawn[1:], b"no image"], object)


def _check_found(model, known, batch, outputs):
    """Checks ids, labels and similarities; returns the number of judged heads."""
    embedder = embedding.Embedder(model, "content", of_heads=True)
    detected = model.detect(batch)
    total = 0
    for image, embedded in enumerate(embedder(list(batch))):
        found = {name: np.array(value[image]) for name, value in outputs.items()}
        assert found["status"] == detected["status"][image]
        assert found["num_heads"] == detected["num_heads"][image]
        np.testing.assert_allclose(found["boxes"], detected["boxes"][image])
        judged = detected["fake_probabilities"][image].numpy()
        judged = (judged > 0) & (np.arange(len(judged)) < found["num_heads"])
        assert judged.sum() == len(embedded.embeddings)
        wanted = known.search(embedded.embeddings, _TOP_K)
        assert [
            [id.decode(errors="surrogateescape") for id in row]
            for row in found["neighbour_ids"][judged]
        ] == [[x.entry.id for x in row] for row in wanted]
        assert found["neighbour_labels"][judged].tolist() == [
            [x.entry.label for x in row] for row in wanted
        ]
        np.testing.assert_allclose(
            found["neighbour_similarities"][judged],
            np.reshape([[x.value for x in row] for row in wanted], (-1, _TOP_K)),
            atol=1e-5,
        )
        assert (found["neighbour_ids"][~judged] == b"").all()
        assert np.isnan(found["neighbour_similarities"][~judged]).all()
        assert (found["neighbour_labels"][~judged] == -1).all()
        total += judged.sum()
    return total


def test_heads_find_what_the_index_finds(with_index, known):
    outputs = with_index.neighbours(_batch())
    assert outputs["neighbour_ids"].shape == (6, 5, _TOP_K)
    assert _check_found(with_index, known, _batch(), outputs) == 9
    assert with_index.manifest["index"] == {
        "count": _COUNT,
        "top_k": _TOP_K,
        "exact": True,
        "embedding": known.embedding,
    }


@pytest.mark.parametrize("batch", [[], [b""], [_small()], [b"no", _small(), b""]])
def test_nothing_is_found_where_no_head_is(with_index, batch):
    outputs = with_index.neighbours(tf.constant(batch, tf.string))
    shape = (len(batch), 5, _TOP_K)
    assert outputs["neighbour_ids"].shape == shape
    assert (outputs["neighbour_ids"].numpy() == b"").all()
    assert np.isnan(outputs["neighbour_similarities"]).all()
    assert (outputs["neighbour_labels"].numpy() == -1).all()
    assert outputs["boxes"].shape == (len(batch), 5, 4)


def test_no_pipeline_has_neighbours_without_an_index(plain):
    assert plain.neighbours is None and "index" not in plain.manifest


@pytest.mark.slow
def test_no_head_at_all(plain, known):
    neighbours = graph.Neighbours(known, 3, exact=True)
    blind = _attached(plain, neighbours, score_threshold=0.99)
    outputs = blind.neighbours(np.array(samples.draw_samples(2), object))
    assert outputs["num_heads"].numpy().tolist() == [0, 0]
    assert outputs["status"].numpy().tolist() == [1, 1]
    assert outputs["neighbour_ids"].shape == (2, 5, 3)
    assert np.isnan(outputs["neighbour_similarities"]).all()


@pytest.mark.parametrize("exact", [True, False])
def test_any_number_of_queries(known, exact):
    neighbours = graph.Neighbours(known, 3, exact)
    search = tf.function(neighbours.search)
    searcher, entries = known.snapshot()
    for count in (0, 1, 150):
        found = search(tf.constant(searcher.rows[:count]))
        assert found["neighbour_ids"].shape == (count, 3)
        # A row is nearest to itself, where ScaNN looks for it at all.
        wanted = np.array([entry.id.encode() for entry in entries[:count]], object)
        itself = found["neighbour_ids"].numpy()[:, 0] == wanted
        assert itself.all() if exact else itself.sum() >= 0.9 * count
        nearest = found["neighbour_similarities"].numpy()[:, 0]
        np.testing.assert_allclose(nearest[itself], 1, atol=1e-5)
        labels = np.array([entry.label for entry in entries[:count]])
        assert (found["neighbour_labels"].numpy()[:, 0] == labels)[itself].all()


def test_scann_in_a_graph_finds_most_of_the_nearest(described):
    centers = _random(100, described["dimension"], seed=1)
    rows, queries = _near(centers, _COUNT, 2), _near(centers, 200, 3)
    built = Index(
        rows,
        _entries(),
        searcher="scann",
        target_recall=0.99,
        embedding=described,
    )
    found = [
        tf.function(graph.Neighbours(built, _TOP_K, exact).search)(queries)
        for exact in (True, False)
    ]
    recall = np.mean(
        [
            len(set(wanted) & set(came)) / _TOP_K
            for wanted, came in zip(
                *(x["neighbour_ids"].numpy().tolist() for x in found), strict=True
            )
        ]
    )
    # The target is that of known rows in the partitions of the index. The graph's are
    # trained anew, and never twice the same: .93 to 1 was seen of other queries.
    assert recall >= 0.85
    searched = built.snapshot()[0].settings.leaves_searched
    assert searched < built.snapshot()[0].settings.leaves


def test_scann_in_a_graph_looks_among_projections_by_the_metric_of_the_index(described):
    count, dimension = 600, described["dimension"]
    rows = _near(_random(50, dimension, seed=1), count, 2)
    rows += 3 * rows[0]  # Away from the origin, which projections are shifted to.
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    projected = searchers.ScaNNSettings(25, 25, 10, 64, "euclidean")
    searcher = searchers.ScaNN(rows, "cosine", projected)
    index = Index.restore(searcher, _entries(count), described, "scann")
    found = graph.Neighbours(index, 1, exact=False).search(tf.constant(rows))
    itself = found["neighbour_similarities"].numpy()[:, 0] > 1 - 1e-5
    assert itself.mean() > 0.95


@pytest.mark.parametrize("count", [1, 5, 16, 40])
def test_scann_may_find_fewer(described, count):
    rows = _random(count, described["dimension"], seed=count)
    small = Index(rows, _entries(count), embedding=described)
    queries = small.snapshot()[0].rows
    narrow = searchers.ScaNN(queries, "cosine", searchers.default_settings(count))
    assert narrow.settings.leaves_searched == 1
    small = Index.restore(narrow, _entries(count), described, "scann")
    neighbours = graph.Neighbours(small, _TOP_K, exact=False)
    assert neighbours.top_k == min(count, _TOP_K)
    found = {name: x.numpy() for name, x in neighbours.search(queries).items()}
    missing = np.isnan(found["neighbour_similarities"])
    assert missing.shape == (count, neighbours.top_k)
    assert ((found["neighbour_ids"] == b"") == missing).all()
    assert (found["neighbour_labels"][missing] == -1).all()
    # Fewer than 16 cannot be divided, and are all compared.
    assert not missing.any() if count < 16 else missing.any()


def test_a_graph_of_scann_finds_what_an_index_with_changes_finds(described):
    dimension = described["dimension"]
    rows = _near(_random(50, dimension, seed=1), 600, 2)
    entries = [Entry(f"{i}", label=i % 2) for i in range(600)]
    changed = Index(rows[:550], entries[:550], searcher="scann", embedding=described)
    changed.add(rows[550:], entries[550:]).result(60)
    changed.remove(["7"]).result(60)
    found = graph.Neighbours(changed, 1, exact=False).search(tf.constant(rows))
    ids = found["neighbour_ids"].numpy()[:, 0].astype(int)
    itself = ids == np.arange(600)
    assert itself[550:].mean() > 0.95 and itself.mean() > 0.95
    assert 7 not in ids
    np.testing.assert_allclose(
        found["neighbour_similarities"].numpy()[itself, 0], 1, atol=1e-5
    )


def test_other_indexes_are_refused(plain, described):
    dimension = described["dimension"]

    def attached(rows, metric="cosine", **changes):
        index = Index(
            rows,
            [str(i) for i in range(len(rows))],
            metric=metric,
            embedding={**described, **changes},
        )
        return _attached(plain, graph.Neighbours(index, 3, exact=True))

    rows = _random(3, dimension)
    assert attached(rows).neighbours is not None
    for changes, message in (
        ({"fingerprint": "another"}, "another model: fingerprint must be .*another"),
        ({"crop_margin": 1.0}, "another model: crop_margin must be 1.3, got 1.0"),
        ({"kind": "likeness"}, "kind must be one of .* got 'likeness'"),
        (
            {"dimension": dimension + 1},
            rf"stated dimension, \[N, {dimension + 1}\], got \[3, ",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            attached(rows, **changes)
    other = _random(3, dimension + 1)
    with pytest.raises(ValueError, match=f"dimension must be {dimension}, got"):
        attached(other, dimension=dimension + 1)
    with pytest.raises(ValueError, match=rf"\[N, {dimension}\], got \[3, "):
        attached(other)
    with pytest.raises(ValueError, match="must have entries .*, got 0 entries"):
        attached(rows[:0])
    with pytest.raises(ValueError, match="got 3 entries and 'euclidean'"):
        attached(rows, "euclidean")
    with pytest.raises(ValueError, match="kind must be one of"):
        nameless = Index(rows, ["a", "b", "c"], embedding={"dimension": dimension})
        _attached(plain, graph.Neighbours(nameless, 3, exact=True))


# What is published.

_LOOK_UP = """
import json
import sys

import numpy as np

from dfdetect.export import saved_pipeline

batch = np.load(sys.argv[2], allow_pickle=True)
model = saved_pipeline.load(sys.argv[1])
outputs = model.neighbours(batch)
ids = outputs.pop("neighbour_ids").numpy().tolist()
ids = [[[x.hex() for x in row] for row in rows] for rows in ids]
numbers = {name: value.numpy().tolist() for name, value in outputs.items()}
print(json.dumps({"neighbour_ids": ids, **numbers}))
"""


@pytest.fixture(name="models", scope="module")
def _models(with_index, plain, known):
    searcher, entries = known.snapshot()
    every = searchers.ScaNNSettings(leaves=40, leaves_searched=40, reordered=_COUNT)
    # Looking everywhere, it finds what is nearest, whatever the last digit of a query.
    thorough = Index.restore(
        searchers.ScaNN(searcher.rows, "cosine", every),
        entries,
        known.embedding,
        "scann",
    )
    scann = _attached(plain, graph.Neighbours(thorough, _TOP_K, exact=False))
    return {"exact": with_index, "scann": scann}


@pytest.fixture(name="published", scope="module")
def _published(models, tmp_path_factory):
    """Folders of versions by name."""
    base = tmp_path_factory.mktemp("base")
    for name, model in models.items():
        directory = str(base / name / "1")
        drift = publish.publish(model, directory, "float32", [1, 2], 1000)
        assert drift["num_heads"] >= 15
    return {name: base / name / "1" for name in models}


@pytest.fixture(name="server", scope="module")
def _server(published, tmp_path_factory):
    """A client of `dfdetect serve` with both versions."""
    path = tmp_path_factory.mktemp("config") / "models.config"
    path.write_text(
        serving_support.config_text(
            **{name: (version.parent, "") for name, version in published.items()}
        )
    )
    ports = serving_support.free_port(), serving_support.free_port()
    process = serving_support.start_process(
        "--model_config_file",
        path,
        "--port",
        ports[0],
        "--rest_api_port",
        ports[1],
    )
    client = serving_support.Client(*ports)
    yield client
    client.close()
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 0


def _check_same(found, wanted):
    """Checks equal ids and close numbers of the same weights, folded or not."""
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        if value.dtype == tf.float32:
            np.testing.assert_allclose(found[name], value, atol=1e-5)
        else:
            np.testing.assert_array_equal(found[name], value)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["exact", "scann"])
def test_a_version_finds_the_same_in_a_fresh_process(
    name, models, published, tmp_path, run_script
):
    np.save(tmp_path / "batch.npy", _batch())
    code, arguments = _LOOK_UP, (published[name], tmp_path / "batch.npy")
    found = json.loads(run_script("-c", code, *arguments).stdout)
    found["neighbour_ids"] = [
        [[bytes.fromhex(x) for x in row] for row in rows]
        for rows in found["neighbour_ids"]
    ]
    _check_same(found, models["exact"].neighbours(_batch()))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["exact", "scann"])
def test_the_server_finds_the_same_over_both_protocols(name, models, server):
    wanted = models["exact"].neighbours(_batch())
    answer = server.predict(name, {"image_bytes": _batch()}, "neighbours")
    found = {key: tf.make_ndarray(value) for key, value in answer.outputs.items()}
    _check_same(found, wanted)
    instances = [{"b64": base64.b64encode(x).decode()} for x in _batch()]
    body = {"signature_name": "neighbours", "instances": instances}
    status, document = server.rest(f"/v1/models/{name}:predict", body)
    assert status == 200
    rows = {
        key: [row[key] for row in document["predictions"]]
        for key in document["predictions"][0]
    }
    rows["neighbour_ids"] = [
        [[x.encode(errors="surrogateescape") for x in row] for row in of_image]
        for of_image in rows["neighbour_ids"]
    ]
    _check_same(rows, wanted)


@pytest.mark.slow
def test_only_what_was_asked_for_may_need_scann(models, published, tmp_path):
    assert manifest.read(published["exact"] / "assets", "pipeline")["index"]["exact"]
    inspection.check_operations(str(published["exact"]))
    directory = str(published["scann"])
    inspection.check_operations(directory, inspection.SCANN)
    with pytest.raises(ValueError, match="of stock TensorFlow only, got Scann>"):
        inspection.check_operations(directory)
    model = models["scann"]
    described = dict(model.manifest)
    model.manifest["index"] = described["index"] | {"exact": True}
    try:
        with pytest.raises(ValueError, match="of stock TensorFlow only, got Scann>"):
            publish.publish(model, str(tmp_path / "1"), "float32", [1], 1000)
    finally:
        model.manifest = described
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["exact", "scann"])
def test_warm_up_looks_into_the_index_too(name, published):
    path = str(published[name] / warmup.REQUESTS)
    asked = [
        prediction_log_pb2.PredictionLog.FromString(
            record
        ).predict_log.request.model_spec.signature_name
        for record in tf.compat.v1.io.tf_record_iterator(path)
    ]
    assert asked.count("neighbours") == 1


@pytest.mark.slow
def test_a_folded_graph_is_saved_with_its_index(models, tmp_path):
    saved_pipeline.save(freezing.freeze(models["exact"]), str(tmp_path / "1"))
    drawn = np.array(samples.draw_samples(1), object)
    loaded = saved_pipeline.load(str(tmp_path / "1"))
    found = loaded.neighbours(tf.constant(drawn))
    _check_same(found, models["exact"].neighbours(drawn))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_folded_graph_finds_the_same(models, precision):
    drawn = np.array(samples.draw_samples(2), object)
    wanted = models["exact"].neighbours(drawn)
    found = freezing.freeze(models["exact"], precision).neighbours(drawn)
    if precision == "float32":
        _check_same(found, wanted)
    # The boxes move a little, but what is embedded is embedded in float32.
    np.testing.assert_allclose(
        found["neighbour_similarities"], wanted["neighbour_similarities"], atol=0.02
    )
