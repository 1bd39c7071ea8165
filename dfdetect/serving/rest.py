"""The REST protocol, independent of the web server."""

import asyncio
import contextlib
import functools
import json
import re
import time
import urllib.parse
from typing import Any

from google.protobuf import json_format
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
)

from dfdetect.serving import errors, json_values, service

_MODEL = r"/v1/models/([^/:]+)(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?"
_PREDICT = re.compile(_MODEL + r":(classify|regress|predict)", re.I | re.A)
_STATUS = re.compile(
    r"/v1/models(?:/([^/:]+))?(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?"
    r"(?:/(metadata))?",
    re.I | re.A,
)
# Requests with very many numbers that are worked on at a time.
_LARGE_AT_ONCE = 4


class Api:
    """Answers requests by their method and path.

    Args:
        served: See `service.Service`.
        timeout: Seconds after which a request is not begun.
    """

    def __init__(self, served: service.Service, timeout: float) -> None:
        self._service = served
        self._timeout = timeout
        self._few = asyncio.Semaphore(_LARGE_AT_ONCE)

    async def answer(self, method: str, path: str, body: bytes) -> bytes:
        """Returns the JSON of an answer.

        Raises:
            errors.ServingError: The request is malformed, or it fails.
        """
        found = _PREDICT.fullmatch(path)
        calls = {
            "predict": self._service.predict_json,
            "classify": self._service.classify_json,
            "regress": self._service.regress_json,
        }
        # As there, the path may be written in any case, but for its last word.
        if method == "POST" and found and found[4] in calls:
            name, version, label, verb = found.groups()
            spec = _spec(name, version, label)
            call = calls[verb]
            deadline = time.monotonic() + self._timeout
            called = functools.partial(call, spec, body, deadline)
            few: contextlib.AbstractAsyncContextManager = contextlib.nullcontext()
            if json_values.has_many_parts(body):
                # They take long, and are not to take the threads of others.
                few = self._few
            async with few:
                return await self._service.answer(
                    verb.capitalize(), "REST", spec.name, called
                )
        found = _STATUS.fullmatch(path)
        if method == "GET" and found:
            name, version, label, wants_metadata = found.groups()
            if not name:
                raise errors.invalid("Missing model name in request.")
            spec = _spec(name, version, label)
            wanted = wants_metadata == "metadata"
            return self._metadata(spec) if wanted else self._status(spec)
        raise errors.invalid(f"Malformed request: {method} {path}")

    def _status(self, spec: model_pb2.ModelSpec) -> bytes:
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=spec)
        return json.dumps(_as_dict(self._service.status(request)), indent=2).encode()

    def _metadata(self, spec: model_pb2.ModelSpec) -> bytes:
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=spec, metadata_field=["signature_def"]
        )
        answer = self._service.metadata(request)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        answer.metadata["signature_def"].Unpack(signatures)
        # Without the type that JSON has of a message of any kind.
        document = {
            "model_spec": _as_dict(answer.model_spec, preserving_proto_field_name=True),
            "metadata": {
                "signature_def": _as_dict(signatures, preserving_proto_field_name=True)
            },
        }
        return json.dumps(document, indent=2).encode()


def _spec(name: str, version: str | None, label: str | None) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=_decoded(name))
    if version:
        digits = version.lstrip("0") or "0"
        # Python refuses to read very long numbers.
        if len(digits) > 19 or int(digits) >= 2**63:
            raise errors.invalid(f"Failed to convert version: {version} to numeric.")
        spec.version.value = int(digits)
    elif label:
        spec.version_label = _decoded(label)
    return spec


def _decoded(text: str) -> str:
    return urllib.parse.unquote(text)


def _as_dict(message: Any, **how: Any) -> dict[str, Any]:
    return json_format.MessageToDict(
        message, always_print_fields_with_no_presence=True, **how
    )
