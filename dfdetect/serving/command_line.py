"""The flags of `dfdetect serve`; those of TensorFlow Serving have its names.

Imports nothing heavy, so that help and mistakes are answered at once.
"""

import argparse
import dataclasses
import importlib.metadata
from typing import Any

import dfdetect
from dfdetect.serving import options

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
    f"TOKEN'; or set {options.TOKEN_VARIABLE}",
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
# Flags of `tensorflow_model_server` for what is always done here, or cannot be.
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds a flag for each field of `options.Options` except the token."""
    for field in dataclasses.fields(options.Options):
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
    """Notes the name of a flag that has no meaning here, whatever its value."""

    def __call__(self, parser, namespace, values, option_string=None):
        given = getattr(namespace, self.dest, None) or ()
        setattr(namespace, self.dest, (*given, option_string))


class _Version(argparse.Action):
    def __init__(self, option_strings, dest, help=None):
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser, namespace, values, option_string=None):
        # Importing TensorFlow would take seconds.
        library = importlib.metadata.version("tensorflow")
        print(f"dfdetect: {dfdetect.__version__}\nTensorFlow Library: {library}")
        parser.exit()


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
