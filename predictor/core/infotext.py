r"""The text about a picture that AUTOMATIC1111's web UI began to write into files, and that many tools read.

    PROMPT
    Negative prompt: NEGATIVE PROMPT
    Steps: 20, Sampler: Euler a, CFG scale: 7.5, Seed: 7, Size: 512x512, Model hash: 3f2a, Model: sd, Version: …

A value with a comma, a colon or a line break stands as a JSON text. Prompts stand as they are, so the format cannot
hold all of them: white space around a line is lost, and so is where a prompt ends that has a line which begins with
`Negative prompt:`.

Source: AUTOMATIC1111/stable-diffusion-webui `modules/processing.py`, `create_infotext`, and
`modules/infotext_utils.py`, `parse_generation_parameters`.
"""

import json
import re

from predictor import __version__
from predictor.core.request import GenerationRequest

NEGATIVE = "Negative prompt:"
VALUE = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
SAMPLERS = {
    "ddim": "DDIM",
    "euler": "Euler",
    "euler_a": "Euler a",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_karras": "DPM++ 2M Karras",
    "lcm": "LCM",
}


def infotext(request: GenerationRequest, seed: int, model: str, revision: str) -> str:
    """What made one image of `request`: the one with this seed."""
    values = {
        "Steps": str(request.steps),
        "Sampler": SAMPLERS.get(request.sampler, request.sampler),
        "CFG scale": repr(request.guidance_scale).removesuffix(".0"),
        "Seed": str(seed),
        "Size": f"{request.width}x{request.height}",
        "Model hash": revision[:10],
        "Model": model,
        "Version": f"sdzero {__version__}",
    }
    lines = [request.prompt]
    if request.negative_prompt:
        lines.append(f"{NEGATIVE} {request.negative_prompt}")
    lines.append(", ".join(f"{name}: {_quoted(value)}" for name, value in values.items()))
    return "\n".join(lines)


def parse(text: str) -> dict[str, str]:
    """`Prompt`, `Negative prompt` and the values by their names, as that web UI reads them."""
    *lines, last = text.strip().split("\n")
    values = VALUE.findall(last)
    if len(values) < 3:  # a text without values ends with its prompt
        lines.append(last)
        values = []
    prompt: list[str] = []
    negative: list[str] = []
    into = prompt
    for line in map(str.strip, lines):
        if line.startswith(NEGATIVE):
            into = negative
            into.append(line.removeprefix(NEGATIVE).strip())
        else:
            into.append(line)
    found = {"Prompt": "\n".join(prompt), "Negative prompt": "\n".join(negative)}
    return found | {name: _unquoted(value) for name, value in values}


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if any(character in value for character in ",:\n") else value


def _unquoted(value: str) -> str:
    if not value.startswith('"'):
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        return value
