"""The client against stand-ins that speak each protocol, as a user runs it."""

import ast
import base64
import collections
import concurrent.futures
import http.server
import importlib.util
import json
import os
import pathlib
import shutil
import ssl
import subprocess
import sys
import threading

import grpc
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from dfdetect.media import file_kinds

_SERVE = pathlib.Path(__file__).resolve().parents[2] / "serve"
_KINDS = ("rest", "grpc")
_OK, _NO_HEAD, _UNREADABLE, _TOO_LARGE = 0, 1, 2, 3

# What a stand-in answers is what the file says: "busy 2" is busy two times.
_CODES = {
    "busy": (503, grpc.StatusCode.UNAVAILABLE),
    "exhausted": (429, grpc.StatusCode.RESOURCE_EXHAUSTED),
    "wrong": (400, grpc.StatusCode.INVALID_ARGUMENT),
}


def _crop_outputs(status):
    """Of the signature `classify_crops`."""
    return {
        "fake_probability": np.float32([0.625 if status == _OK else np.nan]),
        "status": np.int32([status]),
        "verdict": np.array([b"uncertain" if status == _OK else b""], object),
    }


def _outputs(status):
    heads = np.zeros((1, 3), np.float32)
    boxes = np.zeros((1, 3, 4), np.float32)
    if status == _OK:
        heads[0, :2] = [0.75, np.nan]
        boxes[0, :2] = [[0, 0.25, 0.5, 1], [0.125, 0, 1, 0.5]]
    return {
        "num_heads": np.int32([2 if status == _OK else 0]),
        "boxes": boxes,
        "head_scores": np.float32([[0.875, 0.5, 0]]),
        "fake_probabilities": heads,
        "fake_probability": np.float32([0.75 if status == _OK else np.nan]),
        "status": np.int32([status]),
        "verdict": np.array([b"fake" if status == _OK else b""], object),
    }


_OUTPUTS = {"serving_default": _outputs, "classify_crops": _crop_outputs}


class _StandIn:
    """What both servers have in common."""

    def __init__(self):
        self.asked = collections.Counter()
        self.requests = []  # Model, version, label and token of each.
        self.busy = self.most = 0
        self.stopped = threading.Event()
        self._lock = threading.Lock()

    def answer(self, content):
        """The status for an image, or the name of a code."""
        with self._lock:
            self.asked[content] += 1
            self.busy += 1
            self.most = max(self.most, self.busy)
        try:
            word, _, number = content.decode().partition(" ")
            if word == "wait":
                self.stopped.wait(float(number))
            if word in _CODES and (
                not number or self.asked[content] <= int(number.split()[0])
            ):
                return word
            return {"empty": _NO_HEAD, "broken": _UNREADABLE}.get(word, _OK)
        finally:
            with self._lock:
                self.busy -= 1


