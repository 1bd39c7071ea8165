"""The text protos that TensorFlow Serving is configured with.

Those of models come from its stubs, which leave out batching, monitoring and TLS: their
messages are declared here, with the names and types of its `.proto` files.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message,
    message_factory,
    text_format,
    wrappers_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

from dfdetect.serving import errors

METRICS_PATH = "/monitoring/prometheus/metrics"

_Field = descriptor_pb2.FieldDescriptorProto
_INT64 = f".{wrappers_pb2.Int64Value.DESCRIPTOR.full_name}"
_BOOL = f".{wrappers_pb2.BoolValue.DESCRIPTOR.full_name}"
_STRING = f".{wrappers_pb2.StringValue.DESCRIPTOR.full_name}"
_BATCHING_FIELDS: Mapping[str, Any] = {
    "max_batch_size": _INT64,
    "batch_timeout_micros": _INT64,
    "max_enqueued_batches": _INT64,
    "num_batch_threads": _INT64,
    "thread_pool_name": _STRING,
    "allowed_batch_sizes": [_Field.TYPE_INT64],
    "pad_variable_length_inputs": _Field.TYPE_BOOL,
    "enable_large_batch_splitting": _BOOL,
}
_MONITORING_FIELDS: Mapping[str, Any] = {
    "enable": _Field.TYPE_BOOL,
    "path": _Field.TYPE_STRING,
}
_KEY_FIELDS: Mapping[str, Any] = {
    "server_key": _Field.TYPE_STRING,
    "server_cert": _Field.TYPE_STRING,
    "custom_ca": _Field.TYPE_STRING,
    "client_verify": _Field.TYPE_BOOL,
}


@dataclasses.dataclass(frozen=True)
class Batching:
    """How requests are joined; see TensorFlow Serving's `BatchingParameters`.

    Attributes:
        max_batch_size: Most examples of a batch.
        batch_timeout_micros: How long the first request of a batch waits for others.
        max_enqueued_batches: Bound of the queue, in batches.
        num_batch_threads: Batches that run at a time.
        allowed_batch_sizes: Batches are filled up to the next of them; none: to any.
        pad_variable_length_inputs: Whether inputs whose other dimensions differ are
            filled up with zeros, and so fit into one batch.
        enable_large_batch_splitting: Whether a larger request is cut, not refused.

    Raises:
        ValueError: A value is out of range, or the sizes do not ascend to the largest.
    """

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = 2
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    enable_large_batch_splitting: bool = False

    def __post_init__(self) -> None:
        for name in ("max_batch_size", "max_enqueued_batches", "num_batch_threads"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be at least 1, got {getattr(self, name)}."
                )
        if self.batch_timeout_micros < 0:
            raise ValueError(
                f"batch_timeout_micros must not be negative, "
                f"got {self.batch_timeout_micros}."
            )
        sizes = self.allowed_batch_sizes
        ascending = all(a < b for a, b in zip((0, *sizes), sizes, strict=False))
        if sizes and not (ascending and sizes[-1] == self.max_batch_size):
            raise ValueError(
                "allowed_batch_sizes must ascend and end with max_batch_size "
                f"{self.max_batch_size}, got {list(sizes)}."
            )


def read_batching(path: str) -> Batching:
    """Reads batching parameters.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not such a text proto, or a value is out of range.
    """
    parameters = _parse(path, _messages()["BatchingParameters"]())
    values: dict[str, Any] = {}
    for name in _BATCHING_FIELDS:
        value = getattr(parameters, name)
        if name == "thread_pool_name":
            continue
        if isinstance(value, message.Message):
            if parameters.HasField(name):
                values[name] = value.value
        elif name == "allowed_batch_sizes":
            values[name] = tuple(value)
        else:
            values[name] = value
    try:
        return Batching(**values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_metrics_path(path: str) -> str | None:
    """Reads where a monitoring file wants the metrics; None when it turns them off.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not such a text proto, or the path lacks its first slash.
    """
    monitoring = _parse(path, _messages()["MonitoringConfig"]())
    if not monitoring.prometheus_config.enable:
        return None
    wanted = monitoring.prometheus_config.path or METRICS_PATH
    if not wanted.startswith("/"):
        raise ValueError(f"{path}: path must begin with a slash, got {wanted!r}.")
    return wanted


def read_grpc_credentials(path: str) -> grpc.ServerCredentials:
    """Reads the keys of the gRPC port: a `SSLConfig`, with PEM in it.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not such a text proto, or lacks the key or certificate.
    """
    keys = _parse(path, _messages()["SSLConfig"]())
    if not keys.server_key or not keys.server_cert:
        raise ValueError(f"{path} must have a server_key and a server_cert.")
    if keys.client_verify and not keys.custom_ca:
        raise ValueError(f"{path} must have a custom_ca, as client_verify is set.")
    return grpc.ssl_server_credentials(
        [(keys.server_key.encode(), keys.server_cert.encode())],
        keys.custom_ca.encode() or None,
        require_client_auth=keys.client_verify,
    )


def read_models(path: str) -> model_server_config_pb2.ModelServerConfig:
    """Reads the list of models.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not such a text proto, or `check_models` refuses it.
    """
    config = _parse(path, model_server_config_pb2.ModelServerConfig())
    try:
        check_models(config)
    except errors.ServingError as error:
        raise ValueError(f"{path}: {error}") from error
    return config


def build_models_config(
    name: str, base_path: str
) -> model_server_config_pb2.ModelServerConfig:
    """Builds the list of one model, latest version only; the path may be relative."""
    if "://" not in base_path:
        base_path = os.path.abspath(base_path)
    config = model_server_config_pb2.ModelServerConfig()
    config.model_config_list.config.add(
        name=name, base_path=base_path, model_platform="tensorflow"
    )
    return config


def check_models(config: model_server_config_pb2.ModelServerConfig) -> None:
    """Refuses a list of models that cannot be served.

    Raises:
        errors.ServingError: A name, path or platform is missing, a path is relative, or
            a name is there twice.
    """
    if config.WhichOneof("config") == "custom_model_config":
        raise errors.invalid("custom_model_config is not supported.")
    names = set()
    for model in config.model_config_list.config:
        if not model.name:
            raise errors.invalid("Model name must not be empty in config list.")
        if model.name in names:
            raise errors.invalid(
                f"Illegal to list model {model.name} multiple times in config list"
            )
        names.add(model.name)
        if not (os.path.isabs(model.base_path) or "://" in model.base_path):
            raise errors.invalid(
                f"Expected model {model.name} to have an absolute path or URI; "
                f"got base_path()={model.base_path}"
            )
        _check_platform(model)


def _check_platform(model: model_server_config_pb2.ModelConfig) -> None:
    if model.model_type != model_server_config_pb2.MODEL_TYPE_UNSPECIFIED:
        if model.model_platform:
            raise errors.invalid(
                "Illegal setting both ModelServerConfig::model_type (deprecated) and "
                f"ModelServerConfig::model_platform, model name is {model.name}"
            )
        if model.model_type != model_server_config_pb2.TENSORFLOW:
            raise errors.invalid(
                f"ModelServerConfig::model_type choice {model.model_type} not "
                "supported."
            )
    elif not model.model_platform:
        raise errors.invalid(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
            f"ModelServerConfig::model_platform, model name is {model.name}"
        )
    elif model.model_platform != "tensorflow":
        raise errors.invalid(
            f"Model {model.name} must be of platform tensorflow, "
            f"got {model.model_platform}."
        )


def _parse(path: str, parsed: Any) -> Any:
    try:
        return text_format.Parse(pathlib.Path(path).read_text("utf-8"), parsed)
    except (text_format.ParseError, UnicodeDecodeError) as error:
        wanted = parsed.DESCRIPTOR.name
        raise ValueError(f"{path} must be a text proto {wanted}: {error}") from error


def _messages() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="dfdetect/serving/config.proto",
        package="dfdetect.serving",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
        syntax="proto3",
    )
    _declare(file, "BatchingParameters", _BATCHING_FIELDS)
    _declare(file, "SSLConfig", _KEY_FIELDS)
    _declare(file, "PrometheusConfig", _MONITORING_FIELDS)
    _declare(
        file,
        "MonitoringConfig",
        {"prometheus_config": ".dfdetect.serving.PrometheusConfig"},
    )
    # A pool of its own: the default one would refuse the file a second time.
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"dfdetect.serving.{name}")
        )
        for name in ("BatchingParameters", "MonitoringConfig", "SSLConfig")
    }


def _declare(
    file: descriptor_pb2.FileDescriptorProto, name: str, fields: Mapping[str, Any]
) -> None:
    declared = file.message_type.add(name=name)
    for number, (field_name, kind) in enumerate(fields.items(), start=1):
        field = declared.field.add(name=field_name, number=number)
        field.label = _Field.LABEL_OPTIONAL
        if isinstance(kind, list):
            field.label = _Field.LABEL_REPEATED
            (kind,) = kind
        if isinstance(kind, str):
            field.type, field.type_name = _Field.TYPE_MESSAGE, kind
        else:
            field.type = kind
