"""One version of a model, loaded, and warmed up before it is offered."""

import functools
import math
import os
import threading
import time
from collections.abc import Callable, Hashable, Sequence

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2
from tensorflow_serving.apis import prediction_log_pb2

from dfdetect.media import image_status
from dfdetect.serving import (
    batching,
    config,
    errors,
    examples,
    metrics,
    run_limit,
    saved_model,
)

WARMUP = "assets.extra/tf_serving_warmup_requests"
BATCHING = "batching_params.pbtxt"
NEVER = math.inf

_MOST_WARMUP_RECORDS = 1000
_RECORD_FRAME = 16  # Bytes around each record: its length, and two checksums.


class Servable:
    """One version of a model that answers requests.

    Attributes:
        name: Name of the model.
        version: Its number.
        directory: Its folder.
        signatures: See `saved_model.SavedModel`.
        max_pixels: See `image_bounds.hide_large`.

    Args:
        batching_parameters: How requests are joined; None: they are not.
        counted: The metrics to update.
        limit: Of the server's requests, see `run_limit.RunLimit`.
    """

    def __init__(
        self,
        name: str,
        version: int,
        directory: str,
        model: saved_model.SavedModel,
        batching_parameters: config.Batching | None,
        counted: metrics.Metrics,
        limit: run_limit.RunLimit,
        max_pixels: int = image_status.MAX_PIXELS,
    ) -> None:
        self.max_pixels = max_pixels
        self.name = name
        self.version = version
        self.directory = directory
        self.signatures = model.signatures
        self._model = model
        self._limit = limit
        self._metrics = counted
        self._batcher = None
        if batching_parameters is not None:
            self._batcher = batching.Batcher(
                self._run_in_turn,
                batching_parameters,
                functools.partial(counted.batch, name),
            )

    def signature(self, name: str) -> meta_graph_pb2.SignatureDef | None:
        """Returns the signature of a name, "" for the default one; None if missing."""
        return self.signatures.get(name or saved_model.DEFAULT_SIGNATURE)

    def run(
        self,
        feeds: saved_model.Arrays,
        fetches: Sequence[str],
        api: str,
        deadline: float = NEVER,
    ) -> dict[str, np.ndarray]:
        """Runs the graph, in a batch with others where batching is on.

        Args:
            feeds: Values by tensor name.
            fetches: Names of tensors.
            api: API of the request, for the metrics; "" is not counted and waits for
                nothing.
            deadline: Time of `time.monotonic` after which nothing is started.

        Raises:
            errors.ServingError, tf.errors.OpError: There is no answer.
        """
        started = time.monotonic()
        if started > deadline:
            raise errors.ServingError("DEADLINE_EXCEEDED", "Deadline exceeded in queue")
        if not api:
            outputs = self._model.run(feeds, fetches)
        elif self._batcher is None:
            outputs = self._run_in_turn(feeds, fetches, deadline)
        else:
            outputs = self._batcher.run(feeds, fetches, deadline)
        if api:
            self._metrics.runtime(self.name, api, time.monotonic() - started)
        return outputs

    def limit_time(self, deadline: float) -> float:
        """Returns until when work on a request outside of the graph may go on.

        Args:
            deadline: Of the request, see `run`.
        """
        seconds = self._model.run_seconds
        return min(deadline, time.monotonic() + seconds) if seconds else deadline

    @property
    def joins(self) -> bool:
        """Whether requests are joined into batches of several sizes."""
        return self._batcher is not None

    def _run_in_turn(
        self,
        feeds: saved_model.Arrays,
        fetches: Sequence[str],
        deadline: float = NEVER,
    ) -> dict[str, np.ndarray]:
        with self._limit.running(deadline):
            return self._model.run(feeds, fetches)

    def close(self) -> None:
        """Frees the graph; no request may be using it."""
        if self._batcher is not None:
            self._batcher.close()
        self._model.close()


