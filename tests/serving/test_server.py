"""Who is let in, what is too much, and how the server ends."""

import asyncio
import datetime
import importlib.util
import ipaddress
import json
import os
import signal
import socket
import ssl
import threading
import time

import grpc
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import model_management_pb2

import serving_support
from dfdetect import console
from dfdetect.cli import main
from dfdetect.cli import parser as cli_parser
from dfdetect.serving import (
    command_line,
    config,
    errors,
    listening,
    options,
    security,
    server,
    service,
)

PREDICT = "/v1/models/half:predict"
BODY = {"instances": [[1.0]]}
ONE = {"x": np.float32([[1.0]])}
METRICS = "/monitoring/prometheus/metrics"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with one version of x / 2 + 2."""
    base = tmp_path_factory.mktemp("half")
    serving_support.save(base / "1", serving_support.half_plus(2.0))
    return base


@pytest.fixture(scope="module")
def started(base):
    """A server with a token, small bounds, and batching."""
    with serving_support.in_process(
        model_name="half",
        model_base_path=str(base),
        token="s3cret",
        enable_batching=True,
        max_request_bytes=10_000,
        max_connections=8,
        header_timeout_seconds=1.0,
        body_timeout_seconds=1.0,
    ) as started:
        yield started


def code_of(call):
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code().name


def other_client(started, token=""):
    return serving_support.Client(started.port, started.rest_port, token)


@pytest.mark.parametrize("token", ["", "wrong", "s3cret2", "s3cre"])
def test_clients_without_the_token_are_refused(started, token):
    client = other_client(started, token)
    for path, body in ((PREDICT, BODY), ("/v1/models/half", None), (METRICS, None)):
        status, document = client.rest(path, body)
        assert (status, document) == (401, {"error": security.UNAUTHENTICATED})
    assert code_of(lambda: client.predict(inputs=ONE)) == "UNAUTHENTICATED"
    request = model_management_pb2.ReloadConfigRequest()
    reload = client.models.HandleReloadConfigRequest
    assert code_of(lambda: reload(request)) == "UNAUTHENTICATED"
    client.close()


def test_clients_with_the_token_are_answered(started):
    assert started.client.rest(PREDICT, BODY) == (200, {"predictions": [[2.5]]})
    assert started.client.predict(inputs=ONE).outputs["y"].float_val == [2.5]
    for header in ("bearer s3cret", "Bearer  s3cret"):
        client = other_client(started)
        status, _ = client.rest(PREDICT, BODY, headers={"Authorization": header})
        assert status == 200
        client.close()


def test_health_asks_for_no_token(started):
    health = health_pb2_grpc.HealthStub(other_client(started).channel)
    for name in ("", "tensorflow.serving.PredictionService"):
        request = health_pb2.HealthCheckRequest(service=name)
        serving_support.eventually(lambda r=request: health.Check(r).status == 1)


def test_bodies_over_the_bound_are_refused(started):
    status, document = started.client.rest(PREDICT, b" " * 10_001)
    assert status == 413
    assert document == {
        "error": "Request body must have at most 10000 bytes, got 10001"
    }
    large = {"x": np.zeros([5000, 1], np.float32)}
    assert code_of(lambda: started.client.predict(inputs=large)) == "RESOURCE_EXHAUSTED"
    assert started.client.rest(PREDICT, BODY)[0] == 200


def test_a_refused_client_that_sends_on_sees_the_answer(started):
    head = b"POST /v1/models/half:predict HTTP/1.1\r\nHost: localhost\r\n%s\r\n"
    sized, token = b"Content-Length: 30000000\r\n", b"Authorization: Bearer s3cret\r\n"
    for fields, status in ((sized, b"401"), (sized + token, b"413")):
        answer = send(started, head % fields + b" " * 30_000_000)
        assert answer.startswith(b"HTTP/1.1 " + status), answer[:100]
        assert answer.count(b"HTTP/1.1") == 1
        assert b"\r\nConnection: close\r\n" in answer
    # One that sends no more is not waited for.
    begun = time.monotonic()
    assert send(started, head % (sized + token)).startswith(b"HTTP/1.1 413")
    assert time.monotonic() - begun < 10


def test_too_many_bytes_of_requests_are_refused(base):
    body = b'{"instances": [[1.0]], "more": "' + b" " * 1_500_000
    head = b"POST /v1/models/half:predict HTTP/1.1\r\nHost: localhost\r\n"
    head += b"Content-Length: 1600000\r\n\r\n"
    with serving_support.in_process(
        model_name="half", model_base_path=str(base), max_request_bytes=1_600_000
    ) as started:
        holding = []
        for _ in range(4):
            holding.append(socket.create_connection(("127.0.0.1", started.rest_port)))
            holding[-1].sendall(head + body)
        time.sleep(0.5)
        # A large one finds no room, a small one does.
        status, document = started.client.rest(PREDICT, body + b'"}')
        assert status == 503 and "too many bytes" in document["error"]
        assert started.client.rest(PREDICT, BODY)[0] == 200
        for connection in holding:
            connection.close()
        serving_support.eventually(
            lambda: started.client.rest(PREDICT, body + b'"}')[0] == 200
        )


def test_large_json_keeps_nobody_waiting(base):
    values = np.random.default_rng(0).normal(size=400_000).astype(np.float32)
    body = json.dumps({"instances": values.tolist()}).encode()
    with serving_support.in_process(
        model_name="half",
        model_base_path=str(base),
        # The large request itself may take as long as it likes on a busy machine.
        rest_api_timeout_in_ms=300_000,
    ) as started:

        def probe():
            begun = time.monotonic()
            assert started.client.rest("/v1/models/half")[0] == 200
            return time.monotonic() - begun

        # What the machine's other work costs a probe.
        quiet = max(probe() for _ in range(20))
        found, probes = [], []
        client = other_client(started)
        thread = threading.Thread(
            target=lambda: found.append(client.rest(PREDICT, body))
        )
        thread.start()
        while thread.is_alive():
            probes.append(probe())
        assert max(probes) < 1.0 + 5 * quiet
        status, document = found[0]
        assert status == 200
        expected = values * np.float32(0.5) + np.float32(2.0)
        np.testing.assert_array_equal(np.float32(document["predictions"]), expected)
        # What is wrong is told as of a small one.
        status, document = started.client.rest(PREDICT, body.replace(b"]", b", true]"))
        assert (
            status == 400 and "Type: True is not of expected type" in document["error"]
        )
        status, document = started.client.rest(PREDICT, body[:-2])
        assert status == 400 and document["error"].startswith("JSON Parse error")
        # The process that reads it may end, and another one takes its place.
        started.server._service._json._process.kill()
        serving_support.eventually(
            lambda: started.client.rest(PREDICT, body)[0] == 200, seconds=300
        )
        deep = b'{"inputs": 1.0, "deep":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
        assert started.client.rest(PREDICT, deep) == (200, {"outputs": 2.5})
        many = {"signature_name": "regress_x", "examples": [{"x": 1.0}] * 60_000}
        status, document = started.client.rest("/v1/models/half:regress", many)
        assert (status, document) == (200, {"results": [2.5] * 60_000})


def http(port, host, path="/v1/models/half", fields=b"", version=b"1.1"):
    """The status of an answer to a client that asks by a name."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(
            b"GET %s HTTP/%s\r\n%s%sConnection: close\r\n\r\n"
            % (path.encode(), version, host and b"Host: %s\r\n" % host, fields)
        )
        return int(connection.makefile("rb").readline().split()[1])


