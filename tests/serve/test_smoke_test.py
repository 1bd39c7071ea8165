"""`serve/smoke_test.py` against a server of ours, as a user runs it."""

import contextlib
import http.server
import json
import pathlib
import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest

import serving_support

_SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "serve" / "smoke_test.py"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    base = tmp_path_factory.mktemp("base")
    serving_support.save(base / "1", serving_support.no_heads)
    return base


@contextlib.contextmanager
def _prometheus(health):
    """A stand-in of Prometheus: its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            targets = [{"scrapeUrl": "http://server/metrics", "health": health}]
            body = json.dumps({"data": {"activeTargets": targets}}).encode()
            self.send_response(200 if self.path == "/api/v1/targets" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def _run(*arguments):
    done = subprocess.run(
        [sys.executable, _SCRIPT, *map(str, arguments)], capture_output=True, text=True
    )
    assert not done.stderr or done.returncode == 2, done.stderr
    lines = done.stdout.splitlines()
    return done.returncode, dict(line.split(": ", 2)[1::-1] for line in lines)


def test_checks_pass_and_fail(base, tmp_path):
    path = tmp_path / "models.config"
    labels = 'version_labels { key: "stable" value: 1 }'
    path.write_text(serving_support.config_text(dfdetect=(base, labels)))
    with serving_support.in_process(model_config_file=str(path)) as started:
        addresses = [
            f"--url={started.client.url}",
            f"--server=127.0.0.1:{started.port}",
        ]
        with _prometheus("up") as prometheus:
            code, checks = _run(
                *addresses, "--labels=stable", f"--prometheus={prometheus}"
            )
        names = ("versions", "rest stable", "grpc stable", "metrics", "prometheus")
        assert checks == dict.fromkeys(names, "ok") and code == 0
        # What is not there fails, and the other checks are made nonetheless.
        with _prometheus("down") as prometheus:
            flags = (f"--prometheus={prometheus}", "--wait=0")
            code, checks = _run(*addresses, "--labels=stable,canary", *flags)
        failed = {"rest canary", "grpc canary", "prometheus"}
        assert code == 1 and len(checks) == 7
        assert {name for name, result in checks.items() if result == "failed"} == failed


def test_without_a_server(tmp_path):
    url = f"http://127.0.0.1:{serving_support.free_port()}"
    flags = ("--wait=0", "--prometheus=", "--server=127.0.0.1:9")
    # A file that is not there spares the client's retries.
    code, checks = _run(tmp_path / "gone.jpg", f"--url={url}", "--labels=", *flags)
    assert code == 1 and set(checks.values()) == {"failed"}
    assert list(checks) == ["versions", "rest", "grpc", "metrics"]


def test_the_drawn_image_is_one(tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(_SCRIPT.parent)!r}); import smoke_test; "
        "sys.stdout.buffer.write(smoke_test.draw_png())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    image = cv2.imdecode(np.frombuffer(done.stdout, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (256, 256, 3) and image[128, 128].tolist() == [150, 175, 225]
