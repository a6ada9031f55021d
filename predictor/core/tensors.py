"""The tensors that REST and gRPC share: input tensors → plain fields, pictures → output tensors.

Source: kserve/open-inference-protocol `required_api.md`, section "Tensor Data Types"; elements of BYTES as in
triton-inference-server/server `docs/protocol/extension_binary_data.md`.
"""

import base64
import math
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from predictor.core.problems import InvalidField, shown
from predictor.core.request import PARAMETERS, GenerationRequest, single

Scalar = str | int | float | bool

# By name: the server builds this table before it imports numpy.
NUMPY = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}
# Dimensions of a tensor; Triton and the clients in use stay below it.
MAX_RANK = 8
WHOLE = tuple(name for name in NUMPY if "INT" in name)
# The datatypes in which a parameter of each kind may come: all that hold its value without loss.
ACCEPTED = {str: ("BYTES",), int: WHOLE, float: ("FP32", "FP64", "FP16"), bool: ("BOOL",)}

# name → (datatype, shape, meaning); -1 stands for the number of images.
OUTPUTS: dict[str, tuple[str, tuple[int, ...], str]] = {
    "image": ("BYTES", (-1,), "each picture as an encoded file, base64 text"),
    "generated_image": (
        "UINT8",
        (-1, -1, -1, 3),
        "raw pixels [images, height, width, RGB]; binary extension or gRPC only",
    ),
    "seed": ("INT64", (-1,), "the seed of each picture"),
    "steps": ("INT32", (1,), "denoising steps"),
    "guidance_scale": ("FP32", (1,), "guidance scale"),
    "height": ("INT32", (1,), "pixels"),
    "width": ("INT32", (1,), "pixels"),
    "sampler": ("BYTES", (1,), "sampler"),
    "num_images": ("INT32", (1,), "pictures made"),
    "prompt_tokens": ("INT32", (1,), "tokens of the prompt, before any truncation"),
}
DEFAULT_OUTPUTS = tuple(name for name in OUTPUTS if name != "generated_image")