def test_names_of_other_sites_do_not_reach_a_server_of_this_machine(base):
    with serving_support.in_process(
        model_name="half", model_base_path=str(base), demo=True, allowed_hosts="a.b, c"
    ) as started:
        port = started.rest_port
        own = b":%d" % port
        for host in (b"localhost", b"127.0.0.1" + own, b"[::1]" + own, b"LocalHost."):
            assert http(port, host) == 200
        for host in (b"a.b" + own, b"C"):
            assert http(port, host) == 200
        for host in (
            b"evil.example",
            b"evil.example" + own,
            b"127.0.0.1.evil",
            b"[::2]",
        ):
            for path in ("/v1/models/half", "/demo/", "/demo/info.json", METRICS):
                assert http(port, host, path) == 421
        # The target's own host counts, where it has one.
        assert http(port, b"localhost", "http://evil.example/v1/models/half") == 421
        # Tools of old say no name at all, which no browser does.
        assert http(port, b"", version=b"1.0") == 200
        cross = b"Sec-Fetch-Site: cross-site\r\n"
        for path in ("/v1/models/half", "/demo/", METRICS):
            assert http(port, b"localhost", path, cross) == 403
        for site in (b"same-origin", b"same-site", b"none"):
            assert (
                http(port, b"localhost", fields=b"Sec-Fetch-Site: %s\r\n" % site) == 200
            )


