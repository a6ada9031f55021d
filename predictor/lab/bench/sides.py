"""The sides: how each is started, asked and understood. Everything else in a benchmark treats them alike.

`plain` and `compile` are the usual handler, without and with torch.compile; `eager` and `lean` are our server, with the
model's folder and with a bundle baked from it.
"""

import base64
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from predictor.lab.bench.results import SideName, Workload

PROMPT: Final = "a small red circle on a blue background"


@dataclass(frozen=True)
class Side:
    """One server program; `command` takes model, device, and two free ports."""

    name: SideName
    command: Callable[[Path, str, int, int], list[str]]
    path: str
    body: Callable[[Workload, int, int], bytes]  # workload, seed, images
    pictures: Callable[[bytes], list[bytes]]  # answer → PNG files
    timeline: str | None = None  # path of the marks of its start
    batches: bool = False  # requests share device calls, so each number of them may have to be planned for
    compiled: Path | None = None  # folder of what it compiles in its first requests, minutes for each new shape


def choose(names: Sequence[str], bundle: Path | None, compiled: Path) -> list[Side]:
    """The sides of these names; only `lean` reads `bundle`, only `compile` writes to `compiled`."""
    known = [PLAIN, compile_side(compiled), EAGER, *([lean_side(bundle)] if bundle else [])]
    return [side for side in known if side.name in names]


def compile_side(compiled: Path) -> Side:
    """The plain handler with torch.compile, which keeps its code in the folder `compiled`."""
    return Side("compile", partial(_compile_command, compiled), "/", _plain_body, _plain_pictures, compiled=compiled)


def lean_side(bundle: Path) -> Side:
    """Our server with the bundle at this path, which holds all that it needs of the model."""
    return replace(EAGER, name="lean", command=partial(_lean_command, bundle))


def _eager_command(model: Path, device: str, port: int, spare_port: int) -> list[str]:
    return _serve_command(["--model", str(model)], device, port, spare_port)


def _lean_command(bundle: Path, _model: Path, device: str, port: int, spare_port: int) -> list[str]:
    return _serve_command(["--bundle", str(bundle)], device, port, spare_port)


def _serve_command(what: list[str], device: str, port: int, spare_port: int) -> list[str]:
    return [
        *(sys.executable, "-m", "predictor.cli", "serve-predictor", *what),
        *("--device", device, "--http-port", str(port), "--grpc-port", str(spare_port)),
    ]


def _plain_command(model: Path, device: str, port: int, _: int) -> list[str]:
    return [
        *(sys.executable, "-m", "predictor.lab.bench.plain"),
        *("--model", str(model), "--device", device, "--port", str(port)),
    ]


def _compile_command(compiled: Path, model: Path, device: str, port: int, spare_port: int) -> list[str]:
    plain = _plain_command(model, device, port, spare_port)
    return ["env", f"TORCHINDUCTOR_CACHE_DIR={compiled}", *plain, "--compile"]


def _ours_body(workload: Workload, seed: int, images: int) -> bytes:
    parameters = {
        "seed": seed,
        "steps": workload.steps,
        "guidance_scale": workload.guidance_scale,
        "height": workload.height,
        "width": workload.width,
        "sampler": workload.sampler,
        "num_images": images,
    }
    prompt = {"name": "prompt", "datatype": "BYTES", "shape": [1], "data": [PROMPT]}
    return msgspec.json.encode({"inputs": [prompt], "parameters": parameters, "outputs": [{"name": "image"}]})


def _plain_body(workload: Workload, seed: int, images: int) -> bytes:
    order = {
        "prompt": PROMPT,
        "seed": seed,
        "steps": workload.steps,
        "guidance_scale": workload.guidance_scale,
        "height": workload.height,
        "width": workload.width,
        "num_images": images,
    }
    return msgspec.json.encode(order)


def _ours_pictures(answer: bytes) -> list[bytes]:
    (output,) = msgspec.json.decode(answer)["outputs"]
    return [base64.b64decode(text) for text in output["data"]]


def _plain_pictures(answer: bytes) -> list[bytes]:
    return [base64.b64decode(text) for text in msgspec.json.decode(answer)["images"]]


PLAIN: Final = Side("plain", _plain_command, "/", _plain_body, _plain_pictures)
EAGER: Final = Side(
    "eager", _eager_command, "/v2/models/sd/infer", _ours_body, _ours_pictures, timeline="/timeline", batches=True
)
