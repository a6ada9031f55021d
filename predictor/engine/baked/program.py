"""A package ready to be called: where its inputs are put together, and its rehearsal. Imports no numpy."""

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from predictor.engine.baked.cuda import Cuda
from predictor.engine.baked.device import Array, Device, Memory
from predictor.engine.baked.graph import Graph, capture
from predictor.engine.baked.libtorch import Input, Libtorch, Package, Tensor
from predictor.engine.baked.manifest import ITEM_SIZES, Dtype, Kind
from predictor.engine.baked.manifest import Package as Recipe
from predictor.engine.baked.native import DeviceName, LibtorchError

SCALARS = 8  # of a row: six coefficients of its sampler, timestep, guidance scale


@dataclass(frozen=True)
class Geometry:
    """What every package of a bundle agrees on."""

    channels: int  # of the latents
    scale: int  # pixels per latent
    dtype: Dtype  # of the text's hidden states
    tokens: int
    encoders: int  # text encoders: 1, or 2 for SDXL
    width: int  # of the hidden states
    pooled: int  # width of SDXL's pooled text, or 0

    def latents_shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        """Of one image of `size` pixels: channels, height, width."""
        return self.channels, size[0] // self.scale, size[1] // self.scale

    def latents_bytes(self, size: tuple[int, int]) -> int:
        """Of one image; float32."""
        channels, height, width = self.latents_shape(size)
        return 4 * channels * height * width

    @property
    def hidden_bytes(self) -> int:
        """Of one prompt's hidden states."""
        return ITEM_SIZES[self.dtype] * self.tokens * self.width

    @property
    def pooled_bytes(self) -> int:
        """Of one prompt's pooled text."""
        return ITEM_SIZES[self.dtype] * self.pooled


class Shape(NamedTuple):
    """Of a call: images and, for a step, evaluations of the UNet, which are one or two for each."""

    images: int
    evaluations: int


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """Some device memory, and what keeps it alive."""

    address: int
    owner: Tensor | Memory


class Program:
    """A package and the memory in which its inputs are put together. One thread calls it at a time."""

    def __init__(self, recipe: Recipe, package: Package, torch: Libtorch, device: Device, geometry: Geometry) -> None:
        self.recipe, self.package, self.torch, self.device, self.geometry = recipe, package, torch, device, geometry
        self._staging: dict[str, Memory] = {}
        self._graph: Graph | None = None

    def run(self, *inputs: Input) -> "Sequence[Tensor | Memory]":
        """Outputs; on a GPU they are there when the calling thread's stream has come this far."""
        if self._graph:
            return self._graph.run(inputs)
        handles: list[int] = []
        try:
            for address, dtype, shape in inputs:
                handles.append(self.torch.wrap(address, dtype, shape))
        except Exception:
            for handle in handles:
                self.torch.release(handle)
            raise
        return self.package.run(handles, self.device.stream)

    def prompts(self, hidden: int, pooled: int, count: int) -> list[Input]:
        """The step's inputs that describe the text, for `count` evaluations."""
        geometry = self.geometry
        inputs: list[Input] = [(hidden, geometry.dtype, (count, geometry.tokens, geometry.width))]
        return inputs + ([(pooled, geometry.dtype, (count, geometry.pooled))] if geometry.pooled else [])

    def staging(self, name: str, size: int) -> int:
        """Address of this input's place, at least `size` bytes."""
        if name not in self._staging or self._staging[name].size < size:
            self._staging[name] = self.device.allocate(size)
        return self._staging[name].address

    def together(self, name: str, parts: "Sequence[Slice | Array | None]", size: int) -> int:
        """`parts` of `size` bytes one after the other: where they are, if they are; None stands for zeros."""
        first = parts[0]
        if isinstance(first, Slice) and all(
            isinstance(part, Slice) and part.owner is first.owner and part.address == first.address + number * size
            for number, part in enumerate(parts)
        ):
            return first.address
        place = self.staging(name, size * len(parts))
        for number, part in enumerate(parts):
            if part is None:
                self.device.clear(place + number * size, size)
            elif isinstance(part, Slice):
                self.device.copy(place + number * size, part.address, size)
            else:
                self.device.upload(place + number * size, part)
        return place

    @property
    def least(self) -> Shape:
        """The smallest call that the package takes."""
        return Shape(self.recipe.images[0], self.recipe.evaluations[0])

    def rehearse(self, shape: Shape) -> None:
        """Run on zeros, so that the first real call of this shape finds kernels loaded and memory allocated."""
        kinds = self._inputs(shape)
        blank = self.device.allocate(max(math.prod(dims) * ITEM_SIZES[dtype] for dtype, dims in kinds))
        self.device.clear(blank.address, blank.size)
        self.run(*((blank.address, dtype, dims) for dtype, dims in kinds))
        self.device.wait()

    def capture(self) -> None:
        """From now on replay a graph instead; for a rehearsed step that takes one number of images and no other.

        Raises:
            LibtorchError: it cannot be done; says how to do without.
        """
        assert isinstance(self.device, Cuda)
        size = self.geometry.latents_bytes((self.recipe.height, self.recipe.width)) * self.recipe.images[0]
        try:
            self._graph = capture(
                self.device, self.torch, self.package, [(0, *kind) for kind in self._inputs(self.least)], size
            )
        except LibtorchError as error:
            raise type(error)(f"CUDA graph of {self.recipe.name}: {error}; --cuda-graphs false does without") from error
        self.device.wait()

    def _inputs(self, shape: Shape) -> list[tuple[Dtype, Sequence[int]]]:
        """Dtype and dimensions of each input of such a call."""
        recipe, geometry = self.recipe, self.geometry
        images, evaluations = shape
        latents: tuple[Dtype, Sequence[int]] = (
            "float32",
            (images, *geometry.latents_shape((recipe.height, recipe.width))),
        )
        if recipe.kind == "text":
            return [("int64", (1, geometry.tokens))] * geometry.encoders
        if recipe.kind == "step":
            prompts = [(dtype, shape) for _, dtype, shape in self.prompts(0, 0, evaluations)]
            index: tuple[Dtype, Sequence[int]] = ("int64", (images,))
            scalars: tuple[Dtype, Sequence[int]] = ("float32", (images, SCALARS))
            return [*[latents] * 3, scalars, *prompts, ("int64", (evaluations,)), index, index]
        return [latents]


