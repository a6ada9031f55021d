"""An edge that does what its test says: the API's routes, words and refusals, with no predictor behind them.

Bodies are read by `core/openai.py` and `core/request.py` and jobs shown by `edge/views.py`, so fields, messages and
job JSON are the real ones. What happens to a job, and when, is the test's: `tell`, `finish`, `fail`, `cut`.
"""

import asyncio
import base64
import contextlib
import io
import socket
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import uvicorn
from PIL import Image, ImageDraw
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from predictor.asgi.events import EventStream, encoded
from predictor.asgi.replies import json_reply
from predictor.core import openai
from predictor.core.jobs import Generation, Job, Result, StoredImage
from predictor.core.problems import Cancelled, InvalidField, NotFound, Problem, Unauthenticated
from predictor.core.request import PARAMETERS, Capabilities, resolve
from predictor.edge.routes import page
from predictor.edge.routes.replies import openai_reply
from predictor.edge.views import job_view

MODEL = "shapes"
CAPABILITIES = Capabilities(
    architecture="StableDiffusionPipeline",
    revision="0123456789abcdef",
    runtime="eager",
    device="cpu",
    dtype="float32",
    parameters=tuple(name for name in PARAMETERS if not name.startswith("image_")),
    samplers=("ddim", "euler", "euler_ancestral", "dpmpp_2m"),
    default_sampler="dpmpp_2m",
    default_steps=30,
    max_steps=150,
    default_guidance_scale=7.5,
    max_guidance_scale=30.0,
    default_height=512,
    default_width=512,
    min_side=64,
    max_pixels=1024 * 1024,
    size_multiple=8,
    max_images=4,
    max_prompt_bytes=4096,
    max_prompt_tokens=77,
    previews=True,
)


