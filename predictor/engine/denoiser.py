"""Requests → pictures, one device call at a time: schedule, samplers, noise and runtime put to work together.

No thread, no socket and no clock of its own: whoever owns it calls `advance` while it is busy and sends what comes out.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from predictor.core.messages import Accepted, Ended, Finished, FromEngine, Generate, Progressed, Stepped, Timing
from predictor.core.problems import DeadlineExceeded, InternalError, InvalidField, OutOfMemory, Problem
from predictor.core.request import too_many_tokens
from predictor.engine.noise import gaussian
from predictor.engine.preview import Previewer
from predictor.engine.runtime import DeviceFull, Embedding, Floats, Pixels, Runtime, State, StepRow, Tokens
from predictor.engine.samplers import Column, NoiseSchedule, Table, table
from predictor.engine.schedule import Row, Schedule
from predictor.engine.tokens import PromptTooLong, Tokenizer

log = logging.getLogger(__name__)

Event = tuple[FromEngine, list[Pixels]]
KEPT_EMBEDDINGS = 64  # the empty negative prompt above all; 64 of SDXL's are 40 MB


@dataclass(slots=True, eq=False)
class _Job:
    """A request between its arrival and its last picture."""

    message: Generate
    prompts: tuple[Tokens | None, Tokens | None]  # prompt, negative
    table: Table
    arrived: float
    rows: list[Row]
    states: list[State | Floats]
    embeddings: tuple[Embedding, Embedding] | None = None
    pictures: dict[int, Pixels] = field(default_factory=dict)
    reported: int = 0
    started: float = 0.0  # first step
    encode: float = 0.0
    decode: float = 0.0
    gpu: float = 0.0


class Denoiser:
    """Continuous batching of requests over one runtime.

    `now` gives seconds on the pod's clock; `channels` and `scale` are the latents' geometry (channels, pixels per
    latent); `zero_empty_prompt` is for models that were trained with zeros in place of an empty prompt.
    """

    def __init__(
        self,
        runtime: Runtime,
        tokenizers: list[Tokenizer],
        noise_schedule: NoiseSchedule,
        previewer: Previewer,
        *,
        channels: int,
        scale: int,
        zero_empty_prompt: bool,
        max_rows: int,
        now: Callable[[], float],
    ) -> None:
        self.runtime, self.tokenizers, self.noise_schedule, self.previewer = (
            runtime,
            tokenizers,
            noise_schedule,
            previewer,
        )
        self.channels, self.scale, self.zero_empty_prompt, self.now = channels, scale, zero_empty_prompt, now
        self.schedule = Schedule(max_rows)
        self.jobs: dict[str, _Job] = {}
        self.embeddings: OrderedDict[bytes, Embedding] = OrderedDict()
        self.failed_before = False

    @property
    def busy(self) -> bool:
        """Whether `advance` has anything to do."""
        return bool(self.jobs)

    def add(self, message: Generate) -> list[Event]:
        """Take a request in, or say at once why not."""
        request = message.request
        try:
            prompt, used = self._tokens("prompt", request.prompt, request.truncate_prompt)
            negative, negative_used = self._tokens("negative_prompt", request.negative_prompt, request.truncate_prompt)
            try:
                steps = table(request.sampler, request.steps, self.noise_schedule)
            except ValueError as error:
                raise InvalidField(f"steps: {error}", field="steps") from None
        except Problem as problem:
            return [(Ended(message.id, problem.record()), [])]
        size = (request.height, request.width)
        rows = [Row(message.id, index, size, request.steps) for index in range(request.num_images)]
        shape = (self.channels, request.height // self.scale, request.width // self.scale)
        states: list[State | Floats] = [
            gaussian(seed, 0, shape) * np.float32(steps.initial_scale) for seed in request.seeds
        ]
        self.jobs[message.id] = _Job(message, (prompt, negative), steps, self.now(), rows, states)
        self.schedule.lower(size, max(1, self.runtime.capacity(*size)))
        self.schedule.add(rows)
        return [(Accepted(message.id, used, negative_used), [])]

    def end(self, id: str, problem: Problem) -> list[Event]:
        """Take a request out before its time; nothing if it is not here."""
        if id not in self.jobs:
            return []
        self.schedule.drop(id)
        del self.jobs[id]
        return [(Ended(id, problem.record()), [])]

    def advance(self) -> list[Event]:
        """One step of one batch, and the decoding of the rows that it completed."""
        events = self._expire()
        rows = self.schedule.next_rows()
        if not rows:
            return events
        try:
            events += self._encode(rows)
            events += self._step(rows)
            done = self.schedule.advance(rows)
            events += self._progress(rows)
            events += self._decode(done) if done else []
            self.failed_before = False
        except DeviceFull as full:
            events += self._split(rows, full)
        except Exception:
            # One call that fails may be the request's fault; two in a row are the device's, and the process ends.
            if self.failed_before:
                raise
            self.failed_before = True
            log.exception("a device call failed")
            for id in {row.request for row in rows}:
                events += self.end(id, InternalError("the engine failed on a batch that held this request"))
        return events

    def _tokens(self, name: str, text: str, truncate: bool) -> tuple[Tokens | None, int]:
        try:
            encoded = [tokenizer.encode(text, truncate=truncate) for tokenizer in self.tokenizers]
        except PromptTooLong as long:
            raise too_many_tokens(name, long.used, long.limit) from None
        used = encoded[0].used
        if self.zero_empty_prompt and not used:
            return None, 0
        return tuple(tokens.ids for tokens in encoded), used

    def _expire(self) -> list[Event]:
        late = [id for id, job in self.jobs.items() if job.message.deadline <= self.now()]
        return [
            event
            for id in late
            for event in self.end(id, DeadlineExceeded("the request's time ran out before its images were done"))
        ]

    def _encode(self, rows: list[Row]) -> list[Event]:
        new = {row.request: self.jobs[row.request] for row in rows if self.jobs[row.request].embeddings is None}
        if not new:
            return []
        begun = self.now()
        wanted = {_key(prompt): prompt for job in new.values() for prompt in job.prompts}
        missing = [key for key in wanted if key not in self.embeddings]
        if missing:
            encoded = self.runtime.encode([wanted[key] for key in missing])
            self.embeddings.update(zip(missing, encoded, strict=True))
        seconds = self.now() - begun
        for job in new.values():
            prompt, negative = (self._kept(_key(prompt)) for prompt in job.prompts)
            job.embeddings = (prompt, negative)
            job.started = begun
            job.encode = seconds
            job.gpu += seconds / len(new)
        while len(self.embeddings) > KEPT_EMBEDDINGS:
            self.embeddings.popitem(last=False)
        return [(Stepped("encode", len(missing), seconds), [])] if missing else []

    def _kept(self, key: bytes) -> Embedding:
        self.embeddings.move_to_end(key)
        return self.embeddings[key]

    def _step(self, rows: list[Row]) -> list[Event]:
        begun = self.now()
        states = self.runtime.step([self._step_row(row) for row in rows])
        seconds = self.now() - begun
        for row, state in zip(rows, states, strict=True):
            job = self.jobs[row.request]
            job.states[row.index] = state
            job.gpu += seconds / len(rows)
        return [(Stepped("step", len(rows), seconds), [])]

    def _step_row(self, row: Row) -> StepRow:
        job = self.jobs[row.request]
        assert job.embeddings is not None
        coefficients = job.table.coefficients[row.step]
        noise = None
        if coefficients[Column.NOISE]:
            shape = (self.channels, row.size[0] // self.scale, row.size[1] // self.scale)
            noise = gaussian(job.message.request.seeds[row.index], row.step + 1, shape)
        return StepRow(
            state=job.states[row.index],
            embedding=job.embeddings[0],
            negative=job.embeddings[1],
            timestep=float(job.table.timesteps[row.step]),
            guidance_scale=job.message.request.guidance_scale,
            coefficients=coefficients,
            noise=noise,
        )

    def _progress(self, rows: list[Row]) -> list[Event]:
        events: list[Event] = []
        for id in {row.request: None for row in rows}:
            job = self.jobs[id]
            step = min(row.step for row in job.rows)
            if not job.message.progress or step == job.reported:
                continue
            job.reported = step
            pictures: list[Pixels] = []
            if job.message.previews:
                pictures = [self.previewer.picture(self.runtime.denoised(_stepped(state))) for state in job.states]
            height, width = pictures[0].shape[:2] if pictures else (0, 0)
            events.append((Progressed(id, step, job.message.request.steps, height, width), pictures))
        return events

    def _decode(self, done: list[Row]) -> list[Event]:
        begun = self.now()
        try:
            pictures = self.runtime.decode([_stepped(self.jobs[row.request].states[row.index]) for row in done])
        except DeviceFull as full:
            # These rows have left the schedule: one by one they either fit now or end here.
            if len(done) > 1:
                return [event for row in done if row.request in self.jobs for event in self._decode([row])]
            return self.end(done[0].request, _out_of_memory(full))
        seconds = self.now() - begun
        events: list[Event] = [(Stepped("decode", len(done), seconds), [])]
        for row, picture in zip(done, pictures, strict=True):
            job = self.jobs[row.request]
            job.pictures[row.index] = picture
            job.gpu += seconds / len(done)
        for id in {row.request: None for row in done}:
            job = self.jobs[id]
            job.decode += seconds
            if len(job.pictures) == len(job.rows):
                del self.jobs[id]
                events.append(self._finished(job))
        return events

    def _finished(self, job: _Job) -> Event:
        queue = job.started - job.arrived
        denoise = self.now() - job.started - job.encode - job.decode
        timing = Timing(queue=queue, encode=job.encode, denoise=denoise, decode=job.decode, gpu=job.gpu)
        pictures = [job.pictures[index] for index in range(len(job.rows))]
        return Finished(job.message.id, job.message.request.seeds, timing), pictures

    def _split(self, rows: list[Row], full: DeviceFull) -> list[Event]:
        if len(rows) > 1:
            self.schedule.lower(rows[0].size, len(rows) // 2)
            return []
        return self.end(rows[0].request, _out_of_memory(full))


def _out_of_memory(full: DeviceFull) -> OutOfMemory:
    return OutOfMemory(f"the device had no memory for this image: {full}", retry_after=5.0)


def _stepped(state: State | Floats) -> State:
    assert not isinstance(state, np.ndarray), "a row is decoded only after its first step"
    return state


def _key(prompt: Tokens | None) -> bytes:
    return b"" if prompt is None else b"".join(ids.tobytes() for ids in prompt)
