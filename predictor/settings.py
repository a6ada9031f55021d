"""Settings of each process: frozen, checked, and refused when unknown.

One declaration of a field serves the command line (`--max-images`), the environment (`SDZERO_MAX_IMAGES`), the help
text and the checks. The flag wins over the environment. msgspec does the checking because the engine's settings are
read before anything slow may be imported; pydantic-settings alone would cost a tenth of the lean cold start.
"""

import argparse
import difflib
import re
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

PREFIX = "SDZERO_"
Settings = TypeVar("Settings", bound=msgspec.Struct)
# Kubernetes puts the address of every Service of the namespace into the environment; one named `sdzero` or
# `sdzero-edge` gives these. SDZERO_EDGE_PORT alone may also be a setting that is misspelt: its value, a URL, tells.
SERVICE_LINK = re.compile(r"SDZERO_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
SERVICE_URL = re.compile(r"SDZERO_(\w+_)?PORT=(tcp|udp|sctp)://.*")


def doc(text: str, *, secret: bool = False, **bounds: Any) -> Meta:
    """What a field is for, its unit and the reason for its default, with optional bounds (gt, ge, le, pattern, …).

    What came for a field that is secret, or may hold a password, is shown by no error.
    """
    return Meta(description=text, extra={"secret": secret}, **bounds)


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The engine process: which model, on which device, within which bounds."""

    model: Annotated[str, doc("folder of the model in diffusers format (model_index.json and safetensors)")] = ""
    bundle: Annotated[
        str, doc("folder that `sdzero bake` made for this kind of machine; starts in a tenth of the time")
    ] = ""
    unfit_bundle: Annotated[
        Literal["refuse", "eager"],
        doc("a bundle that does not fit this machine: refuse to start, or run `model` without it, slower"),
    ] = "refuse"
    device: Annotated[Literal["auto", "cpu", "cuda"], doc("where the model runs; auto takes a GPU if there is one")] = (
        "auto"
    )
    dtype: Annotated[
        Literal["auto", "float16", "float32"], doc("weights and activations; auto is float16 on cuda, float32 on cpu")
    ] = "auto"
    max_rows: Annotated[
        int, doc("images that step together at most; beyond 16 an H100 gives no more throughput", ge=1, le=64)
    ] = 16
    max_steps: Annotated[
        int, doc("denoising steps of one request; samplers stop improving long before 150", ge=1, le=1000)
    ] = 150
    max_images: Annotated[int, doc("images of one request; more would keep others waiting", ge=1, le=64)] = 8
    max_pixels: Annotated[
        int, doc("height x width of one image; 0 takes four times the model's native size", ge=0, le=2**26)
    ] = 0
    max_prompt_bytes: Annotated[int, doc("bytes of a prompt before it is even tokenised", ge=1, le=2**20)] = 8192
    cuda_graphs: Annotated[
        bool, doc("replay captured graphs for small batches, which otherwise wait for the CPU; ignored on cpu")
    ] = True
    threads: Annotated[
        int, doc("CPU threads of the model; 0 takes one per core that the container may use", ge=0, le=1024)
    ] = 0

    def __post_init__(self) -> None:
        if not self.model and not self.bundle:
            raise ValueError(
                "--model: missing; give it, or set SDZERO_MODEL: folder of a model; or give --bundle, a baked one"
            )
        if self.unfit_bundle == "eager" and not (self.model and self.bundle):
            raise ValueError("--unfit-bundle: got eager; it needs both --bundle and, to fall back on, --model")


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The predictor's main process: ports, queue, deadlines, logs."""

    model_name: Annotated[str, doc("name in the URL: /v2/models/NAME/infer", pattern=r"^[A-Za-z0-9._-]+\Z")] = "sd"
    http_port: Annotated[int, doc("v2 over REST, /metrics", ge=1, le=65535)] = 8080
    grpc_port: Annotated[int, doc("v2 over gRPC; 0 switches it off", ge=0, le=65535)] = 8081
    max_body_bytes: Annotated[int, doc("bytes of one HTTP body; a request is text, so 1 MiB is generous", ge=1024)] = (
        2**20
    )
    queue_images: Annotated[
        int, doc("images that wait or run at most; beyond it requests are refused at once", ge=1, le=4096)
    ] = 64
    timeout_seconds: Annotated[
        float, doc("a request's time in the engine; 600 is also the longest that Knative allows", gt=0, le=3600)
    ] = 600.0
    grace_seconds: Annotated[
        float, doc("how long SIGTERM lets running requests finish; below the pod's grace period", ge=0, le=3600)
    ] = 60.0
    end_drain: Annotated[
        bool,
        doc(
            "end the 30 s drain of Knative's queue-proxy after 2 s without work; the pod's containers have to share "
            "their processes (shareProcessNamespace) and their user"
        ),
    ] = False
    sleep_after_seconds: Annotated[
        float,
        doc(
            "idle seconds after which the engine ends, until the next request, which waits for its start; 0 is never, "
            "for only where GPUs are shared does anybody gain",
            ge=0,
            le=86400,
        ),
    ] = 0.0
    engine_restarts: Annotated[
        int, doc("engine deaths in a row, none of them after a ready engine, before the server gives up", ge=0, le=100)
    ] = 3
    log_level: Annotated[Literal["debug", "info", "warning", "error"], doc("least severe log line that is written")] = (
        "info"
    )
    log_prompts: Annotated[bool, doc("write prompts into the log; off because prompts are personal")] = False


def add_arguments(parser: argparse.ArgumentParser, kind: type[msgspec.Struct]) -> None:
    """One flag per field of `kind`, grouped under its docstring."""
    group = parser.add_argument_group(kind.__name__, kind.__doc__)
    for field in msgspec.structs.fields(kind):
        plain, meta = _split(field.type)
        default = "required" if field.required else f"default {_shown(field.default)}"
        group.add_argument(
            _flag(field.name),
            dest=field.name,
            metavar=_metavar(plain),
            help=f"{meta.description} [{default}; {PREFIX}{field.name.upper()}]".replace("%", "%%"),
        )


def load(kind: type[Settings], given: Mapping[str, object], environ: Mapping[str, str]) -> Settings:
    """The settings of `kind` from flags (None means absent) and environment; the flag wins.

    Raises:
        ValueError: naming the flag or variable, what came and what is allowed.
    """
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        flag, variable = _flag(field.name), PREFIX + field.name.upper()
        plain, meta = _split(field.type)
        came = [
            (source, text)
            for source, text in ((flag, given.get(field.name)), (variable, environ.get(variable)))
            if text is not None
        ]
        if came:
            source, text = came[0]
            try:
                values[field.name] = msgspec.convert(text, field.type, strict=plain is str)
            except msgspec.ValidationError:
                got = f"{len(str(text))} characters" if meta.extra and meta.extra["secret"] else repr(text)
                raise ValueError(f"{source}: got {got}; allowed: {_allowed(plain, meta)}") from None
        elif field.required:
            raise ValueError(f"{flag}: missing; give it, or set {variable}: {meta.description}")
    return kind(**values)


def refuse_unknown(kinds: Sequence[type[msgspec.Struct]], environ: Mapping[str, str]) -> None:
    """Raise ValueError for a variable with our prefix that no setting of `kinds` reads."""
    bare = [name.upper() for kind in kinds for name in kind.__struct_fields__]
    known = {PREFIX + name for name in bare}
    for name, value in environ.items():
        if not name.startswith(PREFIX) or name in known:
            continue
        if SERVICE_LINK.fullmatch(name) or SERVICE_URL.fullmatch(f"{name}={value}"):
            continue
        # Without the prefix, which alone would make any two names alike.
        near = difflib.get_close_matches(name.removeprefix(PREFIX), bare, 1)
        raise ValueError(f"{name}: no such setting{f'; did you mean {PREFIX}{near[0]}?' if near else ''}")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _split(annotated: Any) -> tuple[Any, Meta]:
    plain, *metas = typing.get_args(annotated)
    return plain, metas[0]


def _metavar(plain: Any) -> str:
    if typing.get_origin(plain) is Literal:
        return "{" + ",".join(typing.get_args(plain)) + "}"
    return {int: "N", float: "X", bool: "{true,false}"}.get(plain, "TEXT")


def _allowed(plain: Any, meta: Meta) -> str:
    if typing.get_origin(plain) is Literal:
        return ", ".join(typing.get_args(plain))
    if plain is bool:
        return "true, false"
    if plain is str:
        return f"text that matches {meta.pattern}" if meta.pattern else "text that is not empty"
    kind = "whole numbers" if plain is int else "numbers"
    low = f"above {meta.gt}" if meta.gt is not None else f"from {meta.ge}"
    return f"{kind} {low}" + (f" to {meta.le}" if meta.le is not None else "")


def _shown(default: object) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default) or "none"