class _Rest(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        stand_in = self.server.stand_in
        model, _, verb = self.path.removeprefix("/v1/models/").partition(":")
        name, *choice = model.split("/")
        chosen = dict([choice]) if choice else {}
        stand_in.requests.append(
            (
                name,
                chosen.get("versions"),
                chosen.get("labels"),
                self.headers.get("Authorization"),
            )
        )
        assert verb == "predict"
        length = int(self.headers["Content-Length"])
        request = json.loads(self.rfile.read(length))
        ((value,),) = request["inputs"].values()
        content = base64.b64decode(value["b64"])
        if content.startswith(b"drop") and not stand_in.asked[content]:
            stand_in.asked[content] += 1
            self.close_connection = True
            return
        status = stand_in.answer(content)
        if status in _CODES:
            code, body = _CODES[status][0], {"error": f"it is {status}"}
        else:
            answer = _OUTPUTS[request.get("signature_name", "serving_default")]
            outputs = {
                key: [x.decode() if isinstance(x, bytes) else x for x in value.tolist()]
                for key, value in answer(status).items()
            }
            code, body = 200, {"outputs": outputs}
        body = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class _Grpc(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, stand_in):
        self._stand_in = stand_in

    def Predict(self, request, context):
        spec = request.model_spec
        token = dict(context.invocation_metadata()).get("authorization")
        version = str(spec.version.value) if spec.HasField("version") else None
        self._stand_in.requests.append(
            (spec.name, version, spec.version_label or None, token)
        )
        (content,) = tf.make_ndarray(request.inputs["image_bytes"])
        status = self._stand_in.answer(content)
        if status in _CODES:
            context.abort(_CODES[status][1], f"it is {status}")
        response = predict_pb2.PredictResponse()
        for key, value in _OUTPUTS[spec.signature_name](status).items():
            tensor = response.outputs[key]
            tensor.CopyFrom(tf.make_tensor_proto(value))
            if key == "boxes":  # The other way in which numbers travel.
                tensor.tensor_content = b""
                tensor.float_val.extend(value.ravel())
        return response


@pytest.fixture(name="serve")
def _serve():
    """The function `serve(kind, tls)`: gives a stand-in and the flag that names it."""
    stops = []

    def serve(kind, tls=None):
        stand_in = _StandIn()
        stops.append(stand_in.stopped.set)
        if kind == "rest":
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Rest)
            server.stand_in = stand_in
            if tls:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(*tls)
                context.load_verify_locations(tls[0])
                context.verify_mode = ssl.CERT_REQUIRED
                server.socket = context.wrap_socket(server.socket, server_side=True)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stops.append(server.shutdown)
            scheme = "https" if tls else "http"
            return stand_in, f"--url={scheme}://127.0.0.1:{server.server_port}"
        server = grpc.server(concurrent.futures.ThreadPoolExecutor(16))
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            _Grpc(stand_in), server
        )
        if tls:
            certificate, key = (pathlib.Path(x).read_bytes() for x in tls)
            credentials = grpc.ssl_server_credentials(
                [(key, certificate)], certificate, require_client_auth=True
            )
            port = server.add_secure_port("127.0.0.1:0", credentials)
        else:
            port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        stops.append(lambda: server.stop(None))
        return stand_in, f"--server=127.0.0.1:{port}"

    yield serve
    for stop in stops:
        stop()


def _run(kind, *arguments, **environment):
    """Runs the client from elsewhere; returns its lines, exit code and messages."""
    done = subprocess.run(
        [
            *(sys.executable, "-I", _SERVE / "client.py", f"--protocol={kind}"),
            *map(str, arguments),
        ],
        capture_output=True,
        text=True,
        env={"PATH": "", **environment},
        cwd="/",
        timeout=60,
    )
    return (
        [json.loads(line) for line in done.stdout.splitlines()],
        done.returncode,
        done.stderr,
    )


def _files(folder, *contents):
    folder.mkdir(exist_ok=True)
    paths = []
    for i, content in enumerate(contents):
        paths.append(folder / f"{i:02}.jpg")
        paths[-1].write_text(content)
    return paths