@dataclass
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class StandIn:
    """`key` None asks nobody who they are; `capabilities` None is an edge that has not met its model yet."""

    key: str | None = None
    capabilities: Capabilities | None = CAPABILITIES
    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    refusals: deque[tuple[str, Problem]] = field(default_factory=deque)  # METHOD and path, the next answer to it
    jobs: dict[str, Job] = field(default_factory=dict)  # oldest first
    _events: dict[str, list[tuple[str, dict[str, Any]]]] = field(default_factory=dict)
    _created: "asyncio.Queue[str]" = field(default_factory=asyncio.Queue)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _cuts: int = 0

    async def created(self) -> str:
        """The id of the next job that somebody asks for."""
        return await asyncio.wait_for(self._created.get(), 30)

    def tell(self, id: str, name: str, **data: Any) -> None:
        """An event of the job."""
        self._events[id].append((name, data))
        self._wake()

    def finish(self, id: str, *, cold_start: bool = False) -> None:
        """The job is done; its pictures are there."""
        request = self.jobs[id].generation.request
        result = Result(
            images=tuple(StoredImage(f"{seed:048x}.png", seed, 1) for seed in request.seeds),
            revision=CAPABILITIES.revision,
            prompt_tokens=7,
            negative_prompt_tokens=2,
            gpu_seconds=1.234,
            timing={"queue": 0.004, "encode": 0.021, "denoise": 1.13, "decode": 0.079, "pack": 0.015},
            cold_start=cold_start,
        )
        self._end(id, "done", result=result)

    def fail(self, id: str, problem: Problem) -> None:
        """The job has failed."""
        self._end(id, "failed", problem=problem)

    def cut(self) -> None:
        """End every stream of events, as a proxy does that has waited long enough."""
        self._cuts += 1
        self._wake()

    def posted(self) -> dict[str, Any]:
        """The body of the latest job."""
        return [asked.body for asked in self.asked if (asked.method, asked.path) == ("POST", "/v1/jobs")][-1]

    def add(self, fields: dict[str, Any], *, job: bool = True, replay_of: str | None = None) -> Job:
        """A job for `fields`, named as the API names them."""
        number = len(self.jobs) + 1
        wanted = openai.decode(msgspec.json.encode(fields), (MODEL,), job=job)
        try:
            request, _ = resolve(openai.fields(wanted, CAPABILITIES), CAPABILITIES, 1_000_000 + number)
        except InvalidField as problem:
            raise openai.renamed(problem) from None
        now = time.time()
        generation = Generation(
            id=f"gen_{number}",
            tenant="local",
            request=request,
            revision=CAPABILITIES.revision,
            fingerprint=f"{number:064x}",
            cacheable="seed" in fields,
            created=now,
            deadline=now + 600,
        )
        added = Job(
            id=f"job_{number}",
            kind="job",
            tenant="local",
            key_id="local",
            request_id="r",
            created=now,
            generation=generation,
            replay_of=replay_of,
        )
        self.jobs[added.id] = added
        self._events[added.id] = []
        return added

    def routes(self) -> list[Route]:
        """The API, as far as the page uses it, and the page."""
        return [
            self._route("GET", "/v1/models", self._models),
            self._route("GET", "/v1/models/{id}", self._model),
            self._route("POST", "/v1/images/generations", self._generate),
            self._route("POST", "/v1/jobs", self._create),
            self._route("GET", "/v1/jobs", self._page),
            self._route("GET", "/v1/jobs/{id}", self._show),
            self._route("DELETE", "/v1/jobs/{id}", self._cancel),
            self._route("GET", "/v1/jobs/{id}/events", self._follow),
            self._route("POST", "/v1/jobs/{id}/replay", self._replay),
            Route("/v1/files/{name}", self._file),
            *page.routes(),
        ]

    def _route(self, method: str, path: str, handle: Any) -> Route:
        async def answer(request: Request) -> Response:
            body = await request.body()
            given = msgspec.json.decode(body) if body else {}
            self.asked.append(Asked(method, request.url.path, dict(request.headers), given))
            try:
                if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
                    raise Unauthenticated("no key came, or none that is valid now")
                if self.refusals and self.refusals[0][0] == f"{method} {request.url.path}":
                    raise self.refusals.popleft()[1]
                reply = await handle(request, given)
                assert isinstance(reply, Response)
            except Problem as problem:
                return openai_reply(problem)
            return reply

        return Route(path, answer, methods=[method])

    async def _models(self, *_: Any) -> Response:
        return json_reply(openai.models((MODEL,), 1))

    async def _model(self, *_: Any) -> Response:
        more = {"x_capabilities": self.capabilities} if self.capabilities else {}
        return json_reply(openai.model(MODEL, 1) | more)

    async def _create(self, _: Request, body: dict[str, Any]) -> Response:
        return self._accepted(self.add(body))

    async def _generate(self, _: Request, body: dict[str, Any]) -> Response:
        job = self.add(body, job=False)
        files = [base64.b64encode(picture(seed, side=64)).decode() for seed in job.generation.request.seeds]
        return json_reply({"created": 1, "data": [{"b64_json": file} for file in files]})

    async def _replay(self, request: Request, _: Any) -> Response:
        original = self._job(request)
        job = self.add({"prompt": "again"}, replay_of=original.id)
        generation = msgspec.structs.replace(job.generation, request=original.generation.request)
        self.jobs[job.id] = msgspec.structs.replace(job, generation=generation)
        return self._accepted(self.jobs[job.id])

    async def _page(self, request: Request, _: Any) -> Response:
        ids = list(reversed(self.jobs))
        after = request.query_params.get("after")
        begin = ids.index(after) + 1 if after else 0
        found = ids[begin : begin + int(request.query_params["limit"])]
        more = begin + len(found) < len(ids)
        data = [self._view(id) for id in found]
        return json_reply({"object": "list", "data": data, "has_more": more, "after": found[-1] if more else None})

    async def _show(self, request: Request, _: Any) -> Response:
        return json_reply(self._view(self._job(request).id))

    async def _cancel(self, request: Request, _: Any) -> Response:
        job = self._job(request)
        if job.state == "active":
            self._end(job.id, "cancelled", problem=Cancelled("cancelled by its caller"))
        return json_reply(self._view(job.id))

    async def _follow(self, request: Request, _: Any) -> Response:
        last = request.headers.get("last-event-id")
        job = self._job(request)
        if last == "end" and job.state != "active":
            return Response(status_code=204)
        return EventStream(self._stream(job.id, int(last or 0)))

    async def _stream(self, id: str, seen: int) -> AsyncGenerator[bytes, None]:
        cuts = self._cuts
        if not seen:
            yield encoded("queued", {"eta": 4.0})
        while self._cuts == cuts:
            events = self._events[id][seen:]
            for name, data in events:
                seen += 1
                yield encoded(name, data, str(seen))
            if self.jobs[id].state != "active":
                yield encoded(self.jobs[id].state, self._view(id), "end")
                return
            yield b": waiting\n\n"
            await self._changed.wait()

    async def _file(self, request: Request) -> Response:
        seed = int(request.path_params["name"].partition(".")[0], 16)
        return Response(picture(seed), media_type="image/png")

    def _accepted(self, job: Job) -> Response:
        self._created.put_nowait(job.id)
        return json_reply(self._view(job.id), 202, {"Location": f"/v1/jobs/{job.id}"})

    def _job(self, request: Request) -> Job:
        id = request.path_params["id"]
        if id not in self.jobs:
            raise NotFound(f"job: got {id!r}; allowed: one of yours")
        return self.jobs[id]

    def _view(self, id: str) -> dict[str, Any]:
        job = self.jobs[id]
        result = job.generation.result
        links = [f"{self.url}/v1/files/{image.name}?expires=1&signature=s" for image in result.images] if result else []
        view = job_view(job, MODEL, links=links, eta=4.0)
        return view | ({"identical": True} if job.replay_of and job.state == "done" else {})

    def _end(self, id: str, state: Any, result: Result | None = None, problem: Problem | None = None) -> None:
        job, now = self.jobs[id], time.time()
        generation = msgspec.structs.replace(job.generation, state=state, result=result, finished=now)
        self.jobs[id] = msgspec.structs.replace(
            job, state=state, finished=now, generation=generation, problem=problem.record() if problem else None
        )
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def picture(seed: int, noise: float = 0.0, side: int = 512) -> bytes:
    """A PNG file: one shape by seed, drowned in `noise` from 0 to 1."""
    drawn = Image.new("RGB", (512, 512), ("#f1e9da", "#20344f", "#dfe8e1", "#3b2c3f")[seed % 4])
    draw = ImageDraw.Draw(drawn)
    colour = ("#c8452f", "#f0b64a", "#2c7a6b", "#e98fb0", "#5577c9")[seed % 5]
    if seed % 3 == 0:
        draw.ellipse((116, 116, 396, 396), fill=colour)
    elif seed % 3 == 1:
        draw.polygon([(256, 96), (420, 392), (92, 392)], fill=colour)
    else:
        draw.rounded_rectangle((126, 126, 386, 386), 24, fill=colour)
    pixels = np.asarray(drawn.resize((side, side), Image.Resampling.LANCZOS), np.float32)
    grain = np.random.default_rng(seed).normal(128, 70, pixels.shape)
    mixed = np.clip(pixels * (1 - noise) + grain * noise, 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(mixed).save(out, "PNG")
    return out.getvalue()


class _Server(uvicorn.Server):
    """Ctrl-C is pytest's."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    def capture_signals(self) -> Any:
        return contextlib.nullcontext()


@contextlib.asynccontextmanager
async def serving(standin: StandIn) -> AsyncIterator[StandIn]:
    """The stand-in on a free port, in this event loop."""
    application = Starlette(
        routes=standin.routes(),
        exception_handlers={Problem: lambda _, problem: openai_reply(problem)},  # type: ignore[dict-item, arg-type, return-value]
    )
    server = _Server(uvicorn.Config(application, log_config=None, lifespan="off"))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        standin.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        task = asyncio.create_task(server.serve(sockets=[listener]))
        await server.up.wait()
        try:
            yield standin
        finally:
            server.should_exit = server.force_exit = True
            await task
