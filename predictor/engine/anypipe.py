"""Any other diffusers text-to-image pipeline: one request at a time, with progress, cancellation and deadlines.

The pipeline runs in a thread that hands the device back after every step, so the engine's loop drives it exactly as it
drives the denoiser: `advance` lets it do one step.
"""

import inspect
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
import torch
import transformers

from predictor.core.messages import Accepted, Finished, Generate, Progressed, Stepped, Timing
from predictor.core.messages import Ended as EndedMessage
from predictor.core.problems import DeadlineExceeded, InternalError, OutOfMemory, Problem
from predictor.engine.denoiser import Event
from predictor.engine.folder import UNUSED, FolderError, ModelFolder
from predictor.engine.runtime import Pixels

log = logging.getLogger(__name__)


class _Stopped(Exception):
    """Unwinds a pipeline whose request has ended."""


class AnyPipe:
    """One diffusers pipeline behind the same four calls as `Denoiser`: `busy`, `add`, `end`, `advance`."""

    def __init__(self, pipe: Any, now: Callable[[], float]) -> None:
        self.pipe, self.now = pipe, now
        self.waiting: deque[tuple[Generate, float]] = deque()
        self.running: _Run | None = None

    @property
    def busy(self) -> bool:
        """Whether `advance` has anything to do."""
        return bool(self.waiting or self.running)

    def add(self, message: Generate) -> list[Event]:
        """Queue a request. Tokens are not counted: each pipeline has encoders and limits of its own."""
        self.waiting.append((message, self.now()))
        return [(Accepted(message.id, 0, 0), [])]

    def end(self, id: str, problem: Problem) -> list[Event]:
        """Take a request out before its time; nothing if it is not here."""
        if self.running and self.running.message.id == id:
            self.running.stop()
            self.running = None
        elif found := [entry for entry in self.waiting if entry[0].id == id]:
            self.waiting.remove(found[0])
        else:
            return []
        return [(EndedMessage(id, problem.record()), [])]

    def advance(self) -> list[Event]:
        """One step of the request that runs, or the start of the next one."""
        ids = [message.id for message, _ in self.waiting if message.deadline <= self.now()]
        if self.running and self.running.message.deadline <= self.now():
            ids.append(self.running.message.id)
        late = DeadlineExceeded("the request's time ran out before its images were done")
        events = [event for id in ids for event in self.end(id, late)]
        if self.running is None and self.waiting:
            self.running = _Run(self.pipe, *self.waiting.popleft(), self.now)
        if self.running:
            step, done = self.running.advance()
            events += step
            if done:
                self.running = None
        return events


def opened(folder: ModelFolder, **given: Any) -> Any:
    """A folder's own pipeline; `given` are components of it, or options of `from_pretrained`."""
    # What the folder leaves out must be said again, and the safety checker is not for us to run.
    absent = {name: None for name in folder.index if name in UNUSED or folder.index[name] == [None, None]}
    return diffusers.DiffusionPipeline.from_pretrained(
        folder.path, use_safetensors=True, local_files_only=True, **absent, **given
    )


def weightless(folder: ModelFolder) -> dict[str, Any]:
    """The folder's models as torch has them on its device `meta`: every shape, and nothing read or allocated.

    Raises:
        FolderError: a model is of a class that neither diffusers nor transformers has.
    """
    models = {}
    for name in folder.models():
        library, kind = folder.index[name]
        known = {"diffusers": diffusers, "transformers": transformers}
        found = getattr(known.get(library) or getattr(diffusers.pipelines, library, None), kind, None)
        if found is None:
            raise FolderError(f"{folder.path / 'model_index.json'}: {name}: there is no class {library}.{kind}")
        with torch.device("meta"):
            models[name] = _of_config(found, folder, name)
    return models


def _of_config(kind: Any, folder: ModelFolder, name: str) -> Any:
    if issubclass(kind, diffusers.ConfigMixin):
        return kind.from_config(folder.config(name))
    return kind(kind.config_class.from_pretrained(folder.path / name))  # transformers has its own