def test_it_imports_nothing_of_ours_and_grpc_only_where_it_is_used():
    tree = ast.parse((_SERVE / "client.py").read_text())

    def imported(nodes):
        for node in nodes:
            if isinstance(node, ast.Import):
                yield from (alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield node.module.split(".")[0]

    assert set(imported(tree.body)) <= sys.stdlib_module_names
    others = set(imported(ast.walk(tree))) - sys.stdlib_module_names
    assert others == {"grpc", "google"}


def test_a_copy_needs_the_standard_library_alone_for_rest(serve, tmp_path):
    _, server = serve("rest")
    (path,) = _files(tmp_path / "images", "good")
    shutil.copy(_SERVE / "client.py", tmp_path)

    def run(*arguments):
        # Neither the folder's own modules nor those of site-packages.
        return subprocess.run(
            [sys.executable, "-I", "-S", tmp_path / "client.py", path, *arguments],
            capture_output=True,
            text=True,
            cwd="/",
        )

    done = run(server)
    assert done.returncode == 0 and json.loads(done.stdout)["status"] == "ok"
    done = run("--protocol=grpc")
    assert done.returncode == 2 and "pip install grpcio protobuf" in done.stderr


def test_each_protocol_has_its_own_address(tmp_path):
    (path,) = _files(tmp_path, "good")
    for kind, flag in (
        ("rest", "--server=a:1"),
        ("rest", "--tls"),
        ("grpc", "--url=a"),
    ):
        other = {"rest": "grpc", "grpc": "rest"}[kind]
        lines, code, said = _run(kind, path, flag)
        assert (
            code == 2
            and not lines
            and f"need --protocol={other}" in said.replace("needs", "need")
        )


@pytest.mark.parametrize("kind", _KINDS)
def test_lines_in_order_and_no_bad_file_stops_them(kind, serve, tmp_path):
    stand_in, server = serve(kind)
    paths = _files(
        tmp_path / "a", "wait .4", "one", "empty", "broken", "wrong", "busy 2 times"
    )
    (tmp_path / "a" / ".hidden.jpg").write_text("hidden")
    (tmp_path / "a" / "notes.txt").write_text("text")
    (tmp_path / "a" / "b.heic").write_bytes(b"\0\0\0\x18ftypheic")
    gone = tmp_path / "gone.jpg"
    lines, code, said = _run(kind, server, gone, tmp_path / "a")
    assert code == 3
    *problems, found, passed_over = said.splitlines()
    assert passed_over.endswith("passed over 2 files: 1 .txt, 1 HEIC")
    outcomes = "2 unreadable, 3 fake, 1 no_head, 1 failed"
    assert found == f"client.py: 7 files: {outcomes}"
    assert [line["path"] for line in lines] == [str(x) for x in [gone, *paths]]
    assert [line["status"] for line in lines] == [
        *("unreadable", "ok", "ok", "no_head", "unreadable", "failed", "ok")
    ]
    assert lines[1] == {
        "path": str(paths[0]),
        "kind": "image",
        "status": "ok",
        "heads": [
            {"box": [0, 0.25, 0.5, 1], "score": 0.875, "fake_probability": 0.75},
            {"box": [0.125, 0, 1, 0.5], "score": 0.5, "fake_probability": None},
        ],
        "fake_probability": 0.75,
        "verdict": "fake",
    }
    assert [line["verdict"] for line in lines] == [
        *(None, "fake", "fake", None, None, None, "fake")
    ]
    assert lines[3]["heads"] == [] and lines[3]["fake_probability"] is None
    assert "No such file" in lines[0]["warning"] and "it is wrong" in lines[5]["error"]
    # Two that failed, and one that is not an image.
    assert len(problems) == 3 and "gone.jpg" in problems[0]
    told = (
        f"{str(paths[3])!r}: no image that can be decoded: of an unknown kind; wanted"
    )
    assert told in problems[1]
    # What cannot get better is not asked again.
    assert stand_in.asked[b"wrong"] == 1 and stand_in.asked[b"busy 2 times"] == 3
    assert stand_in.requests[0] == ("dfdetect", None, None, None)


def test_a_folder_that_cannot_be_listed_is_told(serve, tmp_path):
    _, server = serve("rest")
    _files(tmp_path / "a", "good")
    # Deeper than a path may be long, so that not even root can list all.
    name, here = "n" * 250, os.open(tmp_path / "a", os.O_RDONLY)
    for _ in range(17):
        os.mkdir(name, dir_fd=here)
        inner = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    lines, code, said = _run("rest", server, tmp_path / "a")
    assert code == 3 and [line["status"] for line in lines] == ["ok", "unreadable"]
    assert lines[1]["warning"] == "File name too long"
    assert f"{lines[1]['path']!r}: File name too long\n" in said


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_is_told_in_one_line(serve, tmp_path):
    _, server = serve("rest")
    (path,) = _files(tmp_path / "a", "good")
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-I", _SERVE / "client.py", path, server],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "client.py: standard output: No space left on device\n"


@pytest.mark.parametrize("kind", _KINDS)
def test_crops_are_judged_whole(kind, serve, tmp_path):
    stand_in, server = serve(kind)
    paths = _files(tmp_path, "one", "broken", "wrong")
    lines, code, said = _run(kind, server, "--crops", *paths)
    assert code == 3
    head = {"box": [0, 0, 1, 1], "score": None, "fake_probability": 0.625}
    answer = {"status": "ok", "heads": [head], "fake_probability": 0.625}
    answer |= {"kind": "image", "verdict": "uncertain"}
    assert lines[0] == {"path": str(paths[0]), **answer}
    empty = {"kind": "image", "heads": [], "fake_probability": None, "verdict": None}
    warning = lines[1].pop("warning")
    assert lines[1] == {"path": str(paths[1]), "status": "unreadable", **empty}
    assert "of an unknown kind; wanted is JPEG" in warning and warning in said
    assert lines[2]["status"] == "failed" and "it is wrong" in said


@pytest.mark.parametrize("kind", _KINDS)
def test_an_image_is_told_in_a_sentence(kind, serve, tmp_path, monkeypatch):
    _, server = serve(kind)
    one, empty, small, old = _files(tmp_path, "one", "empty", "small", "old")
    sentences = {
        one: "2 heads, the most suspicious with fake probability 0.75: fake (for "
        "research only)",
        empty: "no head was found, so there is no verdict",
    }
    for path, sentence in sentences.items():
        _, code, said = _run(kind, server, path)
        assert code == 0 and said == f"client.py: {str(path)!r}: {sentence}\n"
    one_head = {"num_heads": np.int32([1])}
    unjudged = one_head | {
        "fake_probability": np.float32([np.nan]),
        "status": np.int32([4]),
        "verdict": np.array([b""], object),
    }
    monkeypatch.setitem(_OUTPUTS, "serving_default", lambda _: _outputs(_OK) | unjudged)
    lines, code, said = _run(kind, server, small)
    assert code == 0 and said.endswith(
        ": 1 head, too small to be judged, so there is no verdict\n"
    )
    assert lines[0]["status"] == "head_too_small" and lines[0]["verdict"] is None
    # A graph that was exported before there was a verdict.
    outputs = _outputs(_OK) | one_head
    del outputs["verdict"]
    monkeypatch.setitem(_OUTPUTS, "serving_default", lambda _: outputs)
    lines, code, said = _run(kind, server, old)
    assert code == 0 and said.endswith(
        ": 1 head, fake probability 0.75: no verdict, as the served graph gives none "
        "(for research only)\n"
    )
    assert "verdict" not in lines[0] and lines[0]["status"] == "ok"


@pytest.mark.parametrize("kind", _KINDS)
def test_what_cannot_be_read_is_told_with_what_was_wanted(
    kind, serve, tmp_path, monkeypatch
):
    stand_in, server = serve(kind)
    wanted = "; wanted is JPEG, PNG, BMP (of 8, 24 or 32 bits), GIF or WebP"
    contents = {
        "a.heic": (b"\0\0\0\x18ftypheic", f"HEIC{wanted}"),
        "a.avif": (b"\0\0\0\x18ftypavif", f"AVIF{wanted}"),
        "a.tif": (b"II*\0", f"TIFF{wanted}"),
        "a.jpg": (b"\xff\xd8\xff\xe0", "JPEG, cut short, damaged or of a rare form"),
        "b.jpg": (b"", f"an empty file{wanted}"),
        "c.jpg": (b"what", f"of an unknown kind{wanted}"),
    }
    for name, (content, _) in contents.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.setattr(stand_in, "answer", lambda content: _UNREADABLE)
    lines, code, said = _run(kind, server, *(tmp_path / name for name in contents))
    assert code == 3 and {line["status"] for line in lines} == {"unreadable"}
    for line, (_, reason) in zip(lines, contents.values(), strict=True):
        assert line["warning"].startswith(f"no image that can be decoded: {reason}")
        assert f"{line['path']!r}: {line['warning']}\n" in said
    monkeypatch.setattr(stand_in, "answer", lambda content: _TOO_LARGE)
    lines, code, said = _run(kind, server, tmp_path / "a.jpg")
    assert code == 3 and lines[0]["status"] == "too_large"
    assert lines[0]["warning"] == (
        "more megapixels than the server takes: 64, or its --max_pixels"
    )
    assert said == f"client.py: {lines[0]['path']!r}: {lines[0]['warning']}\n"


@pytest.mark.parametrize("kind", _KINDS)
def test_of_an_animated_image_the_first_frame_is_told(
    kind, serve, tmp_path, monkeypatch
):
    stand_in, server = serve(kind)
    monkeypatch.setattr(stand_in, "answer", lambda content: _OK)
    red, blue = (Image.new("RGB", (32, 24), color) for color in ("red", "blue"))
    paths, expected = [], []
    for ending in ("gif", "webp", "png"):
        for more in ([], [blue, red]):
            paths.append(tmp_path / f"{len(more)}.{ending}")
            red.save(paths[-1], save_all=bool(more), append_images=more)
            animated = file_kinds.is_animated(paths[-1].read_bytes())
            assert animated == bool(more)
            warning = "animated: only its first frame was judged" if animated else None
            expected.append(warning)
    lines, code, said = _run(kind, server, *paths)
    assert code == 0 and [line.get("warning") for line in lines] == expected
    assert said.count(": animated: only its first frame was judged\n") == 3
    content = paths[1].read_bytes()
    spec = importlib.util.spec_from_file_location("client", _SERVE / "client.py")
    client = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(client)
    for end in range(6, len(content)):
        cut = content[:end]
        assert client.is_animated(cut) == file_kinds.is_animated(cut)


@pytest.mark.parametrize("kind", _KINDS)
def test_a_clip_is_told_and_not_sent(kind, serve, tmp_path):
    stand_in, server = serve(kind)
    clips = {
        "a.mp4": (b"\0\0\0\x18ftypmp42", "MP4 or QuickTime"),
        "a.mkv": (b"\x1a\x45\xdf\xa3", "Matroska or WebM"),
        "a.avi": (b"RIFF0000AVI LIST", "AVI"),
        "a.ts": (b"\x47".ljust(188, b"\0") * 3, "MPEG transport stream"),
    }
    for name, (content, _) in clips.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "z.jpg").write_text("good")
    paths = [tmp_path / name for name in clips]
    lines, code, said = _run(kind, server, *paths, tmp_path / "z.jpg")
    assert code == 3 and list(stand_in.asked) == [b"good"]
    for line, (_, name) in zip(lines, clips.values(), strict=False):
        assert line["kind"] == "video" and line["status"] == "unreadable"
        assert line["warning"].startswith(f"a clip ({name}); wanted is an image: JPEG")
        assert line["warning"].endswith("; `dfdetect detect` judges clips")
    assert said.count("\n") == 5 and lines[-1]["verdict"] == "fake"
    # In a folder they are passed over, as what else is not an image.
    lines, code, said = _run(kind, server, tmp_path)
    assert code == 0 and len(lines) == 1
    assert "passed over 4 files: 1 AVI, 1 MP4 or QuickTime, 1 MPEG transport" in said