def parse_flags(*flags):
    parser = cli_parser.argparse.ArgumentParser()
    command_line.add_arguments(parser)
    return options.build_options(parser.parse_args(flags))


def test_flags_of_tensorflow_serving_are_taken(base, capsys):
    path = f"--model_base_path={base}"
    ignored = [
        *("--enable_per_model_batching_parameters", "--rest_api_num_threads=8"),
        *("--grpc_max_threads=4", "--num_load_threads=2"),
        *("--flush_filesystem_caches=false", "--enable_signature_method_name_check"),
        *("--num_request_iterations_for_warmup=2", "--enable_grpc_healthcheck_service"),
    ]
    found = parse_flags(
        path,
        *ignored,
        "--enable_model_warmup=false",
        "--tensorflow_session_parallelism=3",
        "--grpc_channel_arguments=grpc.max_connection_age_ms=2000,a=b",
        "--rest_api_enable_cors_support",
        "--file_system_poll_wait_seconds=-1",
    )
    assert found.ignored == tuple(flag.partition("=")[0] for flag in ignored)
    assert not found.enable_model_warmup and found.tensorflow_session_parallelism == 3
    assert found.file_system_poll_wait_seconds == 0
    assert options.parse_channel_arguments(found.grpc_channel_arguments) == [
        ("grpc.max_connection_age_ms", 2000),
        ("a", "b"),
    ]
    with pytest.raises(
        ValueError, match="must be NAME=VALUE with commas, got nonsense"
    ):
        parse_flags(path, "--grpc_channel_arguments=nonsense")
    with pytest.raises(ValueError, match="stands for both of"):
        parse_flags(
            path,
            "--tensorflow_session_parallelism=1",
            "--tensorflow_inter_op_parallelism=1",
        )
    with pytest.raises(SystemExit) as stop:
        parse_flags("--version")
    assert stop.value.code == 0 and "TensorFlow Library: " in capsys.readouterr().out


def test_flags_without_a_meaning_are_told(base, capsys):
    server._warn(parse_flags(f"--model_base_path={base}", "--grpc_max_threads=4"))
    assert capsys.readouterr().err == (
        "dfdetect serve: --grpc_max_threads has no meaning here\n"
    )


@pytest.mark.parametrize("verify", [False, True])
def test_a_file_of_keys_is_for_grpc(base, keys, tmp_path, verify):
    def quoted(name):
        return json.dumps((keys / name).read_text())

    path = tmp_path / "ssl.config"
    path.write_text(
        f"server_key: {quoted('server.key')} server_cert: {quoted('server.crt')} "
        f"custom_ca: {quoted('authority.crt')} client_verify: {str(verify).lower()}"
    )
    with serving_support.in_process(
        model_name="half", model_base_path=str(base), ssl_config_file=str(path)
    ) as started:
        assert started.client.rest(PREDICT, BODY)[0] == 200
        ca = (keys / "authority.crt").read_bytes()
        pair = [(keys / f"client.{kind}").read_bytes() for kind in ("key", "crt")]
        for with_pair in (True, False):
            credentials = grpc.ssl_channel_credentials(ca, *(pair if with_pair else ()))
            client = serving_support.Client(
                started.port, started.rest_port, credentials=credentials
            )
            if verify and not with_pair:
                assert code_of(lambda c=client: c.predict(inputs=ONE)) == "UNAVAILABLE"
            else:
                answer = client.predict(inputs=ONE)
                assert answer.outputs["y"].float_val == [2.5]
            client.close()
    path.write_text("server_key: 'a'")
    with pytest.raises(ValueError, match="must have a server_key and a server_cert"):
        config.read_grpc_credentials(str(path))


