"""The flags of `dfdetect serve`; those of TensorFlow Serving have its names.

Imports nothing heavy, so that help and mistakes are answered at once.
"""

import argparse
import dataclasses
import importlib.metadata
import os
from typing import Any

import dfdetect
from dfdetect.media.image_status import MAX_PIXELS

TOKEN_VARIABLE = "DFDETECT_SERVE_TOKEN"

# By one of them TensorFlow knows the folder of a SavedModel.
MODEL_FILES = frozenset({"saved_model.pb", "saved_model.pbtxt"})

MOST_DIMENSIONS = 64  # Of a tensor: NumPy's.

_MEBIBYTE = 2**20


@dataclasses.dataclass(frozen=True)
class Options:
    """The flags' values, see `add_arguments`.

    Attributes:
        token: "" without one.
        ignored: Flags that were given and have no meaning here.
    """

    model_name: str = "default"
    model_base_path: str = ""
    model_config_file: str = ""
    model_config_file_poll_wait_seconds: float = 0.0
    file_system_poll_wait_seconds: float = 1.0
    max_num_load_retries: int = 5
    load_retry_interval_micros: int = 60_000_000
    allow_version_labels_for_unavailable_models: bool = False
    saved_model_tags: str = "serve"
    host: str = "127.0.0.1"
    port: int = 8500
    rest_api_port: int = 8501
    rest_api_timeout_in_ms: int = 30_000
    enable_batching: bool = False
    batching_parameters_file: str = ""
    monitoring_config_file: str = ""
    tls_certificate: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    token_file: str = ""
    max_request_bytes: int = 64 * _MEBIBYTE
    max_run_seconds: float = 120.0
    max_connections: int = 512
    num_request_threads: int = 64
    max_queued_requests: int = 256
    allowed_hosts: str = ""
    rest_api_enable_cors_support: bool = False
    header_timeout_seconds: float = 30.0
    body_timeout_seconds: float = 120.0
    drain_seconds: float = 30.0
    tensorflow_intra_op_parallelism: int = 0
    tensorflow_inter_op_parallelism: int = 0
    tensorflow_session_parallelism: int = 0
    enable_model_warmup: bool = True
    grpc_channel_arguments: str = ""
    ssl_config_file: str = ""
    max_pixels: int = MAX_PIXELS
    demo: bool = False
    token: str = ""
    ignored: tuple[str, ...] = ()

    @property
    def allowed_host_names(self) -> tuple[str, ...]:
        """Those of `allowed_hosts`."""
        names = (name.strip() for name in self.allowed_hosts.split(","))
        return tuple(name for name in names if name)