class Programs:
    """A bundle's packages, each opened once: ahead of time, or when it is first needed.

    On a GPU each kind of package has a thread of its own, in which it is opened, rehearsed and run: cuDNN's plans and
    cuBLAS's handles belong to a thread, torch's memory to the thread's stream, and a rehearsal elsewhere prepares
    nothing. Packages for several images have another, so that theirs hold up nobody. The CPU has one thread for all, or
    each would bring along its own team of OpenMP threads.
    """

    def __init__(self, recipes: Iterable[Recipe], device: DeviceName, opener: Callable[[Recipe], Program]) -> None:
        self.recipes = tuple(recipes)
        self._opener = opener
        self._opened: dict[str, Future[Program]] = {}
        lanes = {recipe.name: "cpu" if device == "cpu" else _lane(recipe) for recipe in self.recipes}
        threads = {lane: ThreadPoolExecutor(1, thread_name_prefix=lane) for lane in {*lanes.values()}}
        self._threads = {name: threads[lane] for name, lane in lanes.items()}

    def thread(self, recipe: Recipe) -> ThreadPoolExecutor:
        """Where the package is opened and run."""
        return self._threads[recipe.name]

    def begin(self, recipe: Recipe) -> "Future[Program]":
        """Open it in its thread, unless that has begun."""
        if recipe.name not in self._opened:
            self._opened[recipe.name] = self.thread(recipe).submit(self._opener, recipe)
        return self._opened[recipe.name]

    def rehearse(self, recipe: Recipe, shape: Shape) -> "Future[None]":
        """Open it, and rehearse this shape, in its thread."""
        opened = self.begin(recipe)
        return self.thread(recipe).submit(lambda: opened.result().rehearse(shape))

    def best(self, kind: Kind, size: tuple[int, int], images: int) -> Recipe:
        """For this many images: the smallest package that takes them, or else the largest."""
        fitting = [r for r in self.recipes if r.kind == kind and (r.height, r.width) == size]
        enough = [recipe for recipe in fitting if recipe.images[1] >= images]
        if enough:
            return min(enough, key=lambda recipe: recipe.images[1])
        return max(fitting, key=lambda recipe: recipe.images[1])


def _lane(recipe: Recipe) -> str:
    return recipe.kind if recipe.images[1] == 1 else f"{recipe.kind}-many"
