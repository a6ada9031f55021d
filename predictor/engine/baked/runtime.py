"""The runtime on compiled packages: device memory by address, one native call per step.

A row's latents and its denoised estimate are slices of the last call's outputs; rows that come back in the same
company are used where they are, and only newcomers and regrouped rows are copied together.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Concatenate, ParamSpec, TypeVar

import numpy as np

from predictor.engine.baked.batches import Batches
from predictor.engine.baked.device import Array, Device, Memory
from predictor.engine.baked.libtorch import Input, NoMemory
from predictor.engine.baked.manifest import Package as Recipe
from predictor.engine.baked.program import SCALARS, Geometry, Program, Programs, Shape, Slice
from predictor.engine.runtime import DeviceFull, Embedding, Floats, Pixels, State, StepRow, Tokens
from predictor.engine.samplers import Column

ALIGNMENT = 256  # of an input; an unaligned one would be copied by every call
assert len(Column) + 2 == SCALARS

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, eq=False)
class _Embedding:
    hidden: Slice
    pooled: Slice | None


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    latents: Slice
    denoised: Slice
    size: tuple[int, int]  # pixels: height, width


def _device_full(call: Callable[P, R]) -> Callable[P, R]:
    """Turn NoMemory of a method into `DeviceFull`."""

    @functools.wraps(call)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return call(*args, **kwargs)
        except NoMemory as error:
            raise DeviceFull(str(error).splitlines()[0]) from None

    return guarded


class BakedRuntime:
    """`Runtime` on opened packages."""

    def __init__(self, device: Device, geometry: Geometry, programs: Programs, weights: Memory) -> None:
        self.device, self.geometry, self.programs = device, geometry, programs
        self.weights = weights  # the packages hold its address alone
        self._batches: dict[str, Batches] = {}
        self._last: Recipe | None = None  # whose thread may have work outstanding

    @_device_full
    def encode(self, prompts: list[Tokens | None]) -> list[Embedding]:
        """Hidden states per prompt and, for SDXL, its pooled text; zeros where there is no prompt."""
        return self._run(self.programs.best("text", (0, 0), 1), self._encode, prompts)

    @_device_full
    def step(self, rows: list[StepRow]) -> list[State]:
        """One call for all rows; a row whose guidance is off costs one evaluation of the UNet instead of two."""
        size = self._size(rows[0])
        recipe = self.programs.best("step", size, len(rows))
        shape = Shape(len(rows), sum(2 if _guided(row) else 1 for row in rows))
        if recipe.images[1] == 1 or self.device.name == "cpu":
            return self._run(recipe, self._step, rows, size, shape)
        batches = self._batches.setdefault(recipe.name, Batches(self.programs, recipe))
        rehearsed = batches.ready(*shape)
        if rehearsed:
            return self._run(recipe, self._step, rows, size, rehearsed)
        self._settle()
        batches.one_by_one(*shape)
        return self._run(self.programs.best("step", size, 1), self._step_singly, rows, size)

    def denoised(self, state: State) -> Floats:
        """The last estimate of the finished latents, float32 [channels, height/8, width/8]."""
        own = _own(state)
        latents = np.empty(self.geometry.latents_shape(own.size), np.float32)
        assert self._last is not None
        self._run(self._last, self._download, own.denoised.address, latents)
        return latents

    @_device_full
    def decode(self, states: list[State]) -> list[Pixels]:
        """Latents → uint8 [height, width, 3], as many at once as the package takes."""
        pictures: list[Pixels] = []
        left = [_own(state) for state in states]
        while left:
            size = left[0].size
            recipe = self.programs.best("decode", size, len(left))
            count = min(len(left), recipe.images[1])
            now, left = left[:count], left[count:]
            now += now[-1:] * (recipe.images[0] - count)
            latents = [state.latents for state in now]
            pictures += list(self._run(recipe, self._pixels, latents, size, size)[:count])
        return pictures

    def picture(self, latents: Floats) -> Pixels:
        """A denoised estimate → a small picture, uint8 [height/8, width/8, 3]."""
        small = latents.shape[1], latents.shape[2]
        size = small[0] * self.geometry.scale, small[1] * self.geometry.scale
        picture: Pixels = self._run(self.programs.best("preview", size, 1), self._pixels, [latents], size, small)[0]
        return picture

    def capacity(self, height: int, width: int) -> int:
        """Rows of this size (pixels) that a package takes at once; `DeviceFull` tells if memory allows fewer."""
        steps = [recipe for recipe in self.programs.recipes if recipe.kind == "step"]
        return max((r.images[1] for r in steps if (r.height, r.width) == (height, width)), default=0)

    def _run(self, recipe: Recipe, work: Callable[Concatenate[Program, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """`work` with a package, in its thread, when what other threads have queued on the device is done.

        So results may be read by another package, and memory that it still reads may make room.
        """
        thread = self.programs.thread(recipe)
        if self._last is not None and self.programs.thread(self._last) is not thread:
            self._settle()
        self._last = recipe
        program = self.programs.begin(recipe).result()
        return thread.submit(work, program, *args, **kwargs).result()

    def _settle(self) -> None:
        """Until everything that was asked for is done."""
        if self._last is not None:
            self.programs.thread(self._last).submit(self.device.wait).result()
            self._last = None

    def _download(self, _: Program, source: int, array: Floats) -> None:
        self.device.download(source, array)

    def _step_singly(self, program: Program, rows: list[StepRow], size: tuple[int, int]) -> list[State]:
        states = [state for row in rows for state in self._step(program, [row], size, program.least)]
        self.device.wait()  # the rehearsal that goes on may get the memory that these calls have read
        return states

    def _encode(self, program: Program, prompts: list[Tokens | None]) -> list[Embedding]:
        embeddings = [Embedding(self._zeros() if ids is None else self._encoded(program, ids)) for ids in prompts]
        self.device.wait()
        return embeddings

    def _step(self, program: Program, rows: list[StepRow], size: tuple[int, int], shape: Shape) -> list[State]:
        """With a call of this shape, or a larger one where the package takes none so small."""
        following, denoised = program.run(*self._step_inputs(program, rows, size, shape))
        self.device.keep_up()
        stride = self.geometry.latents_bytes(size)
        return [
            State(
                _State(
                    Slice(following.address + row * stride, following),
                    Slice(denoised.address + row * stride, denoised),
                    size,
                )
            )
            for row in range(len(rows))
        ]

    def _pixels(
        self, program: Program, latents: Sequence[Slice | Floats], size: tuple[int, int], shown: tuple[int, int]
    ) -> Pixels:
        """Latents of pictures of `size` → uint8 [images, height, width, 3] with the height and width `shown`."""
        address = program.together("latents", latents, self.geometry.latents_bytes(size))
        (levels,) = program.run((address, "float32", (len(latents), *self.geometry.latents_shape(size))))
        pixels = np.empty((len(latents), *shown, 3), np.uint8)
        self.device.download(levels.address, pixels)
        return pixels

    def _step_inputs(self, program: Program, rows: list[StepRow], size: tuple[int, int], shape: Shape) -> list[Input]:
        rows = rows + rows[-1:] * (max(shape.images, program.least.images) - len(rows))
        images, positive, negative = _evaluations([_guided(row) for row in rows])
        prompts = [
            _own_embedding(rows[image].negative if guided else rows[image].embedding)
            for number, image in enumerate(images)
            for guided in [number == negative[image] != positive[image]]
        ]
        missing = max(0, max(shape.evaluations, program.least.evaluations) - len(images))
        images += images[-1:] * missing
        prompts += prompts[-1:] * missing

        states = [None if isinstance(row.state, np.ndarray) else _own(row.state) for row in rows]
        stride, dims = self.geometry.latents_bytes(size), (len(rows), *self.geometry.latents_shape(size))
        latents = program.together(
            "latents",
            [
                state.latents if state else np.asarray(row.state, np.float32)
                for state, row in zip(states, rows, strict=True)
            ],
            stride,
        )
        denoised = program.together("denoised", [state.denoised if state else None for state in states], stride)
        noise = program.together("noise", [row.noise for row in rows], stride)
        scalars = np.array([[*row.coefficients, row.timestep, row.guidance_scale] for row in rows], np.float32)
        small = self._small(program, scalars, *(np.array(index, np.int64) for index in (images, positive, negative)))
        hidden = program.together("hidden", [prompt.hidden for prompt in prompts], self.geometry.hidden_bytes)
        pooled = 0
        if self.geometry.pooled:
            pooled = program.together("pooled", [prompt.pooled for prompt in prompts], self.geometry.pooled_bytes)
        return [
            (latents, "float32", dims),
            (denoised, "float32", dims),
            (noise, "float32", dims),
            (small[0], "float32", scalars.shape),
            *program.prompts(hidden, pooled, len(prompts)),
            (small[1], "int64", (len(images),)),
            (small[2], "int64", (len(rows),)),
            (small[3], "int64", (len(rows),)),
        ]

    def _small(self, program: Program, *arrays: Array) -> list[int]:
        """Upload small arrays in one piece; their addresses."""
        places, end = [], 0
        for array in arrays:
            places.append(end)
            end += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
        joined = np.zeros(end, np.uint8)
        for place, array in zip(places, arrays, strict=True):
            joined[place : place + array.nbytes] = np.frombuffer(array.tobytes(), np.uint8)
        base = program.staging("small", end)
        self.device.upload(base, joined)
        return [base + place for place in places]

    def _encoded(self, program: Program, prompt: Tokens) -> _Embedding:
        places = self._small(program, *prompt)
        outputs = program.run(*[(place, "int64", (1, self.geometry.tokens)) for place in places])
        slices = [Slice(output.address, output) for output in outputs]
        return _Embedding(slices[0], slices[1] if self.geometry.pooled else None)

    def _zeros(self) -> _Embedding:
        hidden = self.device.allocate(self.geometry.hidden_bytes + self.geometry.pooled_bytes)
        self.device.clear(hidden.address, hidden.size)
        pooled = Slice(hidden.address + self.geometry.hidden_bytes, hidden) if self.geometry.pooled else None
        return _Embedding(Slice(hidden.address, hidden), pooled)

    def _size(self, row: StepRow) -> tuple[int, int]:
        if isinstance(row.state, np.ndarray):
            return row.state.shape[1] * self.geometry.scale, row.state.shape[2] * self.geometry.scale
        return _own(row.state).size


def _guided(row: StepRow) -> bool:
    return row.guidance_scale != 1.0


def _evaluations(guided: Sequence[bool]) -> tuple[list[int], list[int], list[int]]:
    """Which image each evaluation of the UNet is for; and each image's evaluations with and without the prompt."""
    images: list[int] = []
    positive: list[int] = []
    negative: list[int] = []
    for image, twice in enumerate(guided):
        positive.append(len(images))
        images.append(image)
        if twice:
            images.append(image)
        negative.append(len(images) - 1)
    return images, positive, negative


def _own(state: State) -> _State:
    assert isinstance(state, _State)
    return state


def _own_embedding(embedding: Embedding) -> _Embedding:
    assert isinstance(embedding, _Embedding)
    return embedding
