"""OpenAI's Images API (openapi 3.1, v2.3.0 of 2026-08-21); `core/openai.py` has its fields and what they mean here.

POST  /v1/images/generations     JSON, or server-sent events with `stream`
GET   /v1/models  /v1/models/NAME
"""

import base64
import functools
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from predictor.asgi.events import EventStream, encoded
from predictor.asgi.replies import json_reply
from predictor.core import openai
from predictor.core.jobs import Job
from predictor.core.problems import InvalidField, NotFound, Problem
from predictor.edge.admission import Ask
from predictor.edge.following import progress
from predictor.edge.generation import Generations
from predictor.edge.patience import is_retry, patience, will_retry
from predictor.edge.pictures import Pictures
from predictor.edge.routes.exchange import Exchange, Exchanges
from predictor.edge.routes.jobs import JobRoutes
from predictor.edge.views import answer_headers, limits


class OpenAI:
    """The handlers; `routes` lists them for the application."""

    def __init__(
        self, names: tuple[str, ...], created: int, generations: Generations, packer: Pictures, jobs: JobRoutes
    ) -> None:
        self._names = names
        self._created = created
        self._generations = generations
        self._packer = packer
        self._jobs = jobs

    def routes(self, exchanges: Exchanges) -> list[Route]:
        """The routes."""
        return [
            exchanges.route("/v1/images/generations", self.generate, "generate", ("POST",)),
            exchanges.route("/v1/models", self.models, "generate"),
            exchanges.route("/v1/models/{model}", self.model, "generate"),
        ]

    async def generate(self, exchange: Exchange) -> Response:
        """The pictures; a job where the client prefers one; events where it streams."""
        exchange.query()
        wanted = openai.decode(exchange.body, self._names)
        waits = patience(exchange.headers, self._generations.clock(), stream=wanted.stream)
        if wanted.stream and waits.job_after is not None:
            raise InvalidField.because("stream", "got true and a Prefer header", "one of them")
        ask = Ask(
            fields=functools.partial(openai.fields, wanted),
            request_id=exchange.entry.id,
            patience=waits,
            kind="sync" if waits.job_after is None else "job",
            retry=is_retry(exchange.headers),
            idempotency_key=exchange.idempotency_key(),
            end_user=wanted.user,
            previews=wanted.partial_images > 0,
            low_moderation=wanted.moderation == "low",
        )
        try:
            job = await self._generations.begin(exchange.caller, ask, exchange.entry)
        except InvalidField as problem:
            raise openai.renamed(problem) from None
        if wanted.stream:
            return EventStream(self._events(exchange, job, ask, wanted))
        if waits.job_after != 0:
            job = await self._generations.finish(job, ask, will_retry=will_retry(exchange.headers))
        if job.state == "active":
            headers = {"Location": f"/v1/jobs/{job.id}", "Preference-Applied": "respond-async"}
            return json_reply(await self._jobs.view(exchange, job), 202, headers)
        return json_reply(
            await self._body(exchange, job, wanted), headers=answer_headers(job, self._generations.clock())
        )

    async def models(self, exchange: Exchange) -> Response:
        """The one model, by every name that it answers to."""
        exchange.query()
        return json_reply(openai.models(self._names, self._created))

    async def model(self, exchange: Exchange) -> Response:
        """One model, with what it can do."""
        exchange.query()
        name = str(exchange.request.path_params["model"])
        if name not in self._names:
            raise NotFound(f"model: got {name[:80]!r}; allowed: {', '.join(self._names)}", field="model")
        known = self._generations.admissions.known
        return json_reply(openai.model(name, self._created) | ({"x_capabilities": limits(known)} if known else {}))

    async def _body(self, exchange: Exchange, job: Job, wanted: openai.Wanted) -> dict[str, Any]:
        if wanted.response_format == "url":
            data = [{"url": link} for link in await self._jobs.links(exchange, job)]
        else:
            files = await self._generations.delivery.files(job)
            data = [{"b64_json": base64.b64encode(file).decode()} for file in files]
        return openai.answer(job, data)

    async def _events(
        self, exchange: Exchange, job: Job, ask: Ask, wanted: openai.Wanted
    ) -> AsyncGenerator[bytes, None]:
        request, shown = job.generation.request, 0
        try:
            # No SDK asks again for a stream that has begun.
            async with aclosing(self._generations.watch(job, ask)) as events:
                async for event in events:
                    if event is None:
                        yield b": waiting\n\n"
                    elif isinstance(event, Job):
                        for file, number in zip(
                            await self._generations.delivery.files(event), range(request.num_images), strict=True
                        ):
                            yield encoded(
                                "image_generation.completed",
                                openai.completed_event(event, base64.b64encode(file).decode(), number),
                            )
                    elif event.name == "progress" and shown < wanted.partial_images:
                        data: Any = progress(event)
                        due = (shown + 1) * data["steps"] / (wanted.partial_images + 1)
                        if data["step"] < due or "previews" not in data:
                            continue
                        for file in await self._packer.partial(
                            data["previews"], request.width, request.height, job.encoding
                        ):
                            yield encoded(
                                "image_generation.partial_image",
                                openai.partial_event(job, base64.b64encode(file).decode(), shown),
                            )
                        shown += 1
        except Problem as problem:
            exchange.entry.failed(problem)
            yield encoded("error", openai.error(problem)[1])
