"""The v2 protocol, as the predictor speaks it, behind keys, quotas and the cache.

    GET   /v2  /v2/health/{live,ready}  /v2/models/NAME  /v2/models/NAME/ready
    POST  /v2/models/NAME/infer  …/generate  …/generate_stream

Ready means that the edge takes requests: a model that sleeps is ready, for it wakes when it is asked. `generate_stream`
has two events more than the predictor's: `waking`, about once a second while a GPU starts, and `queued` before that.
"""

import base64
from collections.abc import AsyncGenerator
from contextlib import aclosing

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from predictor import __version__
from predictor.asgi.body import header_length
from predictor.asgi.events import EventStream, encoded
from predictor.asgi.replies import json_reply, problem_body
from predictor.core import v2
from predictor.core.jobs import Job
from predictor.core.metadata import metadata
from predictor.core.openai import timing
from predictor.core.problems import Closed, InvalidField, NotFound, Problem
from predictor.core.request import Capabilities
from predictor.core.tensors import DEFAULT_OUTPUTS, Scalar, Tensor, answer_tensors, flat
from predictor.edge.admission import Ask, Fields
from predictor.edge.following import progress
from predictor.edge.generation import Generations, result_of
from predictor.edge.patience import is_retry, patience, will_retry
from predictor.edge.pictures import Pictures
from predictor.edge.routes.exchange import Exchange, Exchanges
from predictor.edge.views import answer_headers