class Tensor(msgspec.Struct, frozen=True):
    """A named tensor in wire terms. `data` is flat: bytes objects for BYTES, else Python scalars or a numpy array."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Any


def tensor(name: str, datatype: str, shape: Sequence[int], data: Any) -> Tensor:
    """A tensor of checked shape and content; `data` is nested lists, raw little-endian bytes, or a numpy array.

    Texts become their UTF-8 bytes; nothing else is converted.

    Raises:
        InvalidField: naming the tensor.
    """
    if datatype != "BYTES" and datatype not in NUMPY:
        raise InvalidField.because(name, f"got datatype {shown(datatype)}", ", ".join(("BYTES", *NUMPY)))
    # The product of many large sides would keep a core busy for minutes.
    if len(shape) > MAX_RANK or any(type(side) is not int or not 0 <= side < 2**63 for side in shape):
        raise InvalidField.because(
            name, f"got shape {shown(list(shape))}", f"at most {MAX_RANK} whole numbers from 0 to {2**63 - 1}"
        )
    count = math.prod(shape)
    raw = isinstance(data, bytes | bytearray | memoryview)
    flat = _from_bytes(name, datatype, count, data) if raw else [*_flatten(name, shape, () if data is None else data)]
    if len(flat) != count:
        raise InvalidField.because(
            name, f"got {len(flat)} elements", f"{count}, the product of its shape {shown(list(shape))}"
        )
    return Tensor(name, datatype, tuple(shape), flat if raw else [_element(name, datatype, value) for value in flat])


def fields(tensors: Iterable[Tensor], parameters: Mapping[str, object]) -> dict[str, object]:
    """One flat mapping of field names to plain values out of input tensors and request parameters.

    Raises:
        InvalidField: an unknown name, a datatype or shape that does not fit, or one field with two different values.
    """
    given: dict[str, object] = {}
    for item in tensors:
        if item.name in given:
            raise InvalidField.because(item.name, "got two tensors of this name", "one")
        given[item.name] = _value(item)
    return merged(given, parameters)


def output_names(names: Iterable[str] | None) -> tuple[str, ...]:
    """The outputs that a request wants; all but the raw pixels if it names none.

    Raises:
        InvalidField: an unknown name, or one that comes twice.
    """
    chosen = tuple(names or ()) or DEFAULT_OUTPUTS
    for name, times in Counter(chosen).items():
        if name not in OUTPUTS:
            raise InvalidField.of("outputs", name, ", ".join(OUTPUTS))
        if times > 1:
            raise InvalidField.because("outputs", f"got {name} {times} times", "each output once")
    return chosen


def to_bytes(item: Tensor) -> bytes:
    """A tensor's content in the binary extension's form: BYTES elements carry a 4-byte little-endian length."""
    if item.datatype == "BYTES":
        return b"".join(struct.pack("<I", len(value)) + value for value in item.data)
    return np.asarray(item.data, np.dtype(NUMPY[item.datatype]).newbyteorder("<")).tobytes()


def answer_tensors(
    request: GenerationRequest,
    outputs: Iterable[str],
    *,
    files: Sequence[bytes],
    pixels: np.ndarray | None,
    prompt_tokens: int,
) -> list[Tensor]:
    """The tensors named in `outputs`: `files` are base64 texts, `pixels` is uint8 [images, height, width, 3]."""
    content: dict[str, Sequence[object]] = {
        "image": files,
        "seed": request.seeds,
        "steps": [request.steps],
        "guidance_scale": [request.guidance_scale],
        "height": [request.height],
        "width": [request.width],
        "sampler": [request.sampler.encode()],
        "num_images": [request.num_images],
        "prompt_tokens": [prompt_tokens],
    }
    tensors = []
    for name in outputs:
        datatype = OUTPUTS[name][0]
        if name == "generated_image":
            assert pixels is not None
            tensors.append(Tensor(name, datatype, pixels.shape, pixels))
        else:
            tensors.append(Tensor(name, datatype, (len(content[name]),), content[name]))
    return tensors


def flat(model: str, id: str, tensors: Iterable[Tensor], parameters: Mapping[str, Scalar]) -> dict[str, Any]:
    """An answer as one object: outputs of one value per request are that value, outputs per picture are lists."""
    body: dict[str, Any] = {"model_name": model, "id": id}
    for item in tensors:
        values = [value.decode() if isinstance(value, bytes) else value for value in item.data]
        body[item.name] = values[0] if OUTPUTS[item.name][1] == (1,) else values
    return body | {"parameters": dict(parameters)}


def base64_text(blob: bytes) -> bytes:
    """Base64 of a file, as the bytes of a text: it survives JSON and clients that decode BYTES as UTF-8."""
    return base64.b64encode(blob)


def _from_bytes(name: str, datatype: str, count: int, raw: bytes | bytearray | memoryview) -> list[Any]:
    if datatype != "BYTES":
        dtype = np.dtype(NUMPY[datatype]).newbyteorder("<")
        if len(raw) != count * dtype.itemsize:
            raise InvalidField.because(name, f"got {len(raw)} bytes", f"{count * dtype.itemsize} for its shape")
        flat: list[Any] = np.frombuffer(raw, dtype).tolist()
        return flat
    elements: list[bytes] = []
    view = memoryview(raw)
    while len(view):
        length = struct.unpack_from("<I", view)[0] if len(view) >= 4 else -1
        if not 0 <= length <= len(view) - 4:
            raise InvalidField.because(
                name, "its binary data ends inside an element", "4 bytes of length, then as many"
            )
        if len(elements) == count:
            raise InvalidField.because(name, f"got bytes behind its {count} elements", "no more than its shape holds")
        elements.append(bytes(view[4 : 4 + length]))
        view = view[4 + length :]
    return elements


def _flatten(name: str, shape: Sequence[int], data: Any) -> Iterable[Any]:
    """The elements in row-major order, of an array, a flat list, or lists nested exactly as the shape says."""
    if isinstance(data, np.ndarray):
        flat: list[Any] = data.ravel().tolist()
        return flat
    return _rows(name, shape, data) if any(isinstance(value, list) for value in data) else data


def _rows(name: str, shape: Sequence[int], data: Any) -> Iterator[Any]:
    # The shape bounds the recursion, not the client's brackets.
    if not shape:
        yield data
    elif not isinstance(data, list) or len(data) != shape[0]:
        came = f"{len(data)} in a list" if isinstance(data, list) else shown(data)
        raise InvalidField.because(
            name, f"got {came}", f"a flat list, or lists nested as its shape {shown(list(shape))}"
        )
    else:
        for row in data:
            yield from _rows(name, shape[1:], row)


def _element(name: str, datatype: str, value: Any) -> Any:
    if datatype == "BYTES":
        if isinstance(value, str):
            return value.encode("utf-8", "surrogatepass")
        if not isinstance(value, bytes):
            raise InvalidField.of(name, value, "BYTES: a text")
    elif datatype == "BOOL":
        if not isinstance(value, bool):
            raise InvalidField.of(name, value, "BOOL: true or false")
    elif datatype in WHOLE:
        bounds = np.iinfo(NUMPY[datatype])
        if type(value) is not int or not bounds.min <= value <= bounds.max:
            raise InvalidField.of(name, value, f"{datatype}: whole numbers {bounds.min} to {bounds.max}")
    else:
        largest = float(np.finfo(NUMPY[datatype]).max)
        # NaN and infinity are floats of every width; which numbers make sense is for the parameter to say.
        if type(value) not in (int, float) or largest < abs(value) < math.inf:
            raise InvalidField.of(name, value, f"{datatype}: numbers from {-largest:g} to {largest:g}")
    return value


def _value(item: Tensor) -> object:
    parameter = PARAMETERS.get(item.name)
    if parameter is None:
        raise InvalidField.because(item.name, "no such input", ", ".join(PARAMETERS))
    accepted = ACCEPTED[parameter.kind]
    if item.datatype not in accepted:
        raise InvalidField.because(item.name, f"got datatype {item.datatype}", ", ".join(accepted))
    if len(item.data) != 1:
        raise InvalidField.because(
            item.name, f"got shape {shown(list(item.shape))}", "[1] or [1, 1], for one value per request"
        )
    value = item.data[0]
    if parameter.kind is float:
        return single(value)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise InvalidField.because(item.name, f"got no UTF-8 at byte {error.start}", "UTF-8") from None
    return value


def merged(inputs: Mapping[str, object], parameters: Mapping[str, object]) -> dict[str, object]:
    """Fields out of both places; one that stands in both must have one value.

    Raises:
        InvalidField: naming the field with two values.
    """
    for name in inputs.keys() & parameters.keys():
        one, other = inputs[name], parameters[name]
        # 7 and 7.0 are one number, 1 and true are not one value.
        if one != other or isinstance(one, bool) != isinstance(other, bool):
            came = f"got {shown(one)} as an input and {shown(other)} as a parameter"
            raise InvalidField.because(name, came, "one of them, or the same value")
    return {**inputs, **parameters}
