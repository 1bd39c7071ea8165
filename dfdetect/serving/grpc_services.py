"""PredictionService and ModelService over gRPC."""

import functools
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import grpc
from google.protobuf import message
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from dfdetect.serving import errors, security, servable, service

NAMES = ("tensorflow.serving.PredictionService", "tensorflow.serving.ModelService")

_GRPC = "GRPC"

_Context: TypeAlias = grpc.aio.ServicerContext


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answers for models; see `service.Service`."""

    def __init__(self, served: service.Service) -> None:
        self._service = served

    async def Predict(self, request: Any, context: _Context) -> Any:
        return await self._answer(self._service.predict, "Predict", request, context)

    async def Classify(self, request: Any, context: _Context) -> Any:
        return await self._answer(self._service.classify, "Classify", request, context)

    async def Regress(self, request: Any, context: _Context) -> Any:
        return await self._answer(self._service.regress, "Regress", request, context)

    async def MultiInference(self, request: Any, context: _Context) -> Any:
        method = self._service.multi_inference
        name = request.tasks[0].model_spec.name if request.tasks else ""
        return await self._answer(method, "MultiInference", request, context, name)

    async def GetModelMetadata(self, request: Any, context: _Context) -> Any:
        return await _inline(self._service.metadata, request, context)

    async def _answer(
        self,
        method: Callable,
        api: str,
        request: Any,
        context: _Context,
        name: str | None = None,
    ) -> Any:
        model = request.model_spec.name if name is None else name
        call = functools.partial(method, request, _deadline(context))
        try:
            return await self._service.answer(api, _GRPC, model, call)
        except errors.ServingError as error:
            await context.abort(grpc.StatusCode[error.code], error.message)


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """Reports the status of models, and changes the list of models.

    Args:
        served: See `service.Service`.
        reload_allowed: Whether clients may name models, whose graphs this process runs.
    """

    def __init__(self, served: service.Service, reload_allowed: bool) -> None:
        self._service = served
        self._reload_allowed = reload_allowed

    async def GetModelStatus(self, request: Any, context: _Context) -> Any:
        return await _inline(self._service.status, request, context)

    async def HandleReloadConfigRequest(self, request: Any, context: _Context) -> Any:
        if not self._reload_allowed:
            await context.abort(
                grpc.StatusCode.PERMISSION_DENIED,
                "Reloading needs a token or client certificates on this server",
            )
        call = functools.partial(self._service.reload, request, _deadline(context))
        try:
            return await self._service.call(call)
        except Exception as error:
            told = errors.to_serving_error(error)
            await context.abort(grpc.StatusCode[told.code], told.message)


class Gate(grpc.aio.ServerInterceptor):
    """Counts calls, and refuses malformed messages and calls that come too late.

    A stopping `grpc.aio` server cancels calls that it has received and not yet begun,
    which a client does not try again. So calls are refused before it is stopped.

    Attributes:
        active: Calls that are not yet answered.
        draining: If set, calls are refused.
        last_call: Time of `time.monotonic` at which the last one came.
    """

    def __init__(self) -> None:
        self.active = 0
        self.draining = False
        self.last_call = time.monotonic()

    async def intercept_service(
        self, continuation: Any, handler_call_details: Any
    ) -> Any:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        # Health is told to the end.
        if handler is None or not handler.unary_unary or security.is_health(method):
            return handler

        async def call(request: Any, context: _Context) -> Any:
            self.last_call = time.monotonic()
            if self.draining:
                unavailable = grpc.StatusCode.UNAVAILABLE
                await context.abort(unavailable, "The server is shutting down")
            if request is None:
                mistake = grpc.StatusCode.INVALID_ARGUMENT
                await context.abort(
                    mistake, f"The request is not a message of {method}"
                )
            self.active += 1
            try:
                return await handler.unary_unary(request, context)
            finally:
                self.active -= 1

        return grpc.unary_unary_rpc_method_handler(
            call,
            lambda data: _parsed(handler.request_deserializer, data),
            handler.response_serializer,
        )


def _parsed(deserializer: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return deserializer(data)
    except message.DecodeError:
        return None


async def _inline(method: Callable, request: Any, context: _Context) -> Any:
    """Answers quick requests at once, also when the pool is full."""
    try:
        return method(request)
    except Exception as error:
        told = errors.to_serving_error(error, request.model_spec.name)
        await context.abort(grpc.StatusCode[told.code], told.message)


def _deadline(context: _Context) -> float:
    remaining = context.time_remaining()
    return servable.NEVER if remaining is None else time.monotonic() + remaining