@pytest.mark.parametrize("kind", _KINDS)
def test_codes_and_retries(kind, serve, tmp_path):
    stand_in, server = serve(kind)
    good, late, busy, wrong = _files(tmp_path, "good", "exhausted 2", "busy", "wrong")
    assert _run(kind, server, good, late)[1] == 0
    assert stand_in.asked[b"exhausted 2"] == 3
    lines, code, _ = _run(kind, server, busy, "--retries=1")
    assert code == 1 and lines[0]["status"] == "failed"
    assert stand_in.asked[b"busy"] == 2
    assert _run(kind, server, good, wrong)[1] == 3


@pytest.mark.parametrize("kind", _KINDS)
def test_requests_run_side_by_side(kind, serve, tmp_path):
    stand_in, server = serve(kind)
    paths = _files(tmp_path, *["wait .2"] * 9)
    assert _run(kind, server, "--concurrency=3", *paths)[1] == 0
    assert stand_in.most == 3 and stand_in.asked[b"wait .2"] == 9


@pytest.mark.parametrize("kind", _KINDS)
def test_a_deadline_is_kept(kind, serve, tmp_path):
    _, server = serve(kind)
    slow, good = _files(tmp_path, "wait 60", "good")
    lines, code, _ = _run(kind, server, slow, good, "--deadline=2")
    assert code == 3 and [x["status"] for x in lines] == ["failed", "ok"]
    assert "deadline exceeded" in lines[0]["error"].lower().replace("_", " ")