def test_names_are_looked_at_where_they_are_given():
    assert security.Hosts("192.0.2.1").allow("any.name")
    guarded = security.Hosts("192.0.2.1", ["a.b"])
    assert guarded.allow("a.b:8501") and guarded.allow("192.0.2.1")
    assert not guarded.allow("any.name") and not guarded.allow("localhost")


def test_pages_of_other_sites_may_ask_where_that_is_wanted(base):
    with serving_support.in_process(
        model_name="half", model_base_path=str(base), rest_api_enable_cors_support=True
    ) as started:
        for method, body in (("OPTIONS", None), ("POST", b'{"inputs": 1.0}')):
            request = serving_support.urllib.request.Request(
                started.client.url + PREDICT,
                body,
                {"Origin": "http://a.b", "Sec-Fetch-Site": "cross-site"},
                method=method,
            )
            with serving_support.urllib.request.urlopen(request) as answer:
                assert answer.status == 200
                assert answer.headers["Access-Control-Allow-Origin"] == "*"


def test_idle_connections_make_room(base):
    with serving_support.in_process(
        model_name="half",
        model_base_path=str(base),
        max_connections=8,
        # Not by this do they make room.
        header_timeout_seconds=600.0,
    ) as started:
        address = ("127.0.0.1", started.rest_port)
        idle = [socket.create_connection(address) for _ in range(20)]
        for _ in range(20):
            assert started.client.rest(PREDICT, BODY)[0] == 200
        for connection in idle:
            connection.close()
        # Those that are being answered stay, and others are told.
        head = b"POST /v1/models/half:predict HTTP/1.1\r\nHost: localhost\r\n"
        head += b"Content-Length: 15\r\n\r\n"
        busy = [socket.create_connection(address) for _ in range(8)]
        for connection in busy:
            connection.sendall(head + b'{"inputs"')
        time.sleep(0.3)
        status, document = started.client.rest(PREDICT, BODY)
        assert status == 503 and "too many connections" in document["error"]
        # Also one that is slow to send sees why.
        with socket.create_connection(address) as slow:
            for part in (head, b'{"inputs": ', b"1.0}"):
                slow.sendall(part)
                time.sleep(0.3)
            assert slow.recv(100).startswith(b"HTTP/1.1 503")
        for connection in busy:
            connection.sendall(b": 1.0}")
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
            connection.close()


def test_bodies_without_a_length_are_bounded(started):
    head = b"POST /v1/models/half:predict HTTP/1.1\r\nHost: localhost\r\n"
    head += b"Authorization: Bearer s3cret\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = send(started, head + b"4e20\r\n" + b" " * 20_000 + b"\r\n0\r\n\r\n")
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400")


