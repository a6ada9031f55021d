"""The served model in KServe's terms; gRPC arrives here, REST does not (see `routes.py`).

KServe's defaults say ready when nothing is, reload a model inside a getter, and let any caller unload it. The three
classes below replace just those answers.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

from grpc import StatusCode
from grpc_interceptor.exceptions import GrpcException
from kserve.model import Model
from kserve.model_repository import ModelRepository
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.grpc.grpc_predict_v2_pb2 import InferParameter, ModelInferResponse
from kserve.protocol.infer_type import InferRequest
from kserve.protocol.model_repository_extension import ModelRepositoryExtension

from predictor.asgi.access import request_id
from predictor.asgi.journal import Journal
from predictor.asgi.replies import retry_after
from predictor.asgi.tracing import Tracer
from predictor.core import tensors
from predictor.core.metadata import metadata
from predictor.core.problems import Closed, InvalidField, InvalidRequest, NotFound, Problem
from predictor.server.lifecycle import Lifecycle
from predictor.server.service import Answer, Service

METHOD = "inference.GRPCInferenceService/ModelInfer"
PARAMETER_KINDS = ("bool_param", "int64_param", "string_param")
# KServe's own client marks binary tensors on gRPC as well, where they say nothing.
MEANINGLESS = {"binary_data", "binary_data_size", "binary_data_output"}


class ServedModel(Model):  # type: ignore[misc]
    """One Stable Diffusion model behind KServe's interface."""

    def __init__(self, name: str, service: Service, journal: Journal, tracer: Tracer, lifecycle: Lifecycle) -> None:
        super().__init__(name)
        self._service = service
        self._journal = journal
        self._tracer = tracer
        self._lifecycle = lifecycle
        # KServe opens no port until some model is "ready"; `healthy` is what its probes ask.
        self.ready = True
        self.engine = True

    async def healthy(self) -> bool:
        """Whether a request would be taken now."""
        return self._service.ready

    def load(self) -> bool:
        """Nothing to do: the engine loads in its own process. KServe calls this on requests to a model not healthy."""
        return self._service.ready

    def start(self) -> None:
        """Nothing to do; the inherited method would claim readiness."""

    async def start_engine(self) -> None:
        """KServe runs this beside its servers."""
        await self._lifecycle.run()

    def stop(self) -> None:
        """Nothing to do: KServe calls this while gRPC calls may still be running."""

    def stop_engine(self) -> None:
        """Nothing to do; see `Lifecycle`."""

    def get_input_types(self) -> list[dict[str, Any]]:
        """Tensors for gRPC's metadata, which has no room for their limits."""
        return self._bare("inputs")

    def get_output_types(self) -> list[dict[str, Any]]:
        """Tensors for gRPC's metadata."""
        return self._bare("outputs")

    async def predict(self, payload: Any, headers: dict[str, str] | None = None) -> ModelInferResponse:
        """One gRPC ModelInfer; a call that its client cancels is cancelled here, and so are its rows."""
        headers = headers or {}
        with (
            as_status(),
            self._journal.entry(request_id(headers.get("x-request-id")), "grpc") as entry,
            self._tracer.request(METHOD, headers, entry),
        ):
            if not isinstance(payload, InferRequest):
                raise InvalidRequest(f"the v1 protocol is not spoken here; use POST /v2/models/{self.name}/infer")
            if payload.model_version:
                raise NotFound(f"version: got {payload.model_version[:80]!r}; allowed: none")
            fields, outputs = _decoded(payload)
            async for update in self._service.generate(entry, fields, outputs):
                if isinstance(update, Answer):
                    return _encoded(self.name, payload.id or entry.id, update)
            raise AssertionError("a request ends with an answer or a problem")

    def _bare(self, side: str) -> list[dict[str, Any]]:
        with as_status():
            described = metadata(self.name, self._service.capabilities())[side]
        return [{key: tensor[key] for key in ("name", "datatype", "shape")} for tensor in described]


class TruthfulDataPlane(DataPlane):  # type: ignore[misc]
    """KServe's, whose server readiness is always true and whose getter loads models."""

    def __init__(self, models: ModelRepository, service: Service) -> None:
        super().__init__(models)
        self._service = service

    async def ready(self) -> bool:
        """Whether a request would be taken now."""
        return self._service.ready

    async def get_model(self, name: str) -> Any:
        """The served model, ready or not: a request learns more from its own refusal."""
        model = self.model_registry.get_model(name)
        if model is None:
            with as_status():
                raise NotFound(f"model: got {name[:80]!r}; allowed: {', '.join(self.model_registry.get_models())}")
        return model


class ClosedRepository(ModelRepositoryExtension):  # type: ignore[misc]
    """Refuses to load and unload, over gRPC as `routes.py` does over REST."""

    async def load(self, model_name: str) -> NoReturn:  # noqa: ARG002
        """Always PERMISSION_DENIED."""
        self._refuse()

    async def unload(self, model_name: str) -> NoReturn:  # noqa: ARG002
        """Always PERMISSION_DENIED."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        with as_status():
            raise Closed("the model repository is closed; the pod serves the one model that it was started with")
        raise AssertionError


@contextmanager
def as_status() -> Iterator[None]:
    """Turn a Problem into the exception whose gRPC status KServe's interceptor passes on unchanged."""
    try:
        yield
    except Problem as problem:
        hint = f" (retry after {retry_after(problem)} s)" if problem.retryable else ""
        details = f"{problem.code}: {problem.message}{hint}"
        raise GrpcException(details, StatusCode[problem.grpc]) from problem


def _decoded(request: InferRequest) -> tuple[dict[str, object], tuple[str, ...]]:
    inputs = []
    for item in request.inputs:
        _refuse_parameters(item.name, item.parameters)
        # KServe keeps raw_input_contents here and offers them only through a decoder that fails on bad UTF-8.
        raw = item._raw_data
        inputs.append(tensors.tensor(item.name, item.datatype, item.shape, item.data if raw is None else raw))
    for output in request.request_outputs or ():
        _refuse_parameters(f"outputs: {output.name}", output.parameters)
    own = {name: _scalar(name, value) for name, value in (request.parameters or {}).items()}
    fields = tensors.fields(inputs, {name: value for name, value in own.items() if name not in MEANINGLESS})
    return fields, tensors.output_names([output.name for output in request.request_outputs or ()])


def _refuse_parameters(owner: str, parameters: Mapping[str, object] | None) -> None:
    for name in (parameters or {}).keys() - MEANINGLESS:
        raise InvalidField.because(owner, f"got the tensor parameter {name}", "none")


def _scalar(name: str, value: object) -> tensors.Scalar:
    if isinstance(value, InferParameter):
        kind = value.WhichOneof("parameter_choice")
        if kind not in PARAMETER_KINDS:
            raise InvalidField.because(
                name,
                "got a parameter of a type that KServe's gRPC service does not read",
                "bool, int64 or string, or a tensor of this name",
            )
        return getattr(value, kind)  # type: ignore[no-any-return]
    return value  # type: ignore[return-value]


def _encoded(model: str, id: str, answer: Answer) -> ModelInferResponse:
    response = ModelInferResponse(model_name=model, id=id)
    for name, value in answer.parameters.items():
        # bool is an int in Python; this protocol has no parameter for fractions.
        if isinstance(value, bool):
            response.parameters[name].bool_param = value
        elif isinstance(value, int):
            response.parameters[name].int64_param = value
        else:
            response.parameters[name].string_param = str(value)
    for tensor in answer.tensors:
        response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        response.raw_output_contents.append(tensors.to_bytes(tensor))
    return response