def test_a_lost_connection_is_made_anew(serve, tmp_path):
    stand_in, server = serve("rest")
    paths = _files(tmp_path, "first", "drop", "last")
    lines, code, _ = _run("rest", server, "--concurrency=1", *paths)
    assert code == 0 and stand_in.asked[b"drop"] == 2


@pytest.mark.parametrize("kind", _KINDS)
def test_version_label_and_token(kind, serve, tmp_path):
    stand_in, server = serve(kind)
    (path,) = _files(tmp_path / "images", "good")
    (tmp_path / "token").write_text("secret\n")
    _run(kind, server, path, "--version=3", f"--token_file={tmp_path / 'token'}")
    _run(kind, server, path, "--label=canary", "--model=m", DFDETECT_TOKEN="other")
    assert stand_in.requests == [
        ("dfdetect", "3", None, "Bearer secret"),
        ("m", None, "canary", "Bearer other"),
    ]


@pytest.mark.parametrize("kind", _KINDS)
def test_nobody_there(kind, tmp_path):
    (path,) = _files(tmp_path, "good")
    flag = {"rest": "--url=http://127.0.0.1:9", "grpc": "--server=127.0.0.1:9"}[kind]
    lines, code, said = _run(kind, flag, path, tmp_path / "gone.jpg", "--retries=1")
    assert code == 1 and [x["status"] for x in lines] == ["failed", "unreadable"]
    assert said.count("\n") == 3
    assert said.endswith("2 files: 1 failed, 1 unreadable\n")
    assert _run(kind, flag, tmp_path / "gone.jpg")[1] == 3


