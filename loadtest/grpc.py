"""v2 over gRPC, for predictors that are asked directly. In Locust's process grpc's core must run on gevent's loop.

Stubs are tritonclient's, whose protocol KServe's is a part of; its client is not used, for it waits without yielding.
"""

from collections.abc import Mapping
from typing import Any, Final

import grpc
from grpc.experimental import gevent as grpc_gevent
from tritonclient.grpc import service_pb2

from loadtest.answers import Answer
from loadtest.asking import Times
from loadtest.dialects import decoded
from loadtest.plan import Shot

_METHOD: Final = "/inference.GRPCInferenceService/ModelInfer"
# Not UNAVAILABLE's own retries: an attempt that was lost must be seen.
_OPTIONS: Final = (
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)
_REFUSED: Final = {
    "INVALID_ARGUMENT": "invalid_request",
    "UNAUTHENTICATED": "unauthenticated",
    "PERMISSION_DENIED": "forbidden",
    "NOT_FOUND": "not_found",
    "RESOURCE_EXHAUSTED": "queue_full",
}


class GrpcSender:
    """Asks one model at one address; all calls share a channel, as a client's do."""

    def __init__(self, address: str, model: str, headers: Mapping[str, str], clock: Any) -> None:
        grpc_gevent.init_gevent()
        self._model, self._clock = model, clock
        self._metadata = tuple((name.lower(), value) for name, value in headers.items())
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        self._infer = self._channel.unary_unary(
            _METHOD,
            request_serializer=service_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=service_pb2.ModelInferResponse.FromString,
        )

    def send(self, shot: Shot, request_id: str, times: Times) -> Answer:
        """One ModelInfer call.

        Raises:
            ConnectionError: no answer came.
        """
        metadata = (*self._metadata, ("x-request-id", request_id))
        call = self._infer.future(_request(shot, self._model), metadata=metadata)
        times.connected = self._clock()
        try:
            reply = call.result()
        except grpc.RpcError as error:
            return _problem(error)
        finally:
            call.cancel()
        times.first_byte = self._clock()
        return _answer(reply)


def _request(shot: Shot, model: str) -> Any:
    request = service_pb2.ModelInferRequest(model_name=model)
    prompt = request.inputs.add(name="prompt", datatype="BYTES", shape=[1])
    prompt.contents.bytes_contents.append(shot.prompt.encode())
    wanted = {"seed": shot.seed, "num_images": shot.images}
    if shot.steps:
        wanted["steps"] = shot.steps
    if shot.size != "auto":
        width, _, height = shot.size.partition("x")
        wanted |= {"width": int(width), "height": int(height)}
    for name, value in wanted.items():
        request.parameters[name].int64_param = value
    return request


def _answer(reply: Any) -> Answer:
    told = {name: getattr(value, value.WhichOneof("parameter_choice")) for name, value in reply.parameters.items()}
    files: list[bytes] = []
    for place, output in enumerate(reply.outputs):
        if output.name == "image":
            # The server writes no typed contents; its elements are base64, as in every dialect.
            files = [decoded(text.decode()) for text in _split(reply.raw_output_contents[place])]
    timing = str(told.get("server_timing", ""))
    seconds = told.get("gpu_seconds")
    return Answer(
        200,
        list(enumerate(files)),
        cold=told.get("cold_start"),
        gpu_seconds=None if seconds is None else float(seconds),
        server_timing=timing,
        bytes=reply.ByteSize(),
    )


def _split(raw: bytes) -> list[bytes]:
    """Elements of a BYTES tensor: each has its length before it, four bytes, little endian."""
    found, place = [], 0
    while place < len(raw):
        length = int.from_bytes(raw[place : place + 4], "little")
        found.append(raw[place + 4 : place + 4 + length])
        place += 4 + length
    return found


def _problem(error: Any) -> Answer:
    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE and "Stream removed" in details:
        raise ConnectionError(details) from None
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN) and not error.trailing_metadata():
        # No trailers: it was the channel that spoke, not the service.
        raise ConnectionError(details) from None
    return Answer(code.value[0], code=_REFUSED.get(code.name, code.name.lower()), error=f"{code.name}: {details}"[:300])