class V2:
    """The handlers; `routes` lists them for the application."""

    def __init__(self, names: tuple[str, ...], generations: Generations, packer: Pictures) -> None:
        self._names = names
        self._generations = generations
        self._packer = packer

    def routes(self, exchanges: Exchanges) -> list[Route]:
        """The routes, in order."""
        found = [
            Route("/v2", self.server_metadata),
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.live),
            exchanges.route("/v2/repository/{rest:path}", self.closed, "admin", ("GET", "POST")),
        ]
        for prefix in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            found += [
                exchanges.route(prefix, self.model_metadata, "generate"),
                Route(f"{prefix}/ready", self.model_ready),
                exchanges.route(f"{prefix}/infer", self.infer, "generate", ("POST",)),
                exchanges.route(f"{prefix}/generate", self.generate, "generate", ("POST",)),
                exchanges.route(f"{prefix}/generate_stream", self.generate_stream, "generate", ("POST",)),
            ]
        return found

    async def infer(self, exchange: Exchange) -> Response:
        """v2 inference, JSON or with the binary tensor extension in either direction."""
        model = self._model(exchange.request)
        wanted = v2.decode_infer(exchange.body, header_length(exchange.request))
        if wanted.model_name not in (None, *self._names):
            raise InvalidField.of("model_name", wanted.model_name, f"{model}, as in the path")
        job = await self._job(exchange, wanted.fields)
        tensors = await self._tensors(job, tuple(wanted.outputs))
        content, head = v2.encode_infer(
            model, wanted.id or exchange.entry.id, tensors, wanted.outputs, _parameters(job)
        )
        headers = answer_headers(job, self._generations.clock())
        if head is None:
            return Response(content, media_type="application/json", headers=headers)
        headers["Inference-Header-Content-Length"] = str(head)
        return Response(content, media_type="application/octet-stream", headers=headers)

    async def generate(self, exchange: Exchange) -> Response:
        """Triton's generate extension: one flat object in, one out."""
        model = self._model(exchange.request)
        name, fields = v2.decode_generate(exchange.body)
        job = await self._job(exchange, fields)
        body = flat(model, name or exchange.entry.id, await self._tensors(job, DEFAULT_OUTPUTS), _parameters(job))
        return json_reply(body, headers=answer_headers(job, self._generations.clock()))

    async def generate_stream(self, exchange: Exchange) -> Response:
        """The same as server-sent events; the body's `previews` (true or false) asks for a picture at each step."""
        model = self._model(exchange.request)
        name, fields = v2.decode_generate(exchange.body)
        previews = fields.pop("previews", False)
        if not isinstance(previews, bool):
            raise InvalidField.of("previews", previews, "true or false")
        ask = self._ask(exchange, fields, stream=True, previews=previews)
        job = await self._generations.begin(exchange.caller, ask, exchange.entry)
        return EventStream(self._events(exchange, job, ask, model, name or exchange.entry.id, previews))

    async def live(self, _: Request) -> Response:
        """200: the edge takes requests, whether or not a GPU is awake."""
        return json_reply({"live": True, "ready": True})

    async def model_ready(self, request: Request) -> Response:
        """Likewise, for the one model."""
        return json_reply({"name": self._model(request), "ready": True})

    async def model_metadata(self, exchange: Exchange) -> Response:
        """Every tensor with its limits and defaults."""
        model = self._model(exchange.request)
        return json_reply(metadata(model, await self._generations.admissions.capabilities(exchange.caller)))

    async def server_metadata(self, _: Request) -> Response:
        """Name, version and the protocol extensions that are spoken."""
        return json_reply({"name": "sdzero", "version": __version__, "extensions": ["binary_tensor_data", "generate"]})

    async def closed(self, _: Exchange) -> Response:
        """Loading and unloading."""
        raise Closed("the model repository is closed; the pod serves the one model that it was started with")

    def _model(self, request: Request) -> str:
        given, version = str(request.path_params["model"]), request.path_params.get("version")
        if given not in self._names:
            raise NotFound(f"model: got {given[:80]!r}; allowed: {', '.join(self._names)}")
        if version is not None:
            raise NotFound(f"version: got {version[:80]!r}; allowed: none, the path is /v2/models/{given}")
        return given

    def _ask(self, exchange: Exchange, fields: Fields, *, stream: bool = False, previews: bool = False) -> Ask:
        def taken(capabilities: Capabilities) -> Fields:
            if previews and not capabilities.previews:
                raise InvalidField.of("previews", previews, "false: this model shows none")
            return fields

        exchange.query()
        headers = exchange.headers
        return Ask(
            fields=taken,
            request_id=exchange.entry.id,
            patience=patience(headers, self._generations.clock(), stream=stream),
            retry=is_retry(headers),
            idempotency_key=exchange.idempotency_key(),
            previews=previews,
        )

    async def _job(self, exchange: Exchange, fields: Fields) -> Job:
        ask = self._ask(exchange, fields)
        job = await self._generations.begin(exchange.caller, ask, exchange.entry)
        return await self._generations.finish(job, ask, will_retry=will_retry(exchange.headers))

    async def _tensors(self, job: Job, outputs: tuple[str, ...]) -> list[Tensor]:
        delivery, result, pixels = self._generations.delivery, result_of(job), None
        if "generated_image" in outputs:
            originals = [await delivery.original(image) for image in result.images]
            pixels = np.stack([await self._packer.pixels(original) for original in originals])
        files = await delivery.files(job) if "image" in outputs else []
        return answer_tensors(
            job.generation.request,
            outputs,
            files=[base64.b64encode(file) for file in files],
            pixels=pixels,
            prompt_tokens=result.prompt_tokens,
        )

    async def _events(
        self, exchange: Exchange, job: Job, ask: Ask, model: str, id: str, previews: bool
    ) -> AsyncGenerator[bytes, None]:
        try:
            # No SDK asks again for a stream that has begun.
            async with aclosing(self._generations.watch(job, ask)) as events:
                async for event in events:
                    if event is None:
                        yield b": waiting\n\n"
                    elif isinstance(event, Job):
                        tensors = await self._tensors(event, DEFAULT_OUTPUTS)
                        yield encoded("done", flat(model, id, tensors, _parameters(event)))
                    else:
                        data = {"id": id, **progress(event)}
                        if not previews:
                            data.pop("previews", None)
                        yield encoded(event.name, data)
        except Problem as problem:
            exchange.entry.failed(problem)
            yield encoded("error", problem_body(problem))


def _parameters(job: Job) -> dict[str, Scalar]:
    result = result_of(job)
    return {
        "cold_start": result.cold_start and not job.cached,
        "cached": job.cached,
        "model_revision": result.revision,
        "fingerprint": job.generation.fingerprint,
        "negative_prompt_tokens": result.negative_prompt_tokens,
        "gpu_seconds": 0.0 if job.cached else result.gpu_seconds,
        "server_timing": "" if job.cached else timing(result),
    }
