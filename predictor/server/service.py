"""One request from plain fields to its answer, the same for every dialect."""

import secrets
import time
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np

from predictor import clock
from predictor.asgi.journal import Entry, Journal
from predictor.asgi.tracing import Tracer
from predictor.core.fingerprint import fingerprint
from predictor.core.messages import Accepted
from predictor.core.problems import Draining, EngineLost
from predictor.core.request import Capabilities, ImageEncoding, resolve
from predictor.core.tensors import Scalar, Tensor, answer_tensors
from predictor.core.timeline import phases, server_timing
from predictor.server.coldstart import ColdStart
from predictor.server.flights import Pictures, Progress
from predictor.server.images import Packer
from predictor.server.link import EngineLink

OF_REQUESTS = ("first_request", "first_image")  # marks that are no part of a start


@dataclass(frozen=True)
class Answer:
    """A finished request: the tensors that it wanted, what else it should know, and where its time went."""

    tensors: list[Tensor]
    parameters: dict[str, Scalar]

    @property
    def server_timing(self) -> str:
        """Seconds by stage as a `Server-Timing` value."""
        return str(self.parameters["server_timing"])

    @property
    def cold_start(self) -> bool:
        """Whether the request came in before the engine had made its first picture."""
        return bool(self.parameters["cold_start"])


class Service:
    """What every dialect calls."""

    def __init__(
        self, link: EngineLink, coldstart: ColdStart, packer: Packer, journal: Journal, tracer: Tracer
    ) -> None:
        self.draining = False
        self._link = link
        self._coldstart = coldstart
        self._packer = packer
        self._journal = journal
        self._tracer = tracer
        self._told = 0.0  # seconds since boot; starts up to here are in some trace

    @property
    def ready(self) -> bool:
        """Whether a request would be taken now."""
        return self._link.capabilities is not None and not self.draining

    def capabilities(self) -> Capabilities:
        """What the loaded model can do.

        Raises:
            Draining: this process is ending.
            NotReady: no engine is ready.
        """
        if self.draining:
            raise Draining("this server is shutting down; another one answers", retry_after=1.0)
        if self._link.capabilities is None:
            raise self._link.not_ready()
        return self._link.capabilities

    async def generate(
        self,
        entry: Entry,
        fields: Mapping[str, object],
        outputs: Collection[str],
        *,
        stream: bool = False,
        previews: bool = False,
    ) -> AsyncGenerator[Accepted | Progress | Answer, None]:
        """Accepted, Progress if `stream`, and the Answer with the tensors named in `outputs`.

        Raises:
            Problem: why there is no answer.
        """
        began = time.monotonic()
        capabilities, cold = self.capabilities(), self._link.cold
        request, encoding = resolve(fields, capabilities, secrets.randbelow(2**32))
        self._journal.resolved(entry, request)
        self._tracer.describe(request)
        tokens = Accepted("", 0, 0)
        async with aclosing(self._link.generate(request, progress=stream, previews=previews)) as updates:
            async for update in updates:
                match update:
                    case Pictures():
                        break
                    case Accepted():
                        tokens = update
                        yield update
                    case _:
                        yield update
            else:
                raise EngineLost("the engine ended the request without a word", retry_after=1.0)
        packing = time.monotonic()
        files = await self._packer.pack(update.pixels, encoding) if "image" in outputs else []
        timing, ended = update.timing, time.monotonic()
        entry.facts |= {"cold_start": cold, "gpu_seconds": round(timing.gpu, 4)}
        stages = [(stage, getattr(timing, stage)) for stage in ("queue", "encode", "denoise", "decode")]
        stages.append(("pack", ended - packing))
        self._tracer.stages(stages)
        self._tracer.tell({"faas.coldstart": cold, "sdzero.gpu_seconds": timing.gpu})
        if cold:
            self._tell_start()
        stages.append(("total", ended - began))
        yield Answer(
            answer_tensors(
                request,
                outputs,
                files=files,
                pixels=np.stack(update.pixels) if "generated_image" in outputs else None,
                prompt_tokens=tokens.prompt_tokens,
            ),
            {
                "cold_start": cold,
                "model_revision": capabilities.revision,
                "fingerprint": fingerprint(request, capabilities.revision),
                "negative_prompt_tokens": tokens.negative_prompt_tokens,
                "gpu_seconds": timing.gpu,
                "server_timing": server_timing(stages + (self._coldstart.durations() if cold else [])),
            },
        )

    def _tell_start(self) -> None:
        """Put into the trace of this request what no trace has yet of the start that it came into."""
        marks = self._coldstart.marks
        zero = marks[0].at
        # Its own waiting and its own pictures are in its trace already.
        new = [p for p in phases(marks) if p.name not in OF_REQUESTS and zero + p.start + p.seconds > self._told]
        self._told = max((zero + p.start + p.seconds for p in new), default=self._told)
        self._tracer.cold_start(new, time.time() - (clock.now() - zero))

    async def pack_previews(self, progress: Progress) -> list[str]:
        """Base64 text of a PNG file per preview."""
        return [file.decode() for file in await self._packer.pack(progress.previews, ImageEncoding())]
