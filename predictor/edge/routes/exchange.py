"""What every route of a caller has in common: who it is, what it may, how much it sends, and that it may hang up."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from predictor.asgi.body import read_body, unless_hung_up
from predictor.asgi.journal import Entry, Journal
from predictor.asgi.tracing import Tracer
from predictor.core.account import Caller, Scope
from predictor.core.problems import Forbidden, InvalidField, InvalidRequest, Problem
from predictor.edge.auth import Authenticator
from predictor.edge.stores.ledger import Ledger, Line

Handler = Callable[["Exchange"], Coroutine[Any, Any, Response]]
Reply = Callable[[Problem], Response]
LONGEST_KEY = 255  # characters of an Idempotency-Key


class Exchange:
    """One request of an authenticated caller, with its body read."""

    def __init__(self, request: Request, caller: Caller, body: bytes, entry: Entry) -> None:
        self.request = request
        self.caller = caller
        self.body = body
        self.entry = entry

    @property
    def headers(self) -> dict[str, str]:
        """By lower-case name."""
        return dict(self.request.headers)

    @property
    def tenant(self) -> str | None:
        """Whose jobs the caller sees; None: everybody's."""
        return None if "admin" in self.caller.scopes else self.caller.tenant

    def query(self, **allowed: Callable[[str, str], Any]) -> dict[str, Any]:
        """The query's parameters, each read by its function of (name, text); an unknown one is refused."""
        found = {}
        for name, text in self.request.query_params.multi_items():
            if name not in allowed or name in found:
                came = "no such parameter" if name not in allowed else "came twice"
                raise InvalidField.because(name, came, ", ".join(allowed) or "no parameters")
            found[name] = allowed[name](name, text)
        return found

    def idempotency_key(self) -> str | None:
        """The header of that name (draft-ietf-httpapi-idempotency-key-header)."""
        key = self.request.headers.get("idempotency-key")
        if key is not None and not (0 < len(key) <= LONGEST_KEY and key.isascii() and key.isprintable()):
            raise InvalidField.of("Idempotency-Key", key, f"1 to {LONGEST_KEY} printable ASCII characters")
        return key


class Exchanges:
    """Makes routes of handlers.

    Args:
        reply: a problem in the dialect's shape.
        forwarded_hops: proxies in front that add to `X-Forwarded-For`; the client is the one before them. They may
            say `X-Forwarded-Proto` as well.
    """

    def __init__(
        self,
        dialect: str,
        reply: Reply,
        *,
        authenticator: Authenticator,
        journal: Journal,
        tracer: Tracer,
        ledger: Ledger,
        max_body_bytes: int,
        body_seconds: float,
        forwarded_hops: int,
        clock: Callable[[], float],
    ) -> None:
        self._dialect = dialect
        self._reply = reply
        self._authenticator = authenticator
        self._journal = journal
        self._tracer = tracer
        self._ledger = ledger
        self._max_body_bytes = max_body_bytes
        self._body_seconds = body_seconds
        self._forwarded_hops = forwarded_hops
        self._clock = clock

    def route(self, path: str, handle: Handler, scope: Scope, methods: tuple[str, ...] = ("GET",)) -> Route:
        """A route for callers that have `scope`."""

        async def application(asgi: AsgiScope, receive: Receive, send: Send) -> None:
            await self._answer(path, handle, scope, asgi, receive, send)

        return Route(path, _Application(application), methods=list(methods))

    async def _answer(
        self, path: str, handle: Handler, scope: Scope, asgi: AsgiScope, receive: Receive, send: Send
    ) -> None:
        request = Request(asgi, receive)
        if self._forwarded(request, "x-forwarded-proto") == "https":
            asgi["scheme"] = "https"  # for links
        reply: Response | None = None
        caller: Caller | None = None
        try:
            with (
                self._journal.entry(request.state.id, self._dialect) as entry,
                self._tracer.request(f"{request.method} {path}", request.headers, entry) as span,
            ):
                try:
                    caller = await self._authenticator(
                        request.headers.get("authorization"), request.headers.get("x-api-key"), self._address(request)
                    )
                    entry.facts |= {"key": caller.key_id, "tenant": caller.tenant}
                    if scope not in caller.scopes:
                        raise Forbidden(f"the key has the scopes {', '.join(sorted(caller.scopes))}; needed: {scope}")
                    body = await self._body(request)
                    exchange = Exchange(request, caller, body, entry)
                    reply = await unless_hung_up(receive, handle(exchange))
                    span.answered(reply.status_code)
                    await reply(asgi, receive, send)
                except Problem as problem:
                    if caller is not None and request.method == "POST" and "job" not in entry.facts:
                        self._note(caller, request, problem)
                    raise
        except Problem as problem:
            if reply is None:
                await self._reply(problem)(asgi, receive, send)

    async def _body(self, request: Request) -> bytes:
        if request.method in ("GET", "HEAD"):
            return b""
        try:
            async with asyncio.timeout(self._body_seconds):
                return await read_body(request, self._max_body_bytes)
        except TimeoutError:
            raise InvalidRequest(f"body: not complete within {self._body_seconds:g} s") from None

    def _note(self, caller: Caller, request: Request, problem: Problem) -> None:
        """Refusals of known callers stand in the audit log; those of unknown ones are only counted."""
        self._ledger.note(
            Line(
                at=self._clock(),
                tenant=caller.tenant,
                key_id=caller.key_id,
                request_id=request.state.id,
                action="refused",
                outcome=problem.code,
            )
        )

    def _address(self, request: Request) -> str:
        return self._forwarded(request, "x-forwarded-for") or (request.client.host if request.client else "unknown")

    def _forwarded(self, request: Request, name: str) -> str | None:
        """What the outermost of our own proxies has written into the header; None if there is no such proxy."""
        hops = [hop.strip() for line in request.headers.getlist(name) for hop in line.split(",")]
        return hops[-min(self._forwarded_hops, len(hops))] if self._forwarded_hops and hops else None


class _Application:
    """An ASGI application that Starlette does not take for a function of a request."""

    def __init__(self, application: Callable[[AsgiScope, Receive, Send], Coroutine[Any, Any, None]]) -> None:
        self._application = application

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        await self._application(scope, receive, send)
