"""Answers both protocols: finds the servable, runs it in a bounded pool, counts."""

import asyncio
import concurrent.futures
import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_management_pb2,
    model_pb2,
)

from dfdetect.serving import (
    errors,
    examples,
    inference,
    json_examples,
    json_tensors,
    json_values,
    json_worker,
    metrics,
    model_store,
    servable,
    tensors,
)

_Answer = TypeVar("_Answer")

_LOG = logging.getLogger(__name__)
# Python writes so many in some 100 ms, in which no other thread runs.
_MANY_VALUES = 50_000
_TICK = 0.01
_FAULTS = ("INTERNAL", "UNKNOWN", "DATA_LOSS")


class Service:
    """The requests of all clients, whatever their protocol.

    Args:
        store: The models.
        counted: The metrics to update.
        max_bytes: Largest tensor in bytes.
        threads: Number of requests that are worked on at a time.
        max_queued: Number of requests that wait for a thread; more are refused.
    """

    def __init__(
        self,
        store: model_store.ModelStore,
        counted: metrics.Metrics,
        max_bytes: int,
        threads: int,
        max_queued: int,
    ) -> None:
        self.store = store
        self.metrics = counted
        self._max_bytes = max_bytes
        self._most = threads + max_queued
        self._lock = threading.Lock()
        self._begun = 0
        self._threads = concurrent.futures.ThreadPoolExecutor(threads, "request")
        self._json = json_worker.JsonWorker()

    async def answer(
        self,
        api: str,
        entrypoint: str,
        model: str,
        function: Callable[[], _Answer],
    ) -> _Answer:
        """Calls a function of this class in the pool, and counts the request.

        Args:
            api: API of the request, such as "Predict".
            entrypoint: "GRPC" or "REST".
            model: Name of the model.
            function: With its arguments.

        Raises:
            errors.ServingError: There is no answer.
        """
        started, status = time.monotonic(), "OK"
        try:
            return await self.call(function)
        except asyncio.CancelledError:
            status = "CANCELLED"
            raise
        except Exception as error:
            told = errors.to_serving_error(error, model)
            status = told.code
            if status in _FAULTS:
                _LOG.warning("%s of %s failed: %s", api, model, told, exc_info=error)
            raise told from error
        finally:
            # A client may invent any number of names.
            known = model if self.store.known(model) else "unknown"
            seconds = time.monotonic() - started
            self.metrics.request(known, api, entrypoint, status, seconds)

    async def call(self, function: Callable[[], _Answer]) -> _Answer:
        """Calls a function in the pool, and counts nothing; see `answer`."""
        if self._begun >= self._most:
            raise errors.ServingError(
                "UNAVAILABLE", "The request queue of the server is full"
            )
        with self._lock:
            self._begun += 1
        future = self._threads.submit(function)
        # Not when the client goes: the thread is taken until then.
        future.add_done_callback(self._ended)
        return await asyncio.wrap_future(future)

    def predict(self, request: Any, deadline: float) -> Any:
        """See `inference.predict`."""
        with self._use(request) as model:
            return inference.predict(model, request, self._max_bytes, deadline)

    def classify(self, request: Any, deadline: float) -> Any:
        """See `inference.classify`."""
        with self._use(request) as model:
            self._count_examples(model, request)
            return inference.classify(model, request, deadline)

    def regress(self, request: Any, deadline: float) -> Any:
        """See `inference.regress`."""
        with self._use(request) as model:
            self._count_examples(model, request)
            return inference.regress(model, request, deadline)

    def multi_inference(self, request: Any, deadline: float) -> Any:
        """See `inference.multi_inference`."""
        if not request.tasks:
            raise errors.invalid("Inference request must have at least one task")
        with self._use(request.tasks[0]) as model:
            self._count_examples(model, request)
            return inference.multi_inference(model, request, deadline)

    def metadata(self, request: Any) -> Any:
        """See `inference.read_metadata`."""
        with self._use(request) as model:
            return inference.read_metadata(model, request)

    def status(self, request: Any) -> get_model_status_pb2.GetModelStatusResponse:
        """Returns the states of a model's versions.

        Raises:
            errors.ServingError: There is no such model or version.
        """
        if not request.HasField("model_spec"):
            raise errors.invalid("Missing ModelSpec")
        return self.store.status(request.model_spec)

    def predict_json(
        self, spec: model_pb2.ModelSpec, body: bytes, deadline: float
    ) -> bytes:
        """`predict` in the JSON of the REST protocol.

        Much of it is read, and written, by a process of its own.
        """
        has_many = json_values.has_many_parts(body)
        with contextlib.ExitStack() as stack:
            try:
                model = stack.enter_context(self.store.use(spec))
            except errors.ServingError:
                if not has_many:  # As there, what is no JSON is told first.
                    json_values.parse(body)
                raise
            types = {
                name: {
                    alias: tensors.dtype_name(info.dtype)
                    for alias, info in signature.inputs.items()
                }
                for name, signature in model.signatures.items()
            }
            if has_many:
                name, arrays, rows = self._json.call(
                    json_tensors.parse_request, body, types, deadline=deadline
                )
            else:
                name, arrays, rows = json_tensors.parse_request(body, types)
            del body
            signature = model.signatures[name]
            inference.check_names(signature, set(arrays))
            outputs = inference.run_signature(
                model, signature, arrays, (), deadline, api="Predict"
            )
        if sum(value.size for value in outputs.values()) > _MANY_VALUES:
            return self._json.call(
                json_tensors.to_json, outputs, rows, deadline=deadline
            )
        return json_tensors.to_json(outputs, rows)

    def classify_json(
        self, spec: model_pb2.ModelSpec, body: bytes, deadline: float
    ) -> bytes:
        """`classify` in the JSON of the REST protocol."""
        request = json_examples.parse_classification(spec, body)
        return json_examples.dump_classes(self.classify(request, deadline).result)

    def regress_json(
        self, spec: model_pb2.ModelSpec, body: bytes, deadline: float
    ) -> bytes:
        """`regress` in the JSON of the REST protocol."""
        request = json_examples.parse_regression(spec, body)
        return json_examples.dump_regressions(self.regress(request, deadline).result)

    def reload(
        self, request: model_management_pb2.ReloadConfigRequest, deadline: float
    ) -> model_management_pb2.ReloadConfigResponse:
        """Replaces the list of models, and waits until they are loaded.

        Raises:
            errors.ServingError: The list is not valid, or a model does not load.
        """
        if request.config.WhichOneof("config") is None:
            raise errors.invalid("Missing model_config_list in ReloadConfigRequest")
        self.store.configure(request.config)
        remaining = None
        if deadline != servable.NEVER:
            remaining = max(deadline - time.monotonic(), 0.0)
        failed = self.store.wait_until_settled(remaining)
        if failed:
            name, reason = next(iter(failed.items()))
            raise errors.ServingError(
                "UNKNOWN", f"Some models did not become available: {name}: {reason}"
            )
        response = model_management_pb2.ReloadConfigResponse()
        # TensorFlow Serving sets it also when all is well.
        response.status.SetInParent()
        return response

    def close(self, deadline: float = math.inf) -> bool:
        """Ends the pool.

        Args:
            deadline: Time of `time.monotonic` after which it waits for no request.

        Returns:
            Whether all have ended.
        """
        self._threads.shutdown(wait=False, cancel_futures=deadline < math.inf)
        while self._begun and time.monotonic() < deadline:
            time.sleep(_TICK)
        ended = not self._begun
        if ended:
            self._threads.shutdown()
        self._json.close()
        return ended

    def _ended(self, future: concurrent.futures.Future) -> None:
        with self._lock:
            self._begun -= 1

    def _use(
        self, request: Any
    ) -> contextlib.AbstractContextManager[servable.Servable]:
        if not request.HasField("model_spec"):
            raise errors.invalid("Missing ModelSpec")
        return self.store.use(request.model_spec)

    def _count_examples(self, model: servable.Servable, request: Any) -> None:
        self.metrics.examples(model.name, examples.count_examples(request.input))
