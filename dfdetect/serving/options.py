"""The settings of `dfdetect serve`, checked before anything is loaded.

Imports nothing heavy, so that help and mistakes are answered at once.
"""

import argparse
import dataclasses
import os

from dfdetect.media.image_status import MAX_PIXELS

TOKEN_VARIABLE = "DFDETECT_SERVE_TOKEN"

# TensorFlow takes a folder with one of these for a SavedModel.
MODEL_FILES = frozenset({"saved_model.pb", "saved_model.pbtxt"})

MAX_DIMENSIONS = 64  # Of a tensor: NumPy's limit.

_MEBIBYTE = 2**20


@dataclasses.dataclass(frozen=True)
class Options:
    """The values of the flags; `command_line` says what each means.

    Attributes:
        token: Bearer token that clients must send; "" if they need none.
        ignored: Flags of TensorFlow Serving that were given and have no meaning here.
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
        """The names in `allowed_hosts`."""
        names = (name.strip() for name in self.allowed_hosts.split(","))
        return tuple(name for name in names if name)


# Fields that name files.
_FILES = (
    *("model_config_file", "batching_parameters_file", "monitoring_config_file"),
    *("tls_certificate", "tls_key", "tls_client_ca", "ssl_config_file"),
)
# Fields that must not be 0.
_POSITIVE = (
    *("max_pixels", "max_request_bytes", "max_connections", "num_request_threads"),
    *("header_timeout_seconds", "body_timeout_seconds", "rest_api_timeout_in_ms"),
)


def build_options(arguments: argparse.Namespace) -> Options:
    """Builds the options from parsed arguments, reads the token, and checks them.

    Raises:
        ValueError: They contradict each other or name a file that does not exist.
    """
    given = vars(arguments)
    values = {
        field.name: given[field.name]
        for field in dataclasses.fields(Options)
        if given.get(field.name) is not None
    }
    options = Options(**values, token=_read_token(given["token_file"]))
    _check_files(options)
    _check_pairs(options)
    for name in _POSITIVE:
        if not getattr(options, name):
            raise ValueError(f"--{name} must be more than 0")
    return options


def _check_files(options: Options) -> None:
    if bool(options.model_base_path) == bool(options.model_config_file):
        raise ValueError("name a model with --model_base_path or --model_config_file")
    if options.model_base_path and "://" not in options.model_base_path:
        if not os.path.isdir(options.model_base_path):
            raise ValueError(
                f"--model_base_path must be a folder: {options.model_base_path}"
            )
        _check_versions(options.model_base_path)
    for name in _FILES:
        path = getattr(options, name)
        if path and not os.path.isfile(path):
            raise ValueError(f"--{name} must be a file: {path}")


def _check_pairs(options: Options) -> None:
    """Refuses flags that do not go together.

    Raises:
        ValueError: Two of them contradict each other.
    """
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
    parse_channel_arguments(options.grpc_channel_arguments)
    if options.batching_parameters_file and not options.enable_batching:
        raise ValueError("--batching_parameters_file needs --enable_batching")
    if not options.port and not options.rest_api_port:
        raise ValueError("--port and --rest_api_port cannot both be 0")
    if options.demo and not options.rest_api_port:
        raise ValueError("--demo needs a --rest_api_port")
    if options.port == options.rest_api_port:
        raise ValueError(f"--port and --rest_api_port are both {options.port}")


def parse_channel_arguments(text: str) -> list[tuple[str, int | str]]:
    """Parses the arguments of a gRPC server from the flag's value.

    Raises:
        ValueError: It is not a list of names and values.
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
    """Refuses a SavedModel where the folder of its numbered versions is wanted.

    Raises:
        ValueError: `base_path` is a SavedModel itself.
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


def _read_token(path: str) -> str:
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