_HELP = {
    "model_name": "name of the model in --model_base_path",
    "model_base_path": "folder of the versions of one model: base/1, base/2, ...",
    "model_config_file": "text proto ModelServerConfig, for several models, labels "
    "and version policies",
    "model_config_file_poll_wait_seconds": "how often it is read again; 0: never",
    "file_system_poll_wait_seconds": "how often new versions are looked for; 0: never",
    "max_num_load_retries": "how often a version that does not load is tried again",
    "load_retry_interval_micros": "how long after",
    "allow_version_labels_for_unavailable_models": "let a label stand for a version "
    "that is not loaded",
    "saved_model_tags": "tags of the graph in a SavedModel, with commas",
    "host": "address to listen at; others than this machine's own reach it only "
    "when you name one",
    "port": "of gRPC; 0: none",
    "rest_api_port": "of REST and metrics; 0: none",
    "rest_api_timeout_in_ms": "how long a REST request may wait before it is begun",
    "enable_batching": "join requests into batches",
    "batching_parameters_file": "text proto BatchingParameters; a version's own "
    "batching_params.pbtxt goes before",
    "monitoring_config_file": "text proto MonitoringConfig, of the path of the metrics",
    "tls_certificate": "PEM file of the server's chain: both ports speak TLS only",
    "tls_key": "PEM file of its key",
    "tls_client_ca": "PEM file: clients need a certificate of this authority",
    "token_file": "file of a token that clients must send as 'Authorization: Bearer "
    f"TOKEN'; or set {TOKEN_VARIABLE}",
    "max_request_bytes": "bound of a request, and of each tensor in it",
    "max_run_seconds": "how long the graph may work on a request or a batch; 0: "
    "without end",
    "max_connections": "of REST clients at a time",
    "num_request_threads": "requests that are worked on at a time",
    "max_queued_requests": "requests that wait; more are answered UNAVAILABLE",
    "allowed_hosts": "names, with commas, by which REST clients may ask; a server that "
    "only this machine reaches is also asked by localhost, 127.0.0.1 and [::1]",
    "rest_api_enable_cors_support": "let pages of other sites ask over REST",
    "header_timeout_seconds": "how long a REST client may take to send its headers, "
    "and a connection be idle",
    "body_timeout_seconds": "how long it may take to send a body or to read an answer",
    "drain_seconds": "how long a stopping server waits for requests in flight",
    "tensorflow_intra_op_parallelism": "threads of an operation; 0: all cores",
    "tensorflow_inter_op_parallelism": "operations at a time; 0: as many as cores",
    "tensorflow_session_parallelism": "both of them",
    "enable_model_warmup": "answer the warm-up requests of a version first",
    "grpc_channel_arguments": "of gRPC's server, NAME=VALUE with commas, such as "
    "grpc.max_connection_age_ms=60000",
    "ssl_config_file": "text proto SSLConfig: TLS of the gRPC port alone, as with "
    "TensorFlow Serving",
    "max_pixels": "most pixels of an image for a model of dfdetect; larger ones are "
    "answered too_large and not decoded",
    "demo": "also a page to try a model of dfdetect with a browser, at the REST port",
}
# Of `tensorflow_model_server`, of what is done here in any case or cannot be.
_IGNORED = (
    *("enable_per_model_batching_parameters", "enable_grpc_healthcheck_service"),
    *("rest_api_num_threads", "grpc_max_threads", "num_load_threads"),
    *("num_unload_threads", "flush_filesystem_caches", "enable_profiler"),
    *("enable_signature_method_name_check", "num_request_iterations_for_warmup"),
    *("remove_unused_fields_from_bundle_metagraph", "skip_initialize_tpu"),
    *("xla_cpu_compilation_enabled", "xla_gpu_compilation_enabled"),
    *("num_tflite_pools", "num_tflite_interpreters_per_pool"),
    "per_process_gpu_memory_fraction",
)
# What must not be 0.
_POSITIVE = (
    *("max_pixels", "max_request_bytes", "max_connections", "num_request_threads"),
    *("header_timeout_seconds", "body_timeout_seconds", "rest_api_timeout_in_ms"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds a flag for each field of `Options` but the token."""
    for field in dataclasses.fields(Options):
        if field.name not in _HELP:
            continue
        text = _HELP[field.name]
        if isinstance(field.default, bool):
            # As in TensorFlow Serving, with a value or without.
            parser.add_argument(
                f"--{field.name}",
                nargs="?",
                const=True,
                default=field.default,
                type=_boolean,
                metavar="true|false",
                help=text,
            )
            continue
        kinds: dict[type, Any] = {str: str, int: _whole, float: _seconds}
        kind = kinds[type(field.default)]
        if field.name == "file_system_poll_wait_seconds":
            kind = _poll_seconds
        shown = f"{text} (default {field.default})" if field.default != "" else text
        parser.add_argument(
            f"--{field.name}",
            default=field.default,
            type=_port if field.name.endswith("port") else kind,
            metavar=_metavar(field.name, field.default),
            help=shown,
        )
    for name in _IGNORED:
        parser.add_argument(
            f"--{name}",
            nargs="?",
            dest="ignored",
            action=_Ignored,
            const="",
            help=argparse.SUPPRESS,
        )
    parser.add_argument("--version", action=_Version, help="show versions, and end")


class _Ignored(argparse.Action):
    """Keeps the name of a flag that has no meaning here, whatever its value."""

    def __call__(self, parser, namespace, values, option_string=None):
        given = getattr(namespace, self.dest, None) or ()
        setattr(namespace, self.dest, (*given, option_string))


class _Version(argparse.Action):
    def __init__(self, option_strings, dest, help=None):
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser, namespace, values, option_string=None):
        # TensorFlow's own would take seconds to say so.
        library = importlib.metadata.version("tensorflow")
        print(f"dfdetect: {dfdetect.__version__}\nTensorFlow Library: {library}")
        parser.exit()


def of(arguments: argparse.Namespace) -> Options:
    """The options of parsed arguments, with the token.

    Raises:
        ValueError: They contradict each other or name what is not there.
    """
    given = vars(arguments)
    values = {
        field.name: given[field.name]
        for field in dataclasses.fields(Options)
        if given.get(field.name) is not None
    }
    options = Options(**values, token=_token(given["token_file"]))
    if bool(options.model_base_path) == bool(options.model_config_file):
        raise ValueError("name a model with --model_base_path or --model_config_file")
    if options.model_base_path and "://" not in options.model_base_path:
        if not os.path.isdir(options.model_base_path):
            raise ValueError(
                f"--model_base_path must be a folder: {options.model_base_path}"
            )
        _check_versions(options.model_base_path)
    for name in ("model_config_file", "batching_parameters_file") + (
        "monitoring_config_file",
        "tls_certificate",
        "tls_key",
        "tls_client_ca",
        "ssl_config_file",
    ):
        path = getattr(options, name)
        if path and not os.path.isfile(path):
            raise ValueError(f"--{name} must be a file: {path}")
    if bool(options.tls_certificate) != bool(options.tls_key):
        raise ValueError("--tls_certificate and --tls_key go together")
    if options.tls_client_ca and not options.tls_certificate:
        raise ValueError("--tls_client_ca needs --tls_certificate and --tls_key")
    if options.ssl_config_file and options.tls_certificate:
        raise ValueError("--ssl_config_file and --tls_certificate do not go together")
    if options.tensorflow_session_parallelism and (
        options.tensorflow_intra_op_parallelism
        or options.tensorflow_inter_op_parallelism
    ):
        raise ValueError(
            "--tensorflow_session_parallelism stands for both of "
            "--tensorflow_intra_op_parallelism and --tensorflow_inter_op_parallelism"
        )
    channel_arguments(options.grpc_channel_arguments)
    if options.batching_parameters_file and not options.enable_batching:
        raise ValueError("--batching_parameters_file needs --enable_batching")
    if not options.port and not options.rest_api_port:
        raise ValueError("--port and --rest_api_port cannot both be 0")
    if options.demo and not options.rest_api_port:
        raise ValueError("--demo needs a --rest_api_port")
    if options.port == options.rest_api_port:
        raise ValueError(f"--port and --rest_api_port are both {options.port}")
    for name in _POSITIVE:
        if not getattr(options, name):
            raise ValueError(f"--{name} must be more than 0")
    return options


def channel_arguments(text: str) -> list[tuple[str, int | str]]:
    """Arguments of a gRPC server, of a flag's value.

    Raises:
        ValueError: It is no list of names and values.
    """
    found: list[tuple[str, int | str]] = []
    for one in filter(None, text.split(",")):
        name, mark, value = one.partition("=")
        if not name or not mark:
            raise ValueError(
                f"--grpc_channel_arguments must be NAME=VALUE with commas, got {text}"
            )
        is_number = value.removeprefix("-").isdecimal() and value.isascii()
        found.append((name, int(value) if is_number else value))
    return found


def _check_versions(base_path: str) -> None:
    """Refuses a model where a folder of numbered versions of it is wanted.

    Raises:
        ValueError: It is one.
    """
    base_path = os.path.abspath(base_path)
    names = os.listdir(base_path)
    if MODEL_FILES.isdisjoint(names) or any(name.isdecimal() for name in names):
        return
    parent, name = os.path.split(base_path)
    advice = f"name {parent}"
    if not name.isdecimal():
        advice = f"move it to {os.path.join(base_path, '1')}"
    raise ValueError(
        "--model_base_path must be a folder of versions, which have numbers for names; "
        f"{base_path} is itself a version: {advice}"
    )


def _token(path: str) -> str:
    token = os.environ.get(TOKEN_VARIABLE, "")
    if path and token:
        raise ValueError(f"--token_file and {TOKEN_VARIABLE} are both given")
    if path:
        try:
            with open(path, encoding="ascii") as file:
                token = file.read().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "no ASCII"
            raise ValueError(f"--token_file: {path}: {reason}") from error
        if not token:
            raise ValueError(f"--token_file: {path} is empty")
    if any(not 33 <= ord(character) <= 126 for character in token):
        raise ValueError("the token must be printable ASCII without spaces")
    return token


def _metavar(name: str, default: object) -> str:
    if default == "":
        for ending, shown in (("file", "FILE"), ("path", "DIR")):
            if name.endswith(ending):
                return shown
        return "FILE" if name.startswith("tls") else "NAME"
    if isinstance(default, str):
        return {"host": "ADDRESS", "saved_model_tags": "TAGS"}.get(name, "NAME")
    return "N"


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"true or false, not {text!r}")
    return text.lower() == "true"


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"a whole number, not {text!r}")
    return int(text)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) < 65536):
        raise argparse.ArgumentTypeError(f"a port from 0 to 65535, not {text!r}")
    return int(text)


def _poll_seconds(text: str) -> float:
    # Below 0 TensorFlow Serving does not look at all.
    return 0.0 if text.startswith("-") and _seconds(text[1:]) else _seconds(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"seconds, not {text!r}")
    return value
