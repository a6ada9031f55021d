"""Jobs: pictures that nobody holds a connection for.

POST    /v1/jobs                 an images request, and `webhook_url`; 202 and where to look
GET     /v1/jobs?limit&after&state
GET     /v1/jobs/ID              DELETE cancels it, on the GPU as well
GET     /v1/jobs/ID/events       server-sent events until its end; resumes from Last-Event-ID
GET     /v1/jobs/ID/manifest     all that is needed to make its images again
POST    /v1/jobs/ID/replay       makes them again, past the cache
"""

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
from predictor.core.problems import Cancelled, InvalidField
from predictor.edge.admission import Ask
from predictor.edge.bus import Event
from predictor.edge.following import progress
from predictor.edge.generation import Generations
from predictor.edge.patience import patience
from predictor.edge.routes.account import count
from predictor.edge.routes.exchange import Exchange, Exchanges
from predictor.edge.stores.jobs import Jobs
from predictor.edge.views import job_view, manifest
from predictor.edge.webhooks import webhook_url

STATES = ("active", "done", "failed", "cancelled")


class JobRoutes:
    """The handlers; `routes` lists them for the application."""

    def __init__(self, names: tuple[str, ...], public_url: str, generations: Generations, jobs: Jobs) -> None:
        self._names = names
        self._public_url = public_url.rstrip("/")
        self._generations = generations
        self._jobs = jobs

    def routes(self, exchanges: Exchanges) -> list[Route]:
        """The routes."""
        return [
            exchanges.route("/v1/jobs", self.create, "generate", ("POST",)),
            exchanges.route("/v1/jobs", self.page, "read"),
            exchanges.route("/v1/jobs/{id}", self.show, "read"),
            exchanges.route("/v1/jobs/{id}", self.cancel, "generate", ("DELETE",)),
            exchanges.route("/v1/jobs/{id}/events", self.events, "read"),
            exchanges.route("/v1/jobs/{id}/manifest", self.manifest, "read"),
            exchanges.route("/v1/jobs/{id}/replay", self.replay, "generate", ("POST",)),
        ]

    async def create(self, exchange: Exchange) -> Response:
        """202 and the job; its pictures come later, or have been there before."""
        exchange.query()
        wanted = openai.decode(exchange.body, self._names, job=True)
        ask = Ask(
            fields=functools.partial(openai.fields, wanted),
            request_id=exchange.entry.id,
            patience=patience(exchange.headers, self._generations.clock(), stream=True),
            kind="job",
            idempotency_key=exchange.idempotency_key(),
            webhook=webhook_url(wanted.webhook_url) if wanted.webhook_url is not None else None,
            end_user=wanted.user,
            previews=wanted.previews,
            low_moderation=wanted.moderation == "low",
        )
        try:
            job = await self._generations.begin(exchange.caller, ask, exchange.entry)
        except InvalidField as problem:
            raise openai.renamed(problem) from None
        return json_reply(await self.view(exchange, job), 202, {"Location": f"/v1/jobs/{job.id}"})

    async def page(self, exchange: Exchange) -> Response:
        """The caller's jobs, newest first."""
        query = exchange.query(limit=count, after=lambda _, text: text, state=_state)
        jobs, after = await self._jobs.page(
            tenant=exchange.tenant,
            key_id=None,
            state=query.get("state"),
            limit=min(query.get("limit", 20), 100),
            after=query.get("after"),
        )
        views = [await self.view(exchange, job) for job in jobs]
        return json_reply({"object": "list", "data": views, "has_more": after is not None, "after": after})

    async def show(self, exchange: Exchange) -> Response:
        """One job, with fresh links."""
        exchange.query()
        return json_reply(await self.view(exchange, await self._job(exchange)))

    async def cancel(self, exchange: Exchange) -> Response:
        """The job as it is then; one that has ended stays what it was."""
        exchange.query()
        job = await self._job(exchange)
        if job.state == "active":
            job = await self._generations.holding.cancel(job, Cancelled("cancelled by its caller"))
        return json_reply(await self.view(exchange, job))

    async def events(self, exchange: Exchange) -> Response:
        """What happens to it; 204 where the client has seen the end, so that an EventSource stops asking."""
        query = exchange.query(previews=_flag)
        job = await self._job(exchange)
        after = exchange.request.headers.get("last-event-id") or None
        if after == "end" and job.state != "active":
            return Response(status_code=204)
        return EventStream(self._events(exchange, job, after, query.get("previews", False)))

    async def manifest(self, exchange: Exchange) -> Response:
        """Request, seeds, revision, numerics and fingerprint."""
        exchange.query()
        return json_reply(manifest(await self._job(exchange), self._names[0]))

    async def replay(self, exchange: Exchange) -> Response:
        """202 and a job that makes the same images once more."""
        exchange.query()
        original = await self._job(exchange)
        job = await self._generations.admissions.replay(exchange.caller, original, exchange.entry.id)
        exchange.entry.facts["job"] = job.id
        return json_reply(await self.view(exchange, job), 202, {"Location": f"/v1/jobs/{job.id}"})

    async def view(self, exchange: Exchange, job: Job) -> dict[str, Any]:
        """The job as its caller sees it."""
        links = await self.links(exchange, job)
        eta = self._generations.admissions.eta(job) if job.state == "active" else None
        view = job_view(job, self._names[0], links=links, eta=eta)
        if job.replay_of is not None and job.state == "done":
            view["identical"] = await self._same_images(job)
        return view

    async def links(self, exchange: Exchange, job: Job) -> list[str]:
        """An address for each of the job's images."""
        base_url = self._public_url or str(exchange.request.base_url).rstrip("/")
        return await self._generations.delivery.links(job, base_url)

    async def _same_images(self, job: Job) -> bool:
        """Whether a replay came to the same bytes: names are made of content."""
        assert job.replay_of is not None
        original = await self._jobs.job(job.replay_of, None)
        ours, theirs = job.generation.result, original.generation.result
        return bool(ours and theirs and [i.name for i in ours.images] == [i.name for i in theirs.images])

    async def _job(self, exchange: Exchange) -> Job:
        return await self._jobs.job(str(exchange.request.path_params["id"]), exchange.tenant)

    async def _events(
        self, exchange: Exchange, job: Job, after: str | None, previews: bool
    ) -> AsyncGenerator[bytes, None]:
        if after is None and job.state == "active":
            yield encoded("queued", {"eta": self._generations.admissions.eta(job)})
        async with aclosing(self._generations.following.events(job, after)) as events:
            async for event in events:
                match event:
                    case None:
                        yield b": waiting\n\n"
                    case Event():
                        data = progress(event)
                        if not previews:
                            data.pop("previews", None)
                        yield encoded(event.name, data, event.id)
                    case Job():
                        yield encoded(event.state, await self.view(exchange, event), "end")


def _state(name: str, text: str) -> str:
    if text not in STATES:
        raise InvalidField.of(name, text, ", ".join(STATES))
    return text


def _flag(name: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise InvalidField.of(name, text, "true, false")
    return text == "true"
