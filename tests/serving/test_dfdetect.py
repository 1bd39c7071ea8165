"""The exported graph of dfdetect behind the server, asked by many at once."""

import base64
import concurrent.futures
import pathlib

import numpy as np
import pytest
import tensorflow as tf

import serving_support
from dfdetect.export import saved_pipeline, served_verdict
from dfdetect.media import source_files

pytestmark = pytest.mark.slow

PARAMETERS = """
max_batch_size { value: 4 } batch_timeout_micros { value: 20000 }
num_batch_threads { value: 1 } allowed_batch_sizes: 1 allowed_batch_sizes: 4
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory, run_script):
    base = tmp_path_factory.mktemp("dfdetect")
    run_script("serve/export.py", f"--output={base}")
    return base


@pytest.fixture(scope="module")
def started(base, tmp_path_factory):
    path = tmp_path_factory.mktemp("batching") / "batching.config"
    path.write_text(PARAMETERS)
    with serving_support.in_process(
        model_name="dfdetect",
        model_base_path=str(base),
        enable_batching=True,
        batching_parameters_file=str(path),
    ) as started:
        yield started


@pytest.fixture(scope="module")
def images():
    """A portrait, the same upside down, none, and what is not an image."""
    portrait = pathlib.Path(source_files.find_sample()).read_bytes()
    turned = tf.io.encode_png(tf.io.decode_image(portrait)[::-1]).numpy()
    empty = tf.io.encode_png(tf.zeros([80, 80, 3], tf.uint8)).numpy()
    return [portrait, turned, empty, b"no image"]


def test_all_signatures_give_the_numbers_of_the_graph(base, started, images):
    graph = saved_pipeline.load(str(base / "1"))
    image_bytes = tf.constant(images)
    for signature, run in (
        ("", graph.detect),
        ("classify_crops", graph.classify_crops),
        ("embed", graph.embed),
        ("explain", graph.explain),
    ):
        expected = run(image_bytes)
        found = started.client.predict(
            "dfdetect", {"image_bytes": image_bytes.numpy()}, signature
        )
        has_verdict = (signature or "serving_default") in served_verdict.SIGNATURES
        added = {served_verdict.OUTPUT} if has_verdict else set()
        assert set(found.outputs) == set(expected) | added
        for name, value in expected.items():
            np.testing.assert_allclose(
                tf.make_ndarray(found.outputs[name]), value, rtol=1e-4, atol=1e-5
            )


def test_many_clients_share_batches_and_a_bad_image_costs_none(started, images):
    def ask(number):
        image = images[number % len(images)]
        encoded = {"b64": base64.b64encode(image).decode()}
        if number % 2:
            status, found = started.client.rest(
                "/v1/models/dfdetect:predict", {"instances": [encoded]}
            )
            assert status == 200
            return found["predictions"][0]["status"]
        found = started.client.predict("dfdetect", {"image_bytes": [image]})
        return found.outputs["status"].int_val[0]

    # What number % 4 gives, whichever protocol asked.
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = np.array(list(pool.map(ask, range(32)))).reshape(8, 4)
    assert (found == found[0]).all()
    assert found[0, 0] == 0 and found[0, 3] == 2
    page = started.client.rest("/monitoring/prometheus/metrics")[1]
    values = dict(line.rsplit(" ", 1) for line in page.splitlines())
    runs = float(values[":tensorflow:serving:batching_session:wrapped_run_count{}"])
    # Four by the test before.
    assert runs < 4 + 32
