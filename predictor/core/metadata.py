"""What a model tells about itself over v2: each input with its limits, each output with its shape.

Source: kserve/open-inference-protocol `required_api.md`, section "Model Metadata"; the `parameters` of a tensor are
ours, for the protocol has no place for limits and defaults.
"""

from typing import Any

from predictor.core.request import MAX_SEED, PARAMETERS, Capabilities
from predictor.core.tensors import OUTPUTS, Scalar


def metadata(name: str, capabilities: Capabilities) -> dict[str, Any]:
    """The model metadata response, with each tensor's meaning and limits as parameters."""
    limits = _limits(capabilities)
    return {
        "name": name,
        "versions": [],
        "platform": f"diffusers_{capabilities.architecture}",
        "inputs": [
            {
                "name": parameter.name,
                "datatype": parameter.datatype,
                "shape": [1],
                "parameters": {"meaning": parameter.meaning, **limits.get(parameter.name, {})},
            }
            for parameter in PARAMETERS.values()
            if parameter.name in capabilities.parameters
        ],
        "outputs": [
            {"name": output, "datatype": datatype, "shape": list(shape), "parameters": {"meaning": meaning}}
            for output, (datatype, shape, meaning) in OUTPUTS.items()
        ],
    }


def _limits(capabilities: Capabilities) -> dict[str, dict[str, Scalar]]:
    side: dict[str, Scalar] = {"minimum": capabilities.min_side, "multiple_of": capabilities.size_multiple}
    if capabilities.sizes:
        side = {"height_x_width": ", ".join(f"{height} x {width}" for height, width in capabilities.sizes)}
    text = {"max_bytes": capabilities.max_prompt_bytes}
    if capabilities.max_prompt_tokens is not None:
        text["max_tokens"] = capabilities.max_prompt_tokens
    return {
        "prompt": dict(text),
        "negative_prompt": {**text, "default": ""},
        "seed": {"minimum": 0, "maximum": MAX_SEED},
        "steps": {"minimum": 1, "maximum": capabilities.max_steps, "default": capabilities.default_steps},
        "guidance_scale": {
            "minimum": 1.0,
            "maximum": capabilities.max_guidance_scale,
            "default": capabilities.default_guidance_scale,
        },
        "height": {**side, "default": capabilities.default_height, "max_pixels": capabilities.max_pixels},
        "width": {**side, "default": capabilities.default_width, "max_pixels": capabilities.max_pixels},
        "sampler": {"allowed": ", ".join(capabilities.samplers), "default": capabilities.default_sampler},
        "num_images": {"minimum": 1, "maximum": capabilities.max_images, "default": 1},
        "truncate_prompt": {"default": False},
        "image_format": {"allowed": "png, webp, jpeg", "default": "png"},
        "image_quality": {"minimum": 1, "maximum": 100, "default": 90},
    }
