"""The composition root of the edge process."""

import asyncio
import contextlib
import functools
import os
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from prometheus_client import CollectorRegistry, start_http_server
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from uvicorn.loops.auto import auto_loop_factory

from predictor.asgi import logs
from predictor.asgi.access import Access
from predictor.asgi.journal import Journal
from predictor.asgi.replies import problem_reply
from predictor.asgi.tracing import Tracer
from predictor.core.problems import InvalidRequest, NotFound, Problem, StoreUnavailable
from predictor.edge.admission import Admissions
from predictor.edge.auth import Authenticator
from predictor.edge.bus import Bus, MemoryBus
from predictor.edge.connection import Connection
from predictor.edge.delivery import Delivery
from predictor.edge.dispatcher import Dispatcher
from predictor.edge.following import Following
from predictor.edge.generation import Generations
from predictor.edge.holding import Holding
from predictor.edge.leaving import Leaving
from predictor.edge.making import Maker
from predictor.edge.metrics import Metrics
from predictor.edge.model import Model, read_capabilities
from predictor.edge.moderation import Moderation
from predictor.edge.pictures import Pictures
from predictor.edge.pods import Pods
from predictor.edge.predictor import Predictor
from predictor.edge.routes import files, page
from predictor.edge.routes.account import Account
from predictor.edge.routes.exchange import Exchanges
from predictor.edge.routes.health import Health
from predictor.edge.routes.jobs import JobRoutes
from predictor.edge.routes.openai import OpenAI
from predictor.edge.routes.replies import openai_reply
from predictor.edge.routes.v2 import V2
from predictor.edge.settings import EdgeSettings
from predictor.edge.stores.cache import MemoryCache, ResultCache
from predictor.edge.stores.cold_starts import ColdStarts
from predictor.edge.stores.database import Database, address
from predictor.edge.stores.images import Images
from predictor.edge.stores.jobs import Jobs
from predictor.edge.stores.keys import Keys
from predictor.edge.stores.ledger import Ledger
from predictor.edge.stores.models import Models
from predictor.edge.stores.outbox import Outbox
from predictor.edge.stores.quotas import Quotas
from predictor.edge.stores.windows import MemoryWindows, Windows
from predictor.edge.views import announcement
from predictor.edge.wake import REMEMBERED, Watch
from predictor.edge.webhooks import Deliverer, Signer

PATIENCE = 25.0  # seconds for a database at the start: nobody answers /healthz, and Kubernetes waits 30 by default
PAUSE = 1.0  # seconds between two tries of it
FLUSH = 0.5  # seconds between two writes of the ledger's notes
SWEEP = 3600.0  # seconds between two looks for images whose time is over
SWEPT = 1000  # images of one look
log = structlog.get_logger("sdzero.edge")


