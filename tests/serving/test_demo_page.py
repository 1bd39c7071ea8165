"""The page of `dfdetect serve --demo`, without a browser."""

import json
import pathlib
import re
import urllib.request

import cv2
import numpy as np
import pytest
import tensorflow as tf

import serving_support
from dfdetect.cli import main
from dfdetect.media import image_status
from dfdetect.serving import demo_page

FOLDER = pathlib.Path(demo_page.__file__).parent / "demo"
INFO = f"{demo_page.PATH}info.json"


def without_explain():
    return {"serving_default": serving_support.no_heads()["serving_default"]}


def with_neighbours():
    """Signatures of a graph that has an index of one image."""
    found = serving_support.no_heads()
    inputs, outputs, method = found["serving_default"]
    shape = [tf.shape(inputs["image_bytes"])[0], 10, 1]
    known = {
        "neighbour_ids": tf.fill(shape, ""),
        "neighbour_similarities": tf.fill(shape, float("nan")),
        "neighbour_labels": tf.fill(shape, -1),
    }
    for name in ("num_heads", "boxes", "status"):
        known[name] = tf.identity(outputs[name])
    return {**found, "neighbours": (inputs, known, method)}


def write(folder, signatures, manifest):
    serving_support.save(folder, signatures)
    if manifest is not None:
        (folder / "assets").mkdir(exist_ok=True)
        (folder / "assets" / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Bases by name; of the last one alone the page can make use."""
    folder = tmp_path_factory.mktemp("models")
    for name, signatures, manifest in (
        ("half", serving_support.half_plus(2.0), serving_support.PIPELINE),
        ("bare", serving_support.no_heads, None),
        (
            "older",
            serving_support.no_heads,
            {**serving_support.PIPELINE, "kind": "detector"},
        ),
        ("ours", serving_support.no_heads, serving_support.PIPELINE),
    ):
        write(folder / name / "1", signatures, manifest)
    return folder


@pytest.fixture(scope="module")
def started(models, tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "models.config"
    names = ("half", "bare", "older", "ours")
    path.write_text(
        serving_support.config_text(**{name: (models / name, "") for name in names})
    )
    with serving_support.in_process(
        model_config_file=str(path), demo=True, token="s3cret", max_request_bytes=5000
    ) as started:
        yield started


def get(started, path, method="GET", **headers):
    request = urllib.request.Request(
        started.client.url + path, method=method, headers=headers
    )
    return urllib.request.urlopen(request, timeout=60)


def test_files_come_with_their_types_and_a_strict_policy(started):
    types = {
        "": "text/html; charset=utf-8",
        "index.html": "text/html; charset=utf-8",
        "style.css": "text/css; charset=utf-8",
        "result.js": "text/javascript; charset=utf-8",
        "page.js": "text/javascript; charset=utf-8",
        "icon.svg": "image/svg+xml",
    }
    for name, kind in types.items():
        with get(started, demo_page.PATH + name) as answer:
            assert answer.read() == (FOLDER / (name or "index.html")).read_bytes()
            assert answer.headers["Content-Type"] == kind
            policy = answer.headers["Content-Security-Policy"].split("; ")
            assert policy[0] == "default-src 'none'"
            assert "script-src 'self'" in policy and "frame-ancestors 'none'" in policy
            assert not re.search(r"unsafe|\*|http", " ".join(policy))
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert "Server" not in answer.headers
    with get(started, demo_page.PATH, "HEAD") as answer:
        assert answer.read() == b"" and answer.status == 200


@pytest.mark.parametrize("path", ["/", demo_page.PATH.rstrip("/")])
def test_the_way_to_the_page(started, path):
    with get(started, path) as answer:
        assert answer.url == started.client.url + demo_page.PATH


@pytest.mark.parametrize(
    "path", ["none.js", "../page.py", "..%2fpage.py", "%2e%2e/page.py", "a/b", "."]
)
def test_other_files_are_not_there(started, path):
    status, answer = started.client.rest(demo_page.PATH + path)
    assert status == 404 and "error" in answer
    assert started.client.rest(demo_page.PATH, b"x")[0] == 405


def test_the_page_names_nothing_from_elsewhere():
    for path in FOLDER.iterdir():
        text = path.read_text(encoding="utf-8")
        addresses = set(re.findall(r"\w+://[^\s\"'<>]+", text))
        assert addresses <= {"http://www.w3.org/2000/svg"}, path.name
        assert not re.search(r"innerHTML|style=|<script>|\son\w+=", text), path.name


def test_the_example_is_drawn(started):
    with get(started, f"{demo_page.PATH}example.jpg") as answer:
        image = cv2.imdecode(np.frombuffer(answer.read(), np.uint8), cv2.IMREAD_COLOR)
        assert answer.headers["Content-Type"] == "image/jpeg"
    assert min(image.shape[:2]) > 200 and image.std() > 10


def test_what_the_page_must_know(started):
    status, found = started.client.rest(INFO)
    assert status == 200
    assert found == {
        "model": "ours",
        "version": 1,
        "explains": True,
        "neighbours": False,
        "labels": ["real", "fake"],
        "thresholds": {"real_below": 0.25, "fake_from": 0.75},
        "crop_margin": [13, 10],
        "min_head_size": 24,
        "statuses": list(image_status.STATUS_NAMES),
        "max_pixels": image_status.MAX_PIXELS,
        "max_request_bytes": 5000,
    }


def test_the_page_needs_no_token_and_what_it_must_know_does(started):
    stranger = serving_support.Client(started.port, started.rest_port)
    assert stranger.rest(demo_page.PATH)[0] == 200
    assert stranger.rest(INFO)[0] == 401
    assert stranger.rest("/v1/models/ours")[0] == 401
    stranger.close()


def test_the_page_follows_the_latest_version_and_tells_when_there_is_none(
    tmp_path,
):
    base = tmp_path / "base"
    write(base / "1", serving_support.half_plus(2.0), None)
    with serving_support.in_process(
        model_base_path=str(base), model_name="m", demo=True
    ) as started:
        missing = {"error": "No model of dfdetect is available"}
        assert started.client.rest(INFO) == (404, missing)
        write(tmp_path / "new", without_explain, serving_support.PIPELINE)
        (tmp_path / "new").rename(base / "2")
        serving_support.eventually(lambda: started.client.rest(INFO)[0] == 200)
        found = started.client.rest(INFO)[1]
        assert (found["version"], found["explains"]) == (2, False)
        assert found["neighbours"] is False
        write(tmp_path / "newer", with_neighbours, serving_support.PIPELINE)
        (tmp_path / "newer").rename(base / "3")
        serving_support.eventually(lambda: started.client.rest(INFO)[1]["version"] == 3)
        found = started.client.rest(INFO)[1]
        assert found["neighbours"] is True and found["explains"] is True
        # It answers what the page reads.
        instances = {"signature_name": "neighbours", "instances": [{"b64": ""}]}
        status, answer = started.client.rest("/v1/models/m:predict", instances)
        assert status == 200 and answer["predictions"][0]["neighbour_ids"][0] == [""]
        assert str(tmp_path) not in json.dumps(found)


def test_without_the_flag_there_is_no_page(models):
    with serving_support.in_process(model_base_path=str(models / "ours")) as started:
        for path in ("/", demo_page.PATH, INFO):
            assert started.client.rest(path)[0] == 404


def test_the_page_needs_the_port_of_rest(tmp_path, capsys):
    base = ["--model_base_path", str(tmp_path)]
    with pytest.raises(SystemExit):
        main.main(["serve", *base, "--demo", "--rest_api_port", "0"])
    assert "--demo needs a --rest_api_port" in capsys.readouterr().err