def send(started, data, wait=20.0):
    """What comes back for some bytes until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", started.rest_port)) as connection:
        connection.settimeout(wait)
        connection.sendall(data)
        answer = b""
        try:
            while part := connection.recv(65536):
                answer += part
        except ConnectionResetError:
            pass
        return answer


@pytest.mark.parametrize(
    "data",
    [
        b"",  # says nothing
        b"POST /v1/models/half:predict HTTP/1.1\r\nHost",  # stops in its headers
        b"POST /v1/models/half:predict HTTP/1.1\r\nHost: localhost\r\n"
        b"Authorization: Bearer s3cret\r\nContent-Length: 100\r\n\r\n{",  # in its body
    ],
)
def test_clients_that_stop_are_left(started, data):
    begun = time.monotonic()
    assert send(started, data) == b""
    assert 0.8 < time.monotonic() - begun < 15.0


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n\x00: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
    ],
)
def test_what_is_no_http_is_refused(started, data):
    answer = send(started, data)
    assert answer == b"" or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 401"))
    assert started.client.rest(PREDICT, BODY)[0] == 200


def test_slow_clients_do_not_starve_others(started):
    idle = [
        socket.create_connection(("127.0.0.1", started.rest_port)) for _ in range(20)
    ]
    # They hold all the connections, but not for long.
    serving_support.eventually(lambda: answered(started.client))
    assert started.client.predict(inputs=ONE).outputs["y"].float_val == [2.5]
    for connection in idle:
        connection.close()


def answered(client):
    try:
        return client.rest(PREDICT, BODY)[0] == 200
    except OSError:
        return False


def test_metrics_have_tensorflow_servings_names(started):
    for _ in range(3):
        started.client.rest(PREDICT, BODY)
    status, page = started.client.rest(METRICS)
    assert status == 200
    lines = page.splitlines()
    assert "# TYPE :tensorflow:serving:request_count counter" in lines
    assert "# TYPE :tensorflow:serving:request_latency histogram" in lines
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    prefix = ":tensorflow:serving:"
    count = float(values[prefix + 'request_count{model_name="half",status="OK"}'])
    assert count >= 3
    labels = '{model_name="half",API="Predict",entrypoint="REST"'
    assert float(values[f'{prefix}request_latency_bucket{labels},le="+Inf"}}']) >= 3
    labels = '{model_name="half",API="Predict",runtime="TF1"}'
    assert float(values[f"{prefix}runtime_latency_count{labels}"]) >= 3
    sizes = prefix + 'batching:processed_batch_size_sum{model_name="half"}'
    assert float(values[sizes]) >= 3
    assert float(values["process_resident_memory_bytes"]) > 0


def test_names_of_clients_making_do_not_become_metrics(started):
    for number in range(3):
        started.client.rest(f"/v1/models/invented{number}:predict", BODY)
    page = started.client.rest(METRICS)[1]
    assert "invented" not in page
    assert 'request_count{model_name="unknown",status="NOT_FOUND"}' in page


def test_the_path_of_the_metrics_is_configured(base, tmp_path):
    path = tmp_path / "monitoring.config"
    path.write_text('prometheus_config { enable: true path: "/metrics" }')
    with serving_support.in_process(
        model_base_path=str(base), monitoring_config_file=str(path)
    ) as started:
        assert started.client.rest("/metrics")[0] == 200
        assert started.client.rest(METRICS)[0] == 404
        # The model has TensorFlow Serving's default name.
        assert started.client.rest("/v1/models/default")[0] == 200


def test_a_full_pool_refuses_and_still_tells_its_state():
    async def scenario():
        go = threading.Event()
        served = service.Service(Store(), Counted(), 100, threads=1, max_queued=1)
        calls = [
            asyncio.create_task(served.answer("Predict", "REST", "m", go.wait))
            for _ in range(3)
        ]
        await asyncio.sleep(0.1)
        assert isinstance(calls[2].exception(), errors.ServingError)
        assert calls[2].exception().code == "UNAVAILABLE"
        # Who waits may go; who is being answered keeps the thread.
        calls[1].cancel()
        calls[0].cancel()
        await asyncio.sleep(0.05)
        assert served._begun == 1
        go.set()
        await asyncio.sleep(0.1)
        assert served._begun == 0
        served.close()

    asyncio.run(scenario())


class Store:
    def known(self, name):
        return True


class Counted:
    def request(self, *values):
        pass


# TLS.


def certificate(name, issuer=None):
    """A key and a certificate of a name, of itself or of an issuer."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    names = [x509.DNSName("localhost")]
    names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[1].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(issuer is None, None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(issuer[0] if issuer else key, hashes.SHA256())
    )
    return key, made