def main(settings: EdgeSettings) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code."""
    logs.configure(settings.log_level)
    # Until it serves, either signal ends it here and now, also where it is a container's first process.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
            runner.run(_serve(settings))
    except (Problem, ValueError, OSError) as error:
        log.error("the edge has ended", said=f"{error}{f': {error.__cause__}' if error.__cause__ else ''}")
        return 1
    except KeyboardInterrupt:
        return 1
    return 0


async def _serve(settings: EdgeSettings) -> None:
    async with application(settings) as app:
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                host="0.0.0.0",  # noqa: S104
                port=settings.http_port,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=max(1, int(settings.grace_seconds)),
                timeout_keep_alive=65,
                http=functools.partial(Connection, head_seconds=settings.body_seconds),
                h11_max_incomplete_event_size=64 * 1024,
                ws="none",
                proxy_headers=False,  # which proxies are believed is told by --forwarded-hops alone
            )
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            # uvicorn has handlers of its own while it runs, and sends itself the signal again when it has stopped.
            signal.signal(number, lambda *_: None)
        await server.serve()


@contextlib.asynccontextmanager
async def application(settings: EdgeSettings) -> AsyncIterator[Starlette]:
    """The ASGI application; its stores are open, and migrated, until the block ends.

    Raises:
        ValueError: a setting that says what cannot be.
        OSError: a file or a port that cannot be had.
        StoreUnavailable: the database does not answer, and has not for a while.
    """
    async with contextlib.AsyncExitStack() as stack:
        app = Starlette(
            routes=await _assembled(settings, stack, time.time),
            middleware=[Middleware(Access, reply=reply_at), Middleware(Leaving, reply=reply_at)],
            exception_handlers={Problem: _on_problem, HTTPException: _on_http_exception},
        )
        app.router.redirect_slashes = False  # a redirect would lead to whatever host the client has named
        yield app


async def _assembled(settings: EdgeSettings, stack: contextlib.AsyncExitStack, clock: Callable[[], float]) -> list[Any]:
    """Every part of the edge, opened and running until `stack` ends; returns the routes."""
    edge = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    data = Path(settings.data)
    secret = _secret(settings, data)
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    tracer = Tracer("sdzero-edge", settings.model_name)
    tracer.warm()
    stack.push_async_callback(asyncio.to_thread, tracer.close)
    if settings.metrics_port:
        server, thread = start_http_server(settings.metrics_port, registry=registry)
        stack.callback(lambda: (server.shutdown(), thread.join()))

    database = await _opened(address(settings.database_url, settings.data))
    stack.push_async_callback(database.close)
    jobs, ledger, keys = (
        Jobs(database, announcement),
        Ledger(database, secret, audit_prompts=settings.audit_prompts),
        Keys(database),
    )
    if settings.first_key and (first := await keys.adopt(settings.first_key)):
        log.info("first key", key=first.id)
    models, cold_starts, outbox = Models(database), ColdStarts(database), Outbox(database)
    images = Images.open(settings.images_url, data / "images", secret, settings.link_seconds, database)
    packer = Pictures(threads=min(4, os.cpu_count() or 1))
    stack.callback(packer.close)
    bus: Bus
    cache: ResultCache
    windows: Windows
    if settings.redis_url:
        # redis-py takes as long to import as half of the rest.
        from predictor.edge.redis.bus import RedisBus
        from predictor.edge.redis.cache import RedisCache
        from predictor.edge.redis.link import RedisLink
        from predictor.edge.redis.windows import RedisWindows

        link = RedisLink(settings.redis_url)
        stack.push_async_callback(link.close)
        bus, windows = RedisBus(link, metrics.bus_errors.inc), RedisWindows(link)
        cache = RedisCache(link, settings.cache_seconds, metrics.cache_errors.inc)
    else:
        bus, windows = MemoryBus(), MemoryWindows()
        cache = MemoryCache(settings.cache_bytes, settings.cache_seconds)
    stack.push_async_callback(bus.aclose)
    quotas = Quotas(windows, settings.quota_failure, metrics.quota_errors.inc)

    predictor = Predictor(settings.predictor_url, settings.model_name)
    stack.push_async_callback(predictor.close)
    metrics.predictor_requests.set_function(lambda: predictor.requests)
    model = Model(settings.model_name, predictor, models, read_capabilities(settings.capabilities))
    await model.recall()
    latest = await cold_starts.recent(REMEMBERED)
    watch = Watch(
        settings.idle_seconds, settings.cold_start_seconds, [cold_start.seconds for cold_start in reversed(latest)]
    )
    pods = Pods(settings.watch_pods, watch, clock)
    moderation = Moderation.load(settings)
    maker = Maker(
        predictor=predictor,
        images=images,
        packer=packer,
        bus=bus,
        cache=cache,
        model=model,
        moderation=moderation,
        watch=watch,
        pods=pods,
        cold_starts=cold_starts,
        metrics=metrics,
        tracer=tracer,
        attempts=settings.attempts,
        metadata=settings.image_metadata,
        clock=clock,
    )
    dispatcher = Dispatcher(
        edge,
        jobs=jobs,
        maker=maker,
        bus=bus,
        metrics=metrics,
        tracer=tracer,
        images_in_flight=settings.images_in_flight,
        attempts=settings.attempts,
        clock=clock,
    )
    admissions = Admissions(
        settings,
        model=model,
        moderation=moderation,
        cache=cache,
        images=images,
        jobs=jobs,
        ledger=ledger,
        quotas=quotas,
        watch=watch,
        dispatcher=dispatcher,
        metrics=metrics,
        tracer=tracer,
        clock=clock,
    )
    holding = Holding(jobs, bus, dispatcher, clock)
    delivery = Delivery(images, cache, packer, model=settings.model_name, metadata=settings.image_metadata, clock=clock)
    generations = Generations(admissions, Following(jobs, bus, clock), holding, delivery, tracer, clock)
    signer = Signer(secret)
    journal = Journal(metrics.requested, log_prompts=False)
    authenticator = Authenticator(settings, keys, quotas)

    def exchanges(dialect: str, reply: Callable[[Problem], Response]) -> Exchanges:
        return Exchanges(
            dialect,
            reply,
            authenticator=authenticator,
            journal=journal,
            tracer=tracer,
            ledger=ledger,
            max_body_bytes=settings.max_body_bytes,
            body_seconds=settings.body_seconds,
            forwarded_hops=settings.forwarded_hops,
            clock=clock,
        )

    async def flush() -> None:
        while True:
            await asyncio.sleep(FLUSH)
            with contextlib.suppress(Problem):
                await ledger.flush()

    async def forget() -> None:
        while settings.retention_days:
            with contextlib.suppress(Problem):
                swept = SWEPT
                while swept == SWEPT:
                    swept = await images.sweep(clock() - settings.retention_days * 86400, SWEPT)
            await asyncio.sleep(SWEEP)

    stack.push_async_callback(ledger.flush)
    deliverer = Deliverer(outbox, signer, edge, settings.webhook_networks, metrics)
    for work in (pods.run(), dispatcher.run(), holding.run(), deliverer.run(), flush(), forget()):
        stack.push_async_callback(_stop, asyncio.create_task(work))
    stack.push_async_callback(holding.close)

    names = settings.names
    job_routes = JobRoutes(names, settings.public_url, generations, jobs)
    of_openai = exchanges("openai", openai_reply)
    return [
        *Health(database, names, settings.public_url, lambda: model.known).routes(),
        *OpenAI(names, int(clock()), generations, packer, job_routes).routes(of_openai),
        *job_routes.routes(exchanges("jobs", openai_reply)),
        *Account(ledger, cold_starts, signer, clock).routes(of_openai),
        *V2(names, generations, packer).routes(exchanges("v2", problem_reply)),
        *files.routes(images),
        *page.routes(images_elsewhere=bool(settings.images_url)),
    ]


def reply_at(problem: Problem, path: str) -> Response:
    """The problem in the shape of the dialect that `path` belongs to."""
    return problem_reply(problem) if path.startswith("/v2") else openai_reply(problem)


async def _opened(url: str) -> Database:
    """The database, as soon as it answers: nobody says which of the two Kubernetes starts first."""
    given_up = time.monotonic() + PATIENCE
    while True:
        try:
            return await Database.open(url)
        except StoreUnavailable:  # it has said why
            if time.monotonic() >= given_up:
                raise
            await asyncio.sleep(PAUSE)


def _secret(settings: EdgeSettings, data: Path) -> bytes:
    """The deployment's secret: told, or drawn once and kept beside the database."""
    if settings.secret:
        return settings.secret.encode()
    data.mkdir(parents=True, exist_ok=True)
    path = data / "secret"
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(48))
    return path.read_bytes().strip()


async def _stop(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return reply_at(error, request.url.path)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = f"{request.method} {request.url.path[:200]}"
    if error.status_code == 404:
        return reply_at(NotFound(f"{path}: no such route; GET /openapi.json lists them"), request.url.path)
    reply = reply_at(InvalidRequest(f"{path}: {error.detail}"), request.url.path)
    reply.status_code = error.status_code
    if error.status_code == 405:
        # Starlette knows the methods of the first route of this path only.
        found = (route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE)
        reply.headers["allow"] = ", ".join(sorted({method for route in found for method in route.methods}))
    return reply
