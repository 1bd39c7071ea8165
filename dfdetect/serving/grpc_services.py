"""PredictionService and ModelService over gRPC."""

import time
from collections.abc import Callable
from typing import Any, TypeAlias

import grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from dfdetect.serving import errors, servable, service

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
        call = service.bound(method, request, _deadline(context))
        try:
            return await self._service.answer(api, _GRPC, model, call)
        except errors.ServingError as error:
            await context.abort(grpc.StatusCode[error.code], error.message)


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """Tells of models and changes them.

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
        call = service.bound(self._service.reload, request, _deadline(context))
        try:
            return await self._service.answer("ReloadConfig", _GRPC, "", call)
        except errors.ServingError as error:
            await context.abort(grpc.StatusCode[error.code], error.message)


async def _inline(method: Callable, request: Any, context: _Context) -> Any:
    """Answers what is quick at once, also when the pool is full."""
    try:
        return method(request)
    except Exception as error:
        told = errors.of(error, request.model_spec.name)
        await context.abort(grpc.StatusCode[told.code], told.message)


def _deadline(context: _Context) -> float:
    remaining = context.time_remaining()
    return servable.NEVER if remaining is None else time.monotonic() + remaining