def write(folder, name, pair):
    key, made = pair
    pem = serialization.Encoding.PEM
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(
            pem,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    (folder / f"{name}.crt").write_bytes(made.public_bytes(pem))


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """A folder with the files of an authority, a server, a client and a stranger."""
    folder = tmp_path_factory.mktemp("keys")
    authority = certificate("authority")
    write(folder, "authority", authority)
    for name in ("server", "client"):
        write(folder, name, certificate(name, authority))
    write(folder, "stranger", certificate("stranger"))
    return folder


def tls_client(started, keys, name=""):
    """A client that trusts the authority, with a certificate when it has a name."""
    read = {
        path.name: path.read_bytes()
        for path in keys.iterdir()
        if name or "auth" in path.name
    }
    credentials = grpc.ssl_channel_credentials(
        read["authority.crt"], read.get(f"{name}.key"), read.get(f"{name}.crt")
    )
    context = ssl.create_default_context(cafile=keys / "authority.crt")
    if name:
        context.load_cert_chain(keys / f"{name}.crt", keys / f"{name}.key")
    return serving_support.Client(
        started.port, started.rest_port, "", credentials, context
    )


@pytest.mark.parametrize("mutual", [False, True])
def test_tls_and_client_certificates(base, keys, mutual):
    files = {"tls_certificate": "server.crt", "tls_key": "server.key"}
    if mutual:
        files["tls_client_ca"] = "authority.crt"
    with serving_support.in_process(
        model_name="half",
        model_base_path=str(base),
        **{flag: str(keys / name) for flag, name in files.items()},
    ) as started:
        allowed = {"client": True, "": not mutual, "stranger": not mutual}
        for name, expected in allowed.items():
            client = tls_client(started, keys, name)
            assert answered(client) == expected, name
            if expected:
                assert client.predict(inputs=ONE).outputs["y"].float_val == [2.5]
            else:
                found = code_of(lambda c=client: c.predict(inputs=ONE))
                assert found == "UNAVAILABLE"
            client.close()
        # Without TLS.
        assert not answered(started.client)
        assert code_of(lambda: started.client.predict(inputs=ONE)) == "UNAVAILABLE"


@pytest.mark.parametrize(
    "token, ca, allowed",
    [("", "", False), ("t", "", True), ("", "authority.crt", True)],
)
def test_reloading_from_elsewhere_needs_a_client_that_is_known(
    base, keys, token, ca, allowed
):
    files = {"tls_certificate": "server.crt", "tls_key": "server.key"}
    files |= {"tls_client_ca": ca} if ca else {}
    with serving_support.in_process(
        model_name="half",
        model_base_path=str(base),
        host="0.0.0.0",
        token=token,
        **{flag: str(keys / name) for flag, name in files.items()},
    ) as started:
        client = tls_client(started, keys, "client")
        request = model_management_pb2.ReloadConfigRequest()
        metadata = [("authorization", f"Bearer {token}")]
        found = code_of(
            lambda: client.models.HandleReloadConfigRequest(request, metadata=metadata)
        )
        assert found == ("INVALID_ARGUMENT" if allowed else "PERMISSION_DENIED")
        client.close()


def test_a_key_that_does_not_fit_is_told(keys):
    pair = str(keys / "server.crt"), str(keys / "client.key")
    with pytest.raises(ValueError, match="does not fit: KEY_VALUES_MISMATCH"):
        security.tls_context(*pair, None)


def test_only_loopback_addresses_are_this_machines():
    assert all(
        map(security.is_loopback, ("127.0.0.1", "::1", "localhost", "127.9.9.9"))
    )
    assert not any(map(security.is_loopback, ("0.0.0.0", "::", "10.0.0.1", "example")))


# Flags.


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "name a model with --model_base_path or --model_config_file"),
        (["--model_base_path", "{tmp}/no"], "must be a folder: {tmp}/no"),
        (["--model_config_file", "{tmp}/no"], "must be a file: {tmp}/no"),
        (["--model_base_path", "{tmp}", "x"], "unknown arguments: x"),
        (["--model_base_path", "{tmp}", "--prot", "1"], "unknown arguments: --prot"),
        (["--model_base_path", "{tmp}", "--port", "65536"], "a port from 0 to 65535"),
        (["--model_base_path", "{tmp}", "--port", "8501"], "are both 8501"),
        (["--model_base_path", "{tmp}", "--tls_key", "{file}"], "go together"),
        (
            ["--model_base_path", "{tmp}", "--tls_client_ca", "{file}"],
            "--tls_client_ca needs --tls_certificate",
        ),
        (
            ["--model_base_path", "{tmp}", "--batching_parameters_file", "{file}"],
            "needs --enable_batching",
        ),
        (["--model_base_path", "{tmp}", "--token_file", "{tmp}/no"], "No such file"),
        (["--model_base_path", "{tmp}", "--token_file", "{file}"], "is empty"),
        (["--model_base_path", "{tmp}", "--max_connections", "0"], "more than 0"),
        (["--model_base_path", "{tmp}", "--enable_batching=yes"], "true or false"),
    ],
)
def test_usage_errors_are_one_line(arguments, message, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    names = {"tmp": tmp_path, "file": tmp_path / "file"}
    with pytest.raises(SystemExit) as stop:
        main.main(["serve", *(x.format(**names) for x in arguments)])
    assert stop.value.code == console.USAGE
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1
    assert message.format(**names) in shown.err


def test_the_token_comes_from_a_file_or_the_environment(tmp_path, monkeypatch):
    parser = cli_parser.Parser()
    command_line.add_arguments(parser)
    base = ["--model_base_path", str(tmp_path)]
    assert options.build_options(parser.parse_args(base)).token == ""
    (tmp_path / "token").write_text("s3cret\n")
    arguments = parser.parse_args([*base, "--token_file", str(tmp_path / "token")])
    assert options.build_options(arguments).token == "s3cret"
    monkeypatch.setenv(options.TOKEN_VARIABLE, "other")
    assert options.build_options(parser.parse_args(base)).token == "other"
    with pytest.raises(ValueError, match="are both given"):
        options.build_options(arguments)
    monkeypatch.setenv(options.TOKEN_VARIABLE, "two words")
    with pytest.raises(ValueError, match="printable ASCII without spaces"):
        options.build_options(parser.parse_args(base))


def test_a_missing_package_is_told_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tornado" else 1
    )
    code = main.main(["serve", "--model_base_path", str(tmp_path)])
    told = "dfdetect serve: tornado is missing: pip install 'dfdetect[serve]'\n"
    assert (code, capsys.readouterr().err) == (console.FAILED, told)


