"""The Open Inference Protocol (v2) over HTTP ↔ plain fields and tensors.

Requests: JSON, with the binary tensor extension (`Inference-Header-Content-Length`, `binary_data_size`), and Triton's
generate extension (a flat JSON object). Responses: likewise. gRPC shares the tensors (`predictor.core.tensors`), not
the bytes.

Sources: kserve/open-inference-protocol `inference_rest.md`; triton-inference-server/server
`docs/protocol/extension_binary_data.md`, `extension_generate.md`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from predictor.core.problems import InvalidField, InvalidRequest
from predictor.core.strict_json import parsed
from predictor.core.tensors import Scalar, Tensor, fields, merged, output_names, tensor, to_bytes


class _JsonTensor(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Scalar] = {}
    data: list[Any] | None = None


class _JsonOutput(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    parameters: dict[str, Scalar] = {}


class _JsonRequest(msgspec.Struct, forbid_unknown_fields=True):
    inputs: list[_JsonTensor]
    id: str | None = None
    model_name: str | None = None  # not in the protocol; kserve's own client repeats the URL here
    parameters: dict[str, Scalar] = {}
    outputs: list[_JsonOutput] | None = None


class InferRequest(msgspec.Struct, frozen=True):
    """A decoded infer request: flat fields, and the outputs it wants with whether each goes out as binary.

    `model_name` is None unless the body repeats it; whoever knows the URL checks that the two agree.
    """

    id: str | None
    fields: dict[str, object]
    outputs: dict[str, bool]
    model_name: str | None = None


_json_request = msgspec.json.Decoder(_JsonRequest)
_json_object = msgspec.json.Decoder(dict[str, Any])


def decode_infer(body: bytes, header_length: int | None = None) -> InferRequest:
    """Read the body of `POST …/infer`; `header_length` is the binary extension's header, None without it.

    Raises:
        InvalidRequest: the bytes are no v2 request.
        InvalidField: a tensor or parameter is wrong in itself (datatype, shape, contradiction, unknown output).
    """
    if header_length is not None and not 0 <= header_length <= len(body):
        raise InvalidRequest(
            f"Inference-Header-Content-Length: got {header_length}; allowed: 0 to {len(body)}, the length of the body"
        )
    head = body if header_length is None else body[:header_length]
    request: _JsonRequest = parsed(_json_request, head)
    rest = memoryview(body)[len(head) :]
    tensors = []
    for item in request.inputs:
        raw, rest = _take(item, rest)
        tensors.append(tensor(item.name, item.datatype, item.shape, item.data if raw is None else raw))
    if len(rest):
        raise InvalidRequest(f"body: got {len(rest)} bytes behind the last binary tensor; allowed: none")
    own = dict(request.parameters)
    binary = _flag("binary_data_output", own.pop("binary_data_output", False))
    return InferRequest(request.id, fields(tensors, own), _outputs(request.outputs, binary), request.model_name)


def decode_generate(body: bytes) -> tuple[str | None, dict[str, object]]:
    """Read the body of `POST …/generate`: (id, fields). Fields may stand at the top level or under `parameters`.

    Raises:
        InvalidRequest: the bytes are no JSON object.
        InvalidField: a field is no plain value, or comes twice with two values.
    """
    top = dict(parsed(_json_object, body))
    name = top.pop("id", None)
    if name is not None and not isinstance(name, str):
        raise InvalidField.of("id", name, "a text")
    nested = top.pop("parameters", {})
    if not isinstance(nested, dict):
        raise InvalidField.of("parameters", nested, "an object")
    for field, value in (*top.items(), *nested.items()):
        if not isinstance(value, Scalar):
            raise InvalidField.of(field, value, "a text, a number, true or false")
    return name, merged(top, nested)


def encode_infer(
    model: str, id: str, tensors: Sequence[Tensor], binary: Mapping[str, bool], parameters: Mapping[str, Scalar]
) -> tuple[bytes, int | None]:
    """The body of an infer response and, if any tensor is binary, the length of its JSON header."""
    outputs, blobs = [], []
    for item in tensors:
        entry: dict[str, Any] = {"name": item.name, "datatype": item.datatype, "shape": list(item.shape)}
        if binary.get(item.name, False):
            blob = to_bytes(item)
            entry["parameters"] = {"binary_data_size": len(blob)}
            blobs.append(blob)
        else:
            flat = item.data.ravel().tolist() if isinstance(item.data, np.ndarray) else item.data
            entry["data"] = [value.decode() if isinstance(value, bytes) else value for value in flat]
        outputs.append(entry)
    head = msgspec.json.encode({"model_name": model, "id": id, "parameters": dict(parameters), "outputs": outputs})
    return (head + b"".join(blobs), len(head)) if blobs else (head, None)


def _take(item: _JsonTensor, rest: memoryview) -> tuple[memoryview | None, memoryview]:
    """A tensor's share of the binary data, None if it came as JSON, and what is left for the next."""
    for parameter, value in item.parameters.items():
        if parameter != "binary_data_size":
            raise InvalidField.of(f"{item.name}: parameters: {parameter}", value, "only binary_data_size")
    size = item.parameters.get("binary_data_size")
    if (size is None) == (item.data is None):
        came = "got no data" if size is None else "got both `data` and parameters.binary_data_size"
        raise InvalidField.because(item.name, came, "one of `data` and parameters.binary_data_size")
    if size is None:
        return None, rest
    if type(size) is not int or not 0 <= size <= len(rest):
        raise InvalidField.of(
            f"{item.name}: binary_data_size", size, f"0 to {len(rest)}, the bytes that are left behind the header"
        )
    return rest[:size], rest[size:]


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidField.of(name, value, "true or false")
    return value


def _outputs(wanted: list[_JsonOutput] | None, binary: bool) -> dict[str, bool]:
    chosen = dict.fromkeys(output_names(output.name for output in wanted or ()), binary)
    for output in wanted or ():
        for parameter, value in output.parameters.items():
            if parameter != "binary_data":
                raise InvalidField.of(f"outputs: {output.name}: parameters: {parameter}", value, "only binary_data")
            chosen[output.name] = _flag(f"outputs: {output.name}: binary_data", value)
    if chosen.get("generated_image") is False:
        raise InvalidField.because(
            "outputs: generated_image",
            "got raw pixels as JSON",
            "parameters.binary_data true, gRPC, or the output `image`",
        )
    return chosen
