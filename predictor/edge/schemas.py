"""What goes in and out over HTTP as JSON Schemas (2020-12), out of the tables by which it is read and written.

What one field cannot tell, such as that `quality` contradicts `num_inference_steps`, stands in `core/openai.py` and is
refused with a sentence; a schema of it would be longer than the code.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from predictor.core import openai
from predictor.core.problems import PROBLEMS
from predictor.core.request import MAX_SEED, PARAMETERS, Capabilities, GenerationRequest, ImageEncoding
from predictor.core.tensors import MAX_RANK, NUMPY, OUTPUTS
from predictor.edge.stores.cold_starts import ColdStart
from predictor.edge.stores.ledger import Entry, Usage

Schema = dict[str, Any]

KINDS = {str: "string", int: "integer", float: "number", bool: "boolean"}
STRUCTS = (Capabilities, ColdStart, Entry, GenerationRequest, ImageEncoding, Usage)
TEXT, WHOLE, NUMBER, FLAG = ({"type": kind} for kind in KINDS.values())
SEED = {"type": "integer", "minimum": 0, "maximum": MAX_SEED + 1024}  # of one image
BASE64 = {"type": "string", "contentEncoding": "base64"}
ID = "^job_[0-9a-f]{32}$"


def components(names: Sequence[str], capabilities: Capabilities | None) -> dict[str, Schema]:
    """Every schema by its name; limits are in them as far as anybody has told the model's."""
    _, structs = msgspec.json.schema_components(STRUCTS, ref_template="#/components/schemas/{name}")
    return {
        **structs,
        **_requests(names, capabilities),
        **_answers(names),
        **_jobs(),
        **_v2(names, parameters(capabilities)),
        "Error": closed(error=closed(message=TEXT, type=TEXT, param=nullable(TEXT), code=one_of(*_codes()))),
        "V2Error": closed(
            {"field": TEXT, "retry_after": {"type": "integer", "minimum": 1, "maximum": 120}},
            error=TEXT,
            code=one_of(*_codes()),
        ),
    }


def ref(name: str) -> Schema:
    """A reference to one of `components`."""
    return {"$ref": f"#/components/schemas/{name}"}


def closed(optional: Mapping[str, Schema] | None = None, /, **required: Schema) -> Schema:
    """An object with these properties and no others."""
    found: Schema = {"type": "object", "properties": {**required, **(optional or {})}, "additionalProperties": False}
    return found | {"required": list(required)} if required else found


def listed(item: Schema, **more: Schema) -> Schema:
    """One of OpenAI's lists."""
    return closed(object=one_of("list"), data={"type": "array", "items": item}, **more)


def one_of(*choices: str) -> Schema:
    """One of these texts."""
    return {"type": "string", "enum": list(choices)}


def nullable(schema: Schema) -> Schema:
    """The same, or null."""
    if "type" not in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    enum = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return schema | {"type": [schema["type"], "null"]} | enum