# Its end.


class Load:
    """Clients that ask, each until it is refused."""

    def __init__(self, port, rest_port):
        self.answers, self.failures = [], []
        self.client = serving_support.Client(port, rest_port)
        self._threads = [
            threading.Thread(target=self._ask, args=(i % 2 == 0,)) for i in range(4)
        ]
        for thread in self._threads:
            thread.start()

    def _ask(self, over_rest):
        try:
            while True:
                if over_rest:
                    self.answers.append(post_once(self.client.rest_port))
                else:
                    found = self.client.predict(inputs=ONE)
                    self.answers.append(found.outputs["y"].float_val[0])
        except (ConnectionRefusedError, ConnectionResetError):
            # Not accepted: the second is what those in the queue of a socket are told
            # that is no longer listened at.
            pass
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE:
                self.failures.append(error)
        except Exception as error:
            self.failures.append(error)

    def check(self):
        for thread in self._threads:
            thread.join(20)
        self.client.close()
        assert not self.failures
        assert set(self.answers) == {2.5} and len(self.answers) > 20


def test_sigterm_under_load_answers_what_was_accepted(base, capsys):
    port, rest_port = serving_support.free_port(), serving_support.free_port()
    loads = []

    def act():
        client = serving_support.Client(port, rest_port)
        serving_support.eventually(lambda: answered(client))
        client.close()
        loads.append(Load(port, rest_port))
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=act)
    thread.start()
    code = main.main(
        ["serve", "--model_name=half", "--model_base_path", str(base)]
        + ["--enable_batching", f"--port={port}", f"--rest_api_port={rest_port}"]
    )
    thread.join()
    said = capsys.readouterr().err
    assert code == 0 and "draining" in said and "stopped" in said
    loads[0].check()