def native_side(pipe: Any) -> int:
    """Pixels of the side that the pipeline itself would choose; 1024 is what today's large models were trained at."""
    return int(getattr(pipe, "default_sample_size", 1024 // 8) * getattr(pipe, "vae_scale_factor", 8))


def accepts(pipe: Any) -> tuple[str, ...]:
    """The request parameters that this pipeline's call takes, under our names."""
    named = inspect.signature(pipe.__call__).parameters
    ours = {"negative_prompt": "negative_prompt", "steps": "num_inference_steps", "guidance_scale": "guidance_scale"}
    ours |= {"height": "height", "width": "width", "seed": "generator"}
    found = [name for name, theirs in ours.items() if theirs in named]
    return ("prompt", *found, "num_images", "image_format", "image_quality")


class _Run:
    """One request in its thread; the two semaphores hand control back and forth, so only one side ever runs."""

    def __init__(self, pipe: Any, message: Generate, arrived: float, now: Callable[[], float]) -> None:
        self.pipe, self.message, self.now = pipe, message, now
        self.started, self.queued = now(), now() - arrived
        self.step = 0
        self.pictures: list[Pixels] = []
        self.error: BaseException | None = None
        self.stopped = False
        self.go, self.back = threading.Semaphore(0), threading.Semaphore(0)
        self.thread = threading.Thread(target=self._run, name=f"pipeline-{message.id}", daemon=True)
        self.thread.start()

    def advance(self) -> tuple[list[Event], bool]:
        """Let the pipeline go on to its next step; returns what happened and whether the request is done."""
        begun, before = self.now(), self.step
        self.go.release()
        self.back.acquire()
        events: list[Event] = [(Stepped("step", 1, self.now() - begun), [])]
        request = self.message.request
        if self.step > before and self.message.progress:
            events.append((Progressed(self.message.id, self.step, request.steps * request.num_images), []))
        if self.thread_ended:
            events += self._outcome()
        return events, self.thread_ended

    def stop(self) -> None:
        """Unwind the pipeline at its next callback and wait for it."""
        self.stopped = True
        self.go.release()
        self.thread.join()

    @property
    def thread_ended(self) -> bool:
        """Whether the pipeline has returned or failed."""
        return self.error is not None or len(self.pictures) == self.message.request.num_images

    def _outcome(self) -> list[Event]:
        if isinstance(self.error, torch.OutOfMemoryError):
            torch.cuda.empty_cache()
            full = OutOfMemory("the device had no memory for this image", retry_after=5.0)
            return [(EndedMessage(self.message.id, full.record()), [])]
        if self.error is not None:
            log.error("the pipeline failed", exc_info=self.error)
            problem = InternalError("the pipeline failed on this request")
            return [(EndedMessage(self.message.id, problem.record()), [])]
        seconds = self.now() - self.started
        timing = Timing(queue=self.queued, encode=0.0, denoise=seconds, decode=0.0, gpu=seconds)
        return [(Finished(self.message.id, self.message.request.seeds, timing), self.pictures)]

    def _run(self) -> None:
        self.go.acquire()
        try:
            if not self.stopped:
                for seed in self.message.request.seeds:
                    self.pictures.append(self._picture(seed))
        except _Stopped:
            pass
        except BaseException as error:
            self.error = error
        self.back.release()

    def _picture(self, seed: int) -> Pixels:
        request, named = self.message.request, inspect.signature(self.pipe.__call__).parameters
        arguments: dict[str, Any] = {
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt or None,
            "num_inference_steps": request.steps,
            "guidance_scale": request.guidance_scale,
            "height": request.height,
            "width": request.width,
            "generator": torch.Generator("cpu").manual_seed(seed),
            "output_type": "np",
            "callback_on_step_end": self._stepped,
        }
        out = self.pipe(**{name: value for name, value in arguments.items() if name in named}).images[0]
        return (np.asarray(out) * 255).round().clip(0, 255).astype(np.uint8)

    def _stepped(self, _pipe: Any, _step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        self.step += 1
        self.back.release()
        self.go.acquire()
        if self.stopped:
            raise _Stopped
        return tensors
