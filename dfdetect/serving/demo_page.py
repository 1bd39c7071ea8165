"""The page of `dfdetect serve --demo`: files, an example image, and settings."""

import functools
import json
import os
import pathlib
import re
from collections.abc import Mapping, Set
from typing import Any

import tornado.web
from tensorflow_serving.apis import model_pb2

from dfdetect import boxes, labels, manifest
from dfdetect.media import image_status, samples
from dfdetect.serving import errors, model_store, saved_model, security, servable

PATH = "/demo/"

_FOLDER = pathlib.Path(__file__).parent / "demo"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_INDEX = "index.html"
_HEADERS: Mapping[str, str] = {
    # Nothing from elsewhere, nothing written into the page, in no other page's frame.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; "
    "style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # The browser asks each time whether its copy is still current.
    "Cache-Control": "no-cache",
}
_OUTPUTS = {
    *("num_heads", "boxes", "head_scores"),
    *("fake_probabilities", "fake_probability", "status"),
}
_EXAMPLE = "example.jpg"
_NEIGHBOURS = {
    *("num_heads", "neighbour_ids", "neighbour_labels"),
    "neighbour_similarities",
}


def build_routes(
    store: model_store.ModelStore, token: security.Token | None, max_bytes: int
) -> list[Any]:
    """Builds the routes below `PATH`, and the redirect from `/`.

    Args:
        store: The models.
        token: Required of requests for the settings of the page; None if none is.
        max_bytes: Largest request in bytes.
    """
    known = {"store": store, "token": token, "max_bytes": max_bytes}
    files = {path.name: path.read_bytes() for path in _FOLDER.iterdir()}
    # Relative, so that a proxy may put all of it below a path of its own.
    return [
        (r"/", _ToPage, {"to": PATH.removeprefix("/")}),
        (PATH.removesuffix("/"), _ToPage, {"to": PATH.removeprefix("/")}),
        (rf"{PATH}info\.json", _Info, known),
        (rf"{PATH}{re.escape(_EXAMPLE)}", _Example),
        (rf"{PATH}([\w.]*)", _File, {"files": files}),
    ]


def describe_model(store: model_store.ModelStore, max_bytes: int) -> dict[str, Any]:
    """Returns the settings of the page, with the model that it uses.

    That is the first of the models, in their order, whose latest version has our
    default signature and manifest.

    Raises:
        errors.ServingError: No model has them.
    """
    for name in store.names():
        try:
            with store.use(model_pb2.ModelSpec(name=name)) as model:
                described = _describe(model)
        except (errors.ServingError, OSError, ValueError):
            continue
        if described:
            return {**described, "max_request_bytes": max_bytes}
    raise errors.ServingError("NOT_FOUND", "No model of dfdetect is available")


def _describe(model: servable.Servable) -> dict[str, Any] | None:
    if not _has(model, saved_model.DEFAULT_SIGNATURE, _OUTPUTS):
        return None
    described = manifest.read(os.path.join(model.directory, "assets"), "pipeline")
    classifier = described["classifier"]
    return {
        "model": model.name,
        "version": model.version,
        "thresholds": {
            name: classifier["thresholds"][name] for name in ("real_below", "fake_from")
        },
        "crop_margin": boxes.margin_ratio(classifier["crop_margin"]).as_integer_ratio(),
        "min_head_size": described["min_head_size"],
        "explains": _has(model, "explain_heads", {"heat_map"}, {"boxes"}),
        "neighbours": _has(model, "neighbours", _NEIGHBOURS),
        "labels": labels.NAMES,
        "statuses": image_status.STATUS_NAMES,
        "max_pixels": min(model.max_pixels, image_status.MAX_PIXELS),
    }


@functools.cache
def _draw_example() -> bytes:
    """Draws the example image, a JPEG of three heads."""
    return samples.draw_samples(3)[2]


def _has(
    model: servable.Servable,
    name: str,
    outputs: set[str],
    other_inputs: Set[str] = frozenset(),
) -> bool:
    """Whether a signature takes encoded images and returns these outputs."""
    signature = model.signatures.get(name)
    return (
        signature is not None
        and set(signature.inputs) == {"image_bytes"} | other_inputs
        and outputs <= set(signature.outputs)
    )


class _Handler(tornado.web.RequestHandler):
    def set_default_headers(self) -> None:
        self.clear_header("Server")
        for name, value in _HEADERS.items():
            self.set_header(name, value)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        self._fail(status_code, self._reason)

    def _fail(self, status: int, message: str) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"error": message}))


class _File(_Handler):
    def initialize(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def get(self, name: str) -> None:
        name = name or _INDEX
        if name not in self._files:
            self._fail(404, f"Not found: {self.request.path}")
            return
        self.set_header("Content-Type", _TYPES[os.path.splitext(name)[1]])
        self.finish(self._files[name])

    head = get


class _Example(_Handler):
    def get(self) -> None:
        self.set_header("Content-Type", "image/jpeg")
        self.finish(_draw_example())

    head = get


class _ToPage(_Handler):
    def initialize(self, to: str) -> None:
        self._to = to

    def get(self) -> None:
        self.redirect(self._to)

    head = get


class _Info(_Handler):
    def initialize(
        self,
        store: model_store.ModelStore,
        token: security.Token | None,
        max_bytes: int,
    ) -> None:
        self._store = store
        self._token = token
        self._max_bytes = max_bytes

    def get(self) -> None:
        self.set_header("Cache-Control", "no-store")
        sent = self.request.headers.get("Authorization", "")
        if self._token and not self._token.matches(sent):
            self.set_header("WWW-Authenticate", "Bearer")
            self._fail(401, security.UNAUTHENTICATED)
            return
        try:
            found = describe_model(self._store, self._max_bytes)
        except errors.ServingError as error:
            self._fail(errors.HTTP_STATUS[error.code], error.message)
            return
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(found))