def parameters(c: Capabilities | None) -> dict[str, Schema]:
    """The inputs of a request by our own names, as v2 has them."""
    plain: dict[str, Schema] = {
        name: {"type": KINDS[parameter.kind], "description": parameter.meaning}
        for name, parameter in PARAMETERS.items()
    }
    if c is None:
        return plain
    side = {"minimum": c.min_side, "maximum": c.max_pixels // c.min_side, "multipleOf": c.size_multiple}
    limits: dict[str, Schema] = {
        "prompt": {"minLength": 1, "maxLength": c.max_prompt_bytes, "pattern": r"\S"},
        "negative_prompt": {"maxLength": c.max_prompt_bytes, "default": ""},
        "seed": {"minimum": 0, "maximum": MAX_SEED},
        "steps": {"minimum": 1, "maximum": c.max_steps, "default": c.default_steps},
        "guidance_scale": {"minimum": 1, "maximum": c.max_guidance_scale, "default": c.default_guidance_scale},
        "height": side | {"default": c.default_height},
        "width": side | {"default": c.default_width},
        "sampler": {"enum": list(c.samplers), "default": c.default_sampler},
        "num_images": {"minimum": 1, "maximum": c.max_images, "default": 1},
        "truncate_prompt": {"default": False},
        "image_format": {"enum": ["png", "webp", "jpeg"], "default": "png"},
        "image_quality": {"minimum": 1, "maximum": 100},
    }
    return {name: plain[name] | limits[name] for name in c.parameters}


def _codes() -> list[str]:
    return [*PROBLEMS, "model_not_found"]


def _requests(names: Sequence[str], c: Capabilities | None) -> dict[str, Schema]:
    ours = parameters(c)
    fields = {theirs: ours[name] for theirs, name in openai.PLAIN.items() if name in ours}
    identifier = {"type": "string", "maxLength": openai.MAX_IDENTIFIER, "description": "who asks, of your own users"}
    size = {"type": "string", "pattern": f"^(auto|{openai.SIZE.pattern})$", "description": "auto, or WIDTHxHEIGHT"}
    if c is not None and c.sizes:
        size = one_of("auto", *(f"{width}x{height}" for height, width in c.sizes))
    fields |= {
        "model": one_of(*names),
        "size": size | {"default": "auto"},
        "quality": one_of("auto", "standard", "low", "medium", "high", "hd") | {"default": "auto"},
        "output_format": one_of("png", "webp", "jpeg") | {"default": "png"},
        "output_compression": {"type": "integer", "minimum": 0, "maximum": 100, "description": "below 100: jpeg only"},
        "background": one_of("auto", "opaque"),
        "style": one_of("vivid"),
        "moderation": one_of("auto", "low"),
        "user": identifier,
        "safety_identifier": identifier,
        "response_format": one_of("url", "b64_json") | {"description": "b64_json; url for a model called dall-e-…"},
        "stream": FLAG | {"default": False, "description": "server-sent events, with b64_json"},
        "partial_images": {"type": "integer", "minimum": 0, "maximum": 3, "description": "previews of a stream"},
        "webhook_url": {"type": "string", "format": "uri", "pattern": "^https?://", "maxLength": 2048},
        "previews": FLAG | {"default": False, "description": "whether the job's events have previews"},
    }

    def body(*kinds: str) -> Schema:
        plain = [name for name in openai.PLAIN if name in fields and name != "prompt"]
        return closed(
            {name: nullable(fields[name]) for name in (*plain, *openai.ALWAYS, *kinds)}, prompt=fields["prompt"]
        )

    return {"ImagesRequest": body(*openai.OF_CONNECTIONS), "JobRequest": body(*openai.OF_JOBS)}


def _answers(names: Sequence[str]) -> dict[str, Schema]:
    meta = closed(
        seed=SEED,
        negative_prompt=TEXT,
        num_inference_steps=WHOLE,
        guidance_scale=NUMBER,
        sampler=TEXT,
        size=TEXT,
        truncate_prompt=FLAG,
    )
    usage = closed(
        input_tokens=WHOLE,
        input_tokens_details=closed(text_tokens=WHOLE, image_tokens=WHOLE),
        output_tokens=WHOLE,
        total_tokens=WHOLE,
    )
    facts = closed(
        job={"type": "string", "pattern": ID},
        cached=FLAG,
        joined=FLAG,
        cold_start=FLAG,
        fingerprint=TEXT,
        revision=TEXT,
        gpu_seconds=NUMBER,
        megapixel_steps=NUMBER,
    )
    image = closed({"b64_json": BASE64, "url": {"type": "string", "format": "uri"}}, x_meta=meta)
    model = closed(id=one_of(*names), object=one_of("model"), created=WHOLE, owned_by=TEXT)
    return {
        "ImagesResponse": closed(
            {"size": one_of(*openai.OLD_SIZES)},
            created=WHOLE,
            data={"type": "array", "items": image, "minItems": 1},
            background=one_of("opaque"),
            output_format=one_of("png", "webp", "jpeg"),
            usage=usage,
            x_sdzero=facts,
        ),
        "Model": model | {"properties": model["properties"] | {"x_capabilities": ref("Capabilities")}},
    }


def _jobs() -> dict[str, Schema]:
    seeds = {"type": "array", "items": SEED}
    fixed = {
        "id": {"type": "string", "pattern": ID},
        "object": one_of("job"),
        "state": one_of("active", "done", "failed", "cancelled"),
        "kind": one_of("sync", "job"),
        "created": NUMBER,
        "finished": nullable(NUMBER),
        "model": TEXT,
        "request": ref("GenerationRequest"),
        "seeds": seeds,
        "cached": FLAG,
        "joined": FLAG,
        "images": {
            "type": "array",
            "items": closed(seed=SEED, format=one_of("png", "webp", "jpeg"), url={"type": "string", "format": "uri"}),
        },
        "error": nullable(closed(message=TEXT, code=one_of(*PROBLEMS), param=nullable(TEXT))),
        "usage": closed(images=WHOLE, megapixel_steps=NUMBER, gpu_seconds=NUMBER, cold_start=FLAG),
        "timing": nullable({"type": "object", "additionalProperties": NUMBER}),
    }
    sometimes = {
        "replay_of": TEXT,
        "identical": FLAG,
        "user": TEXT,
        "eta": NUMBER | {"description": "seconds from now"},
    }
    manifest = closed(
        job=fixed["id"],
        model=TEXT,
        revision=TEXT,
        numerics=WHOLE,
        sdzero=TEXT,
        request=ref("GenerationRequest"),
        fingerprint=TEXT,
        encoding=ref("ImageEncoding"),
        images={"type": "array", "items": closed(seed=SEED, bytes=WHOLE, name=TEXT)},
    )
    return {"Job": closed(sometimes, **fixed), "Manifest": manifest}


def _v2(names: Sequence[str], ours: dict[str, Schema]) -> dict[str, Schema]:
    scalars: Schema = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
    shape = {"type": "array", "items": {"type": "integer", "minimum": 0}, "maxItems": MAX_RANK}
    tensor = closed(
        {"parameters": scalars, "data": {"type": "array"}},
        name=one_of(*ours),
        shape=shape,
        datatype=one_of("BYTES", *NUMPY),
    )
    wanted = closed({"parameters": scalars}, name=one_of(*OUTPUTS))
    produced = {"name": one_of(*OUTPUTS), "datatype": TEXT, "shape": shape}
    described = closed(name=TEXT, datatype=TEXT, shape={"type": "array", "items": WHOLE}, parameters=scalars)
    flat: dict[str, Schema] = {}
    for name, (datatype, sides, _) in OUTPUTS.items():
        one = TEXT if datatype == "BYTES" else NUMBER if datatype.startswith("FP") else WHOLE
        flat[name] = one if sides == (1,) else {"type": "array", "items": one}
    del flat["generated_image"]  # binary only
    generate = closed({"id": TEXT, **ours, "parameters": {"type": "object"}})
    return {
        "InferRequest": closed(
            {
                "id": TEXT,
                "model_name": one_of(*names),
                "parameters": scalars,
                "outputs": {"type": "array", "items": wanted},
            },
            inputs={"type": "array", "items": tensor},
        ),
        "InferResponse": closed(
            model_name=one_of(*names),
            id=TEXT,
            parameters=scalars,
            outputs={"type": "array", "items": closed({"data": {"type": "array"}, "parameters": scalars}, **produced)},
        ),
        "GenerateRequest": generate,
        "GenerateStreamRequest": generate | {"properties": generate["properties"] | {"previews": FLAG}},
        "GenerateResponse": closed(model_name=one_of(*names), id=TEXT, parameters=scalars, **flat),
        "ModelMetadata": closed(
            name=one_of(*names),
            versions={"type": "array", "items": TEXT},
            platform=TEXT,
            inputs={"type": "array", "items": described},
            outputs={"type": "array", "items": described},
        ),
    }