class Loader:
    """Loads versions of models.

    Args:
        counted: The metrics to update.
        parameters: Batching; None turns it off. A version's own file goes before.
        tags: Tags of the graph in a SavedModel.
        session_config: Settings of TensorFlow's threads.
        warm_up: Called with a servable and each of its warm-up records; None: nothing
            is warmed up.
        run_seconds: See `saved_model.SavedModel`.
        max_pixels: See `Servable`.
    """

    def __init__(
        self,
        counted: metrics.Metrics,
        parameters: config.Batching | None,
        tags: Sequence[str],
        session_config: config_pb2.ConfigProto,
        warm_up: Callable[[Servable, prediction_log_pb2.PredictionLog], None] | None,
        run_seconds: float = 0.0,
        max_pixels: int = image_status.MAX_PIXELS,
    ) -> None:
        self._run_seconds = run_seconds
        self._max_pixels = max_pixels
        self._metrics = counted
        self._parameters = parameters
        self._tags = tags
        self._session_config = session_config
        self._warm_up = warm_up
        self._limit = run_limit.RunLimit()
        self._given_up = threading.Event()

    def give_up(self) -> None:
        """Ends loads as soon as possible, with an error."""
        self._given_up.set()

    def load(self, name: str, version: int, directory: str) -> Servable:
        """Loads a version and answers its warm-up requests.

        Of requests that differ in nothing but what their tensors hold, the first alone;
        and where no requests are joined, of those that differ in their number of rows.

        Raises:
            Exception: What is wrong with the version; see `errors.to_serving_error`.
        """
        with self._limit.loading():
            return self._load(name, version, directory)

    def _load(self, name: str, version: int, directory: str) -> Servable:
        parameters = self._parameters
        own = os.path.join(directory, BATCHING)
        if parameters is not None and tf.io.gfile.exists(own):
            parameters = config.read_batching(own)
        model = saved_model.SavedModel(
            directory, self._tags, self._session_config, self._run_seconds
        )
        servable = Servable(
            name,
            version,
            directory,
            model,
            parameters,
            self._metrics,
            self._limit,
            self._max_pixels,
        )
        try:
            self._answer_warmup(servable, os.path.join(directory, WARMUP))
        except BaseException:
            servable.close()
            raise
        return servable

    def _answer_warmup(self, servable: Servable, path: str) -> None:
        if self._warm_up is None or not tf.io.gfile.exists(path):
            return
        started, status = time.monotonic(), "OK"
        answered = size = 0
        warm: set[Hashable] = set()
        try:
            records = tf.data.TFRecordDataset(path).take(_MOST_WARMUP_RECORDS + 1)
            for record in records.as_numpy_iterator():
                if self._given_up.is_set():
                    raise errors.ServingError("CANCELLED", "The server is stopping")
                if answered == _MOST_WARMUP_RECORDS:
                    raise errors.invalid(
                        "Number of warmup records exceeds the maximum "
                        f"({_MOST_WARMUP_RECORDS})"
                    )
                log = prediction_log_pb2.PredictionLog.FromString(record)
                shapes = _shapes(log, with_sizes=servable.joins)
                if shapes not in warm:
                    self._warm_up(servable, log)
                    warm.add(shapes)
                answered += 1
                size += len(record) + _RECORD_FRAME
            # The reader takes what is too short for a record for the end.
            if size != tf.io.gfile.stat(path).length:
                raise errors.ServingError("DATA_LOSS", "cut short or no record")
        except Exception as error:
            told = errors.to_serving_error(error)
            status = told.code
            name = os.path.join(os.path.basename(servable.directory), WARMUP)
            message = f"{name}, record {answered + 1}: {told.message}"
            raise errors.ServingError(status, message) from error
        finally:
            self._metrics.warmup(servable.name, status, time.monotonic() - started)


def _shapes(log: prediction_log_pb2.PredictionLog, with_sizes: bool) -> Hashable:
    """Returns a key of the shapes that a warm-up request prepares a graph for.

    Args:
        log: The request.
        with_sizes: Whether the first dimension is a part of it.
    """
    kind = log.WhichOneof("log_type")
    first = 0 if with_sizes else 1
    if kind == "predict_log":
        request = log.predict_log.request
        inputs = tuple(
            (name, value.dtype, tuple(d.size for d in value.tensor_shape.dim[first:]))
            for name, value in sorted(request.inputs.items())
        )
        outputs = tuple(sorted(request.output_filter))
        return kind, request.model_spec.signature_name, inputs, outputs
    if kind is None or kind == "session_run_log":
        return kind
    request = getattr(log, kind).request
    size = examples.count_examples(request.input) if with_sizes else 0
    tasks = getattr(request, "tasks", ())
    specs = [task.model_spec for task in tasks] or [request.model_spec]
    return kind, tuple(spec.signature_name for spec in specs), size
