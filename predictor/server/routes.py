"""The predictor's own REST routes: the v2 protocol, Triton's generate extension, and the timeline.

They stand before KServe's on the same application, which therefore never reads a body: its decoder turns a BYTES
tensor that is not UTF-8 into a 500, ignores `id`, and cannot see a client hang up.

    GET   /v2  /v2/health/{live,ready}  /v2/models/NAME  /v2/models/NAME/ready
    POST  /v2/models/NAME/infer            tensors in, tensors out
    POST  /v2/models/NAME/generate         flat JSON in, flat JSON out
    POST  /v2/models/NAME/generate_stream  flat JSON in, server-sent events out (see `events.py`)
    GET   /v2/models/NAME/capabilities     what the model allows, as the edge wants to know it
    GET   /timeline                        marks and phases of the latest start
"""

import importlib.metadata
from collections.abc import Callable, Coroutine
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from predictor.asgi.body import header_length, read_body, unless_hung_up
from predictor.asgi.journal import Entry, Journal
from predictor.asgi.replies import json_reply, problem_reply
from predictor.asgi.tracing import Tracer
from predictor.core import v2
from predictor.core.metadata import metadata
from predictor.core.problems import Closed, InvalidField, InvalidRequest, NotFound, NotReady, Problem
from predictor.core.tensors import DEFAULT_OUTPUTS, flat
from predictor.server.coldstart import ColdStart
from predictor.server.events import opened
from predictor.server.replies import answer_headers
from predictor.server.service import Answer, Service

Handler = Callable[[Request, bytes, Entry], Coroutine[Any, Any, Response]]
Reply = Callable[[Problem], Response]