@pytest.mark.parametrize("kind", _KINDS)
def test_a_dead_server_ends_the_run(kind, tmp_path):
    paths = _files(tmp_path, *["good"] * 200)
    flag = {"rest": "--url=http://127.0.0.1:9", "grpc": "--server=127.0.0.1:9"}[kind]
    flags = ("--retries=1", "--concurrency=2")
    lines, code, said = _run(kind, flag, *paths, *flags)
    assert code == 1 and len(lines) == 4
    assert said.endswith("gave up: no answer for 4 files one after the other\n")
    # Files that no server is asked about, every second here, are no answers of it.
    absent = [str(tmp_path / f"absent{i}.png") for i in range(20)]
    mixed = [path for pair in zip(absent, paths[:20], strict=True) for path in pair]
    lines, code, said = _run(kind, flag, *mixed, *flags)
    assert code == 1 and len(lines) == 8
    assert said.endswith("gave up: no answer for 4 files one after the other\n")


@pytest.mark.parametrize("kind", _KINDS)
def test_a_server_that_answers_at_times_does_not(kind, serve, tmp_path):
    _, server = serve(kind)
    paths = _files(tmp_path, *["busy", "busy", "busy", "good"] * 3)
    lines, code, _ = _run(kind, server, *paths, "--retries=0", "--concurrency=1")
    assert code == 3 and len(lines) == 12


