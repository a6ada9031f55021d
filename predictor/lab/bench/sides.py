"""The two sides: how each is started, asked and understood. Everything else in a benchmark treats them alike."""

import base64
import sys
from collections.abc import Callable
from dataclasses import dataclass
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


def _ours_command(model: Path, device: str, port: int, spare_port: int) -> list[str]:
    return [
        *(sys.executable, "-m", "predictor.cli", "serve-predictor"),
        *("--model", str(model), "--device", device),
        *("--http-port", str(port), "--grpc-port", str(spare_port)),
    ]


def _plain_command(model: Path, device: str, port: int, _: int) -> list[str]:
    return [
        *(sys.executable, "-m", "predictor.lab.bench.plain"),
        *("--model", str(model), "--device", device, "--port", str(port)),
    ]


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


OURS: Final = Side("ours", _ours_command, "/v2/models/sd/infer", _ours_body, _ours_pictures)
PLAIN: Final = Side("plain", _plain_command, "/", _plain_body, _plain_pictures)