class Generation:
    """A route that makes pictures, as an ASGI application: its journal entry lasts until the answer has been sent."""

    def __init__(
        self,
        path: str,
        handle: Handler,
        refuse: Reply,
        model: str,
        journal: Journal,
        tracer: Tracer,
        max_body_bytes: int,
    ) -> None:
        self._name = f"POST {path}"
        self._handle = handle
        self._refuse = refuse
        self._model = model
        self._journal = journal
        self._tracer = tracer
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Read the body, answer, and stop working when the client hangs up."""
        request = Request(scope, receive)
        reply: Response | None = None
        try:
            with (
                self._journal.entry(request.state.id, "http") as entry,
                self._tracer.request(self._name, request.headers, entry),
            ):
                check_model(request, self._model)
                for name in request.query_params:
                    raise InvalidRequest(f"query parameter {name}: unknown; allowed: none, parameters go into the body")
                body = await read_body(request, self._max_body_bytes)
                reply = await unless_hung_up(receive, self._handle(request, body, entry))
                await reply(scope, receive, send)
        except Problem as problem:
            if reply is None:
                await self._refuse(problem)(scope, receive, send)


class Rest:
    """The handlers; `routes` lists them for the application."""

    def __init__(
        self,
        model: str,
        service: Service,
        coldstart: ColdStart,
        journal: Journal,
        tracer: Tracer,
        max_body_bytes: int,
    ) -> None:
        self._model = model
        self._service = service
        self._coldstart = coldstart
        self._journal = journal
        self._tracer = tracer
        self._max_body_bytes = max_body_bytes

    def routes(self) -> list[Route]:
        """The routes, in order; they must come before KServe's."""
        found = [
            Route("/timeline", self.timeline),
            Route("/v2", self.server_metadata),
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.ready),
            Route("/v2/repository/{rest:path}", self.closed, methods=["GET", "POST"]),
            Route("/v1/models/{model}:{verb}", self.no_v1, methods=["POST"]),
        ]
        for prefix in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            found += [
                Route(prefix, self.model_metadata),
                Route(f"{prefix}/ready", self.model_ready),
                Route(f"{prefix}/capabilities", self.capabilities),
                *(
                    Route(path := f"{prefix}/{verb}", self._generation(path, handle), methods=["POST"])
                    for verb, handle in (
                        ("infer", self.infer),
                        ("generate", self.generate),
                        ("generate_stream", self.generate_stream),
                    )
                ),
            ]
        return found

    async def infer(self, request: Request, body: bytes, entry: Entry) -> Response:
        """v2 inference, JSON or with the binary tensor extension in either direction."""
        wanted = v2.decode_infer(body, header_length(request))
        if wanted.model_name not in (None, self._model):
            raise InvalidField.of("model_name", wanted.model_name, f"{self._model}, as in the path")
        answer = await self._answer(entry, wanted.fields, tuple(wanted.outputs))
        content, head = v2.encode_infer(
            self._model, wanted.id or entry.id, answer.tensors, wanted.outputs, answer.parameters
        )
        headers = answer_headers(answer)
        if head is None:
            return Response(content, media_type="application/json", headers=headers)
        headers["Inference-Header-Content-Length"] = str(head)
        return Response(content, media_type="application/octet-stream", headers=headers)

    async def generate(self, _: Request, body: bytes, entry: Entry) -> Response:
        """Triton's generate extension: one flat object in, one out."""
        name, fields = v2.decode_generate(body)
        answer = await self._answer(entry, fields, DEFAULT_OUTPUTS)
        return json_reply(
            flat(self._model, name or entry.id, answer.tensors, answer.parameters), headers=answer_headers(answer)
        )

    async def generate_stream(self, _: Request, body: bytes, entry: Entry) -> Response:
        """The same as server-sent events; the body's `previews` (true or false) asks for a picture at each step."""
        name, fields = v2.decode_generate(body)
        previews = fields.pop("previews", False)
        if not isinstance(previews, bool):
            raise InvalidField.of("previews", previews, "true or false")
        if previews and not self._service.capabilities().previews:
            raise InvalidField.of("previews", previews, "false: this model shows none")
        updates = self._service.generate(entry, fields, DEFAULT_OUTPUTS, stream=True, previews=previews)
        return await opened(updates, self._model, name or entry.id, entry, self._service.pack_previews)

    async def live(self, _: Request) -> Response:
        """200 while the process runs."""
        return json_reply({"live": True})

    async def ready(self, _: Request) -> Response:
        """200 when a request would be taken, else 503 and the phase of the start."""
        return self._readiness({"ready": True})

    async def model_ready(self, request: Request) -> Response:
        """Like `ready`, for the one model."""
        check_model(request, self._model)
        return self._readiness({"name": self._model, "ready": True})

    async def model_metadata(self, request: Request) -> Response:
        """Every tensor with its limits and defaults."""
        check_model(request, self._model)
        return json_reply(metadata(self._model, self._service.capabilities()))

    async def capabilities(self, request: Request) -> Response:
        """Limits and defaults as the edge's `resolve` takes them; `sdzero capabilities` tells the same beforehand."""
        check_model(request, self._model)
        return json_reply(self._service.capabilities())

    async def server_metadata(self, _: Request) -> Response:
        """Name, version and the protocol extensions that are spoken."""
        extensions = ["binary_tensor_data", "generate"]
        return json_reply({"name": "sdzero", "version": importlib.metadata.version("kserve"), "extensions": extensions})

    async def timeline(self, _: Request) -> Response:
        """Where the start of this pod, or of its engine after a sleep, spent its time."""
        return json_reply({**self._coldstart.report(), "ready": self._service.ready})

    async def closed(self, _: Request) -> Response:
        """Loading and unloading: whoever may ask for a picture may not take the model away."""
        raise Closed("the model repository is closed; the pod serves the one model that it was started with")

    async def no_v1(self, _: Request) -> Response:
        """The v1 protocol has no room for tensors of bytes."""
        raise InvalidRequest(f"the v1 protocol is not spoken here; use POST /v2/models/{self._model}/infer")

    def _generation(self, path: str, handle: Handler) -> Generation:
        return Generation(path, handle, self._refusal, self._model, self._journal, self._tracer, self._max_body_bytes)

    def _refusal(self, problem: Problem) -> Response:
        if isinstance(problem, NotReady):
            return problem_reply(problem, phase=self._coldstart.phase)
        return problem_reply(problem)

    async def _answer(self, entry: Entry, fields: dict[str, object], outputs: tuple[str, ...]) -> Answer:
        async for update in self._service.generate(entry, fields, outputs):
            if isinstance(update, Answer):
                return update
        raise AssertionError("a request ends with an answer or a problem")

    def _readiness(self, body: dict[str, object]) -> Response:
        try:
            self._service.capabilities()
        except Problem as problem:
            return problem_reply(problem, ready=False, phase=self._coldstart.phase)
        return json_reply(body)


def check_model(request: Request, model: str) -> None:
    """Raise NotFound unless the path names the served model and no version."""
    given, version = request.path_params["model"], request.path_params.get("version")
    if given != model:
        raise NotFound(f"model: got {given[:80]!r}; allowed: {model}")
    if version is not None:
        raise NotFound(f"version: got {version[:80]!r}; allowed: none, the path is /v2/models/{model}")