@pytest.mark.parametrize("kind", _KINDS)
def test_a_status_that_is_not_known_is_an_error(kind, serve, tmp_path, monkeypatch):
    _, server = serve(kind)
    paths = _files(tmp_path, "one")
    for status in (-1, 5):
        monkeypatch.setitem(
            _OUTPUTS, "serving_default", lambda _, number=status: _outputs(number)
        )
        lines, code, said = _run(kind, server, *paths)
        assert code == 1 and lines[0]["status"] == "failed"
        assert f"status must be 0 to 4, got {status}" in said


def test_a_message_that_is_too_large_is_not_sent_again(serve, tmp_path):
    stand_in, server = serve("grpc")
    (path,) = _files(tmp_path, "x" * 5 * 2**20)
    lines, code, _ = _run("grpc", server, path)
    assert code == 1 and "larger than max" in lines[0]["error"]
    assert "RESOURCE_EXHAUSTED" in lines[0]["error"] and not stand_in.asked


@pytest.mark.parametrize("size", [4, 8 * 2**20])
@pytest.mark.parametrize("kind", _KINDS)
def test_the_port_of_the_other_protocol_is_told_at_once(kind, serve, tmp_path, size):
    other = {"rest": "grpc", "grpc": "rest"}[kind]
    stand_in, server = serve(other)
    address = server.partition("=")[2].removeprefix("http://")
    flag = {"rest": f"--url=http://{address}", "grpc": f"--server={address}"}[kind]
    (path,) = _files(tmp_path, "x" * size)
    lines, code, said = _run(kind, flag, path)
    assert code == 1 and lines[0]["status"] == "failed"
    port = {"rest": "REST, by default 8501", "grpc": "gRPC, by default 8500"}[kind]
    assert lines[0]["error"].endswith(f"must name its port of {port}")
    assert said.count("\n") == 1


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "PATH"),
        (["x.jpg", "--concurrency=0"], "a whole number from 1 on, not '0'"),
        (["x.jpg", "--deadline=never"], "seconds above 0, not 'never'"),
        (["x.jpg", "--cert=c.pem"], "--cert and --key go together"),
        (["x.jpg", "--token_file=/none"], "No such file"),
        (["x.jpg", "{far}", "--token_file={token}"], "to another machine"),
        (["{empty}"], "no images"),
    ],
)
def test_usage(kind, arguments, message, tmp_path):
    (tmp_path / "token").write_text("secret")
    (tmp_path / "empty").mkdir()
    far = {"rest": "--url=http://far.example", "grpc": "--server=far.example:8500"}
    names = {
        "far": far[kind],
        "token": tmp_path / "token",
        "empty": tmp_path / "empty",
    }
    lines, code, said = _run(kind, *(x.format(**names) for x in arguments))
    assert code == 2 and not lines and message in said


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes the certificate")
@pytest.mark.parametrize("kind", _KINDS)
def test_both_sides_show_a_certificate(kind, serve, tmp_path):
    tls = [str(tmp_path / "certificate.pem"), str(tmp_path / "key.pem")]
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-nodes"),
            *("-pkeyopt", "ec_paramgen_curve:P-256", "-subj", "/CN=test"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-out", tls[0], "-keyout", tls[1]),
        ],
        check=True,
        capture_output=True,
    )
    (path,) = _files(tmp_path / "images", "good")
    stand_in, server = serve(kind, tls)
    ours = [f"--cert={tls[0]}", f"--key={tls[1]}"]
    token = {"DFDETECT_TOKEN": "secret"}
    lines, code, said = _run(kind, server, path, f"--ca={tls[0]}", *ours, **token)
    assert code == 0, said
    assert stand_in.requests[0][-1] == "Bearer secret"
    unknown = ["--tls"] if kind == "grpc" else []
    for flags in ([f"--ca={tls[0]}"], [*unknown, *ours]):
        lines, code, _ = _run(kind, server, path, *flags, "--retries=0")
        assert code == 1 and lines[0]["status"] == "failed"
