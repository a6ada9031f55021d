"""The composition root of the server process."""

import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import Any

from predictor import clock
from predictor.core.timeline import START, Mark
from predictor.server.process import ENGINE, EngineProcess, spawn
from predictor.settings import EngineSettings, ServerSettings

# What closing may take at the end of the grace period: once for HTTP, once for gRPC, once for the last traces.
FLUSH_SECONDS = 2.0


def main(engine: EngineSettings, server: ServerSettings, command: Sequence[str] = ENGINE) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code: 0, or 1 if the engine could not be kept alive.

    Args:
        engine: passed on to the engine process.
        server: this process's own.
        command: starts an engine; `--address` and `--settings` are appended.
    """
    # The first process of a container ignores a signal that it does not handle.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    marks = [Mark("server", START, clock.process_start()), Mark("server", "interpreter", clock.now())]
    running = spawn(engine, command)
    try:
        return _serve(engine, server, command, running, marks)
    finally:
        running.stop(patience=0.0)


def _serve(
    engine: EngineSettings, server: ServerSettings, command: Sequence[str], running: EngineProcess, marks: list[Mark]
) -> int:
    # KServe parses the command line at import, and takes these two settings from nowhere else.
    sys.argv = [
        sys.argv[0],
        "--configure_logging=false",
        "--grpc_max_send_message_length=-1",
        f"--grpc_max_receive_message_length={server.max_body_bytes}",
    ]
    # Looking for pydantic's plugins reads the metadata of every installed package; they watch what is not used here.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from predictor.server.imports import only_what_is_spoken, only_what_serves

    # Everything slow is imported from here on, while the engine starts.
    with only_what_serves():
        from predictor.asgi import logs

        logs.configure(server.log_level)
        from kserve.model_repository import ModelRepository
        from kserve.model_server import ModelServer, app
        from prometheus_client import REGISTRY
        from starlette.exceptions import HTTPException

        from predictor.asgi.access import Access
        from predictor.asgi.journal import Journal
        from predictor.asgi.replies import problem_reply
        from predictor.asgi.tracing import Tracer
        from predictor.core.problems import Problem
        from predictor.server.coldstart import ColdStart
        from predictor.server.images import Packer
        from predictor.server.lifecycle import SIGNALS, Lifecycle
        from predictor.server.link import EngineLink
        from predictor.server.metrics import Metrics
        from predictor.server.model import ClosedRepository, ServedModel, TruthfulDataPlane
        from predictor.server.replies import on_http_exception, on_problem
        from predictor.server.routes import Rest
        from predictor.server.service import Service

    marks.append(Mark("server", "imports", clock.now(), since="interpreter"))
    metrics = Metrics(server.model_name, REGISTRY)
    coldstart = ColdStart(marks, metrics)
    link = EngineLink(server, running, lambda: spawn(engine, command), coldstart, metrics)
    packer = Packer(threads=min(4, os.cpu_count() or 1))
    journal = Journal(metrics.requested, server.log_prompts)
    tracer = Tracer("sdzero-predictor", server.model_name)
    service = Service(link, coldstart, packer, journal, tracer)
    flush = min(FLUSH_SECONDS, server.grace_seconds / 4)
    closings = 3 if tracer.on else 2
    lifecycle = Lifecycle(link, service, journal, coldstart, server.grace_seconds - closings * flush)

    drain: Any = nullcontext()
    if server.end_drain:
        from predictor.server.drain import ending

        drain = ending(journal)

    @asynccontextmanager
    async def lifespan(application: Any) -> AsyncIterator[None]:
        async with lifecycle.lifespan(application), drain:
            packer.warm()
            tracer.warm()
            yield

    rest = Rest(server.model_name, service, coldstart, journal, tracer, server.max_body_bytes)
    app.router.routes[:0] = rest.routes()
    app.router.lifespan_context = lifespan
    app.add_middleware(Access, reply=lambda problem, _: problem_reply(problem))
    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(HTTPException, on_http_exception)

    models = ModelRepository()
    kserve = ModelServer(
        http_port=server.http_port,
        grpc_port=server.grpc_port,
        enable_grpc=server.grpc_port != 0,
        registered_models=models,
        workers=1,
        max_threads=1,
        max_asyncio_workers=1,
        enable_docs_url=False,
        enable_latency_logging=False,
        access_log_format=None,
        event_loop="asyncio",
        timeout_keep_alive=65,
        grace_period=flush,
    )
    kserve.dataplane = TruthfulDataPlane(models, service)
    kserve.model_repository_extension = ClosedRepository(models)
    coldstart.once("assembled", since="imports")
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        with only_what_is_spoken():
            kserve.start([ServedModel(server.model_name, service, journal, tracer, lifecycle)])
    finally:
        packer.close()
        link.kill()
        tracer.close(flush)
    if lifecycle.failure is not None:
        print(f"sdzero: {lifecycle.failure}", file=sys.stderr)
        return 1
    return 0


def _leave(*_: object) -> None:
    raise SystemExit(0)