@pytest.mark.slow
def test_sigterm_ends_a_process_with_0(base):
    port, rest_port = serving_support.free_port(), serving_support.free_port()
    process = serving_support.start_process(
        *("--model_name", "half", "--model_base_path", base),
        *("--port", port, "--rest_api_port", rest_port),
    )
    load = Load(port, rest_port)
    time.sleep(3)
    process.send_signal(signal.SIGTERM)
    load.check()
    said = process.stderr.read()
    assert process.wait(20) == 0, said
    assert "draining" in said and "stopped" in said
    # No note of a library's, and no traceback.
    assert all(line.startswith("dfdetect serve: ") for line in said.splitlines())


def post_once(port):
    """Sends one request on a connection of its own; the answer must come whole."""
    body = json.dumps(BODY).encode()
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(
            b"POST /v1/models/half:predict HTTP/1.1\r\nHost: localhost\r\n"
            b"Connection: close\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        answer = b""
        while part := connection.recv(65536):
            answer += part
    head, _, document = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), answer
    return json.loads(document)["predictions"][0][0]


def test_a_server_without_a_model_that_loads_ends(tmp_path, capsys):
    (tmp_path / "1").mkdir()
    code = main.main(
        ["serve", "--model_base_path", str(tmp_path), "--max_num_load_retries=0"]
    )
    shown = capsys.readouterr().err
    assert (
        code == console.FAILED and "no model loads; default: SavedModel file" in shown
    )


def test_a_port_that_is_taken_is_told(base, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        other = str(serving_support.free_port())
        for flag, another in (("port", "rest_api_port"), ("rest_api_port", "port")):
            flags = [f"--{flag}", port, f"--{another}", other]
            begin = time.monotonic()
            code = main.main(["serve", "--model_base_path", str(base), *flags])
            assert code == console.FAILED
            assert capsys.readouterr().err == (
                f"dfdetect serve: cannot listen at 127.0.0.1:{port} (--{flag}): "
                "Address already in use\n"
            )
            assert time.monotonic() < begin + 5, "before any model is loaded"
            # The other port is free again.
            socket.create_server(("127.0.0.1", int(other))).close()


@pytest.mark.parametrize(
    "host, reason",
    [("192.0.2.1", "Cannot assign requested address"), ("no.such.host.invalid", "")],
)
def test_an_address_that_is_not_ours_is_told(base, capsys, host, reason):
    arguments = ["--model_base_path", str(base), "--host", host]
    assert main.main(["serve", *arguments]) == console.FAILED
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"dfdetect serve: cannot listen at {host}:8501")
    assert line.endswith(reason)


def test_nobody_connects_before_the_models_are_there():
    port = serving_support.free_port()
    held = listening.HeldPort("port", "127.0.0.1", port)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port)).close()
    # Nor does another server that starts meanwhile take it.
    with pytest.raises(OSError, match=f"127.0.0.1:{port} .--port.: Address"):
        listening.HeldPort("port", "127.0.0.1", port)
    (opened,) = held.listen()
    with opened:
        socket.create_connection(("127.0.0.1", port)).close()
        with pytest.raises(OSError, match=f"127.0.0.1:{port} .--port.: Address"):
            listening.HeldPort("port", "127.0.0.1", port)


@pytest.mark.parametrize("name, advice", [("7", "name {parent}"), ("m", "move it to ")])
def test_a_version_in_place_of_its_folder_is_told(tmp_path, capsys, name, advice):
    version = tmp_path / name
    version.mkdir()
    (version / "saved_model.pb").write_bytes(b"")
    with pytest.raises(SystemExit) as stop:
        main.main(["serve", "--model_base_path", str(version)])
    assert stop.value.code == console.USAGE
    said = capsys.readouterr().err
    assert f"{version} is itself a version: {advice.format(parent=tmp_path)}" in said
    assert said.count("\n") == 1
