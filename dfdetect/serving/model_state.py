"""The state of models and their versions, and how requests find a version."""

import dataclasses
from collections.abc import Mapping

from tensorflow.core.protobuf import error_codes_pb2
from tensorflow_serving.apis import get_model_status_pb2, model_pb2
from tensorflow_serving.config import model_server_config_pb2

from dfdetect.serving import errors, servable

State = get_model_status_pb2.ModelVersionStatus.State


@dataclasses.dataclass
class Version:
    """One version of a model.

    Attributes:
        path: Its folder.
        state: As clients are told.
        error: Why it did not load, at the last attempt.
        loaded: What answers for it.
        users: Requests that it is answering.
        attempts: Loads that were tried since it is wanted.
        next_attempt: When to try again, of `time.monotonic`.
        busy: Whether a thread loads or frees it.
    """

    path: str
    state: int = State.START
    error: errors.ServingError | None = None
    loaded: servable.Servable | None = None
    users: int = 0
    attempts: int = 0
    next_attempt: float = 0.0
    busy: bool = False


@dataclasses.dataclass
class Model:
    """A model and all versions that it has had.

    Attributes:
        config: Empty once nobody wants it.
        aspired: Paths of the versions that are wanted, by number.
        versions: By number.
    """

    config: model_server_config_pb2.ModelConfig
    aspired: dict[int, str] = dataclasses.field(default_factory=dict)
    versions: dict[int, Version] = dataclasses.field(default_factory=dict)

    def available(self) -> dict[int, Version]:
        """The versions that answer, by number."""
        return {
            number: version
            for number, version in self.versions.items()
            if version.state == State.AVAILABLE
        }


def find_version(models: Mapping[str, Model], spec: model_pb2.ModelSpec) -> Version:
    """Finds the available version that a request names, by default the latest.

    Raises:
        errors.ServingError: No such version is available.
    """
    if not spec.name:
        raise errors.invalid("ModelSpec has no name specified.")
    model = models.get(spec.name)
    choice = spec.WhichOneof("version_choice")
    if choice == "version_label":
        labels: Mapping[str, int] = model.config.version_labels if model else {}
        if spec.version_label not in labels:
            raise errors.invalid(
                f"Unrecognized servable version label: {spec.version_label}"
            )
        number = labels[spec.version_label]
    elif choice == "version":
        number = spec.version.value
    else:
        available = model.available() if model else {}
        if available:
            return available[max(available)]
        raise errors.ServingError(
            "NOT_FOUND", f"Servable not found for request: Latest({spec.name})"
        )
    available = model.available() if model else {}
    if number not in available:
        raise errors.ServingError(
            "NOT_FOUND",
            f"Servable not found for request: Specific({spec.name}, {number})",
        )
    return available[number]


def build_status(
    models: Mapping[str, Model], spec: model_pb2.ModelSpec
) -> get_model_status_pb2.GetModelStatusResponse:
    """Builds the states of the versions of a model, newest first; labels are ignored.

    Raises:
        errors.ServingError: There is no such model or version.
    """
    response = get_model_status_pb2.GetModelStatusResponse()
    model = models.get(spec.name)
    known = dict(model.versions) if model else {}
    if spec.WhichOneof("version_choice") == "version":
        number = spec.version.value
        if number not in known:
            raise errors.ServingError(
                "NOT_FOUND",
                f"Could not find version {number} of model {spec.name}",
            )
        known = {number: known[number]}
    if not known:
        raise errors.ServingError(
            "NOT_FOUND", f"Could not find any versions of model {spec.name}"
        )
    for number, version in sorted(known.items(), reverse=True):
        row = response.model_version_status.add(version=number, state=version.state)
        # Also an empty message is there, as TensorFlow Serving prints it.
        row.status.SetInParent()
        if version.error:
            code = error_codes_pb2.Code.Value(version.error.code)
            row.status.error_code = code
            row.status.error_message = version.error.message
    return response


def check_labels(
    models: Mapping[str, Model],
    wanted: Mapping[str, model_server_config_pb2.ModelConfig],
    unavailable_labels: bool,
) -> None:
    """Refuses labels whose versions are not available.

    Args:
        models: As they are.
        wanted: What they are to become.
        unavailable_labels: Whether labels that are not yet there are left out.

    Raises:
        errors.ServingError: A version is not available.
    """
    for name, config in wanted.items():
        model = models.get(name)
        current: Mapping[str, int] = model.config.version_labels if model else {}
        available = model.available() if model else {}
        for label, number in config.version_labels.items():
            if unavailable_labels and current.get(label, number) == number:
                continue
            if number not in available:
                message = _unavailable_label(name, label, number)
                raise errors.ServingError("FAILED_PRECONDITION", message)


def unavailable_label(models: Mapping[str, Model]) -> str:
    """Describes a label whose version is not available; "" if all are."""
    for name, model in models.items():
        for label, number in model.config.version_labels.items():
            if number not in model.available():
                return _unavailable_label(name, label, number)
    return ""


def _unavailable_label(name: str, label: str, number: int) -> str:
    return (
        f"Request to assign label {label} to version {number} of model {name}, "
        "which is not currently available for inference"
    )
