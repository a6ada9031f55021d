"""What a bundle needs before it can draw, begun before the engine has imported anything.

    readers    read and check weights ─────────────► ring ─► GPU
    opener     libraries ─► CUDA context ─┬─ open and rehearse the step ────────┐
               (file checksums beside)    ├─ … the decoder                      ├─► ready
                                          └─ … the text encoder, the preview ───┘
    main       numpy, tokenizers, zmq

A package is opened on memory that its weights have yet to reach: a rehearsal loads kernels and allocates, whatever
the numbers are. Imports neither numpy nor torch.
"""

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from predictor.clock import now
from predictor.core.timeline import START
from predictor.engine.baked.bundle import HASHERS, Bundle, BundleError
from predictor.engine.baked.cuda import Cuda
from predictor.engine.baked.device import Device, Host, Memory
from predictor.engine.baked.libtorch import Libtorch, Package
from predictor.engine.baked.machine import describe
from predictor.engine.baked.manifest import Manifest
from predictor.engine.baked.manifest import Package as Recipe
from predictor.engine.baked.native import DeviceName, LibtorchError, begin_context
from predictor.engine.baked.program import Geometry, Program, Programs
from predictor.engine.baked.ring import Ring
from predictor.engine.baked.stderr import stderr_tail
from predictor.engine.baked.weights import HostMemory, WeightStream
from predictor.engine.folder import ModelFolder
from predictor.settings import EngineSettings


@dataclass(frozen=True)
class Opened:
    """A bundle on its device: the packages that one image needs are rehearsed, the weights are there."""

    bundle: Bundle
    folder: ModelFolder
    device: Device
    geometry: Geometry
    programs: Programs
    weights: Memory


@dataclass
class Prelude:
    """Threads at work on `settings.bundle`; `result()` waits for them.

    `moments` are the marks so far: name, the mark at which the phase began, seconds since boot.
    """

    settings: EngineSettings
    moments: list[tuple[str, str, float]] = field(default_factory=list)
    _linked: threading.Event = field(default_factory=threading.Event)
    _opened: Future[Opened] = field(default_factory=Future)

    def begin(self) -> "Prelude":
        """Start, and return at once."""
        threading.Thread(target=self._run, name="prelude", daemon=True).start()
        return self

    def wait_linked(self) -> None:
        """Until the first package is open, or never will be.

        Python holds its lock while it opens an extension module, and that waits for the linker: whoever imports one
        before this stops all threads here.
        """
        self._linked.wait()

    def result(self) -> Opened:
        """Raises BundleError, or LibtorchError with the library's own message."""
        return self._opened.result()

    def _run(self) -> None:
        try:
            self._opened.set_result(self._open())
        except BaseException as error:
            self._opened.set_exception(error)
        finally:
            self._linked.set()

    def _open(self) -> Opened:
        bundle = Bundle.open(Path(self.settings.bundle))
        self._mark("bundle_opened", START)
        cuda = bundle.manifest.machine.device == "cuda"
        with ThreadPoolExecutor(thread_name_prefix="open") as pool:
            # Neither knows of the bundle yet; both take long.
            libraries = pool.submit(self._libtorch, bundle.manifest.machine.device)
            context = pool.submit(begin_context) if cuda else None
            checks = Checks(bundle)
            self._refuse_unfit(bundle)
            sink: Ring | HostMemory = Ring(bundle.index.chunk) if cuda else HostMemory(bundle.index.size)
            try:
                return self._open_on(bundle, checks, sink, pool, libraries, context)
            except BaseException as error:
                if isinstance(sink, Ring):
                    sink.stop(error)  # or its thread, and the pool with it, would wait for ever
                raise

    def _libtorch(self, device: DeviceName) -> Libtorch:
        torch = Libtorch(device, stderr_tail(), self.settings.threads)
        self._mark("libtorch", "bundle_opened")
        return torch

    def _open_on(
        self,
        bundle: Bundle,
        checks: "Checks",
        sink: Ring | HostMemory,
        pool: ThreadPoolExecutor,
        libraries: Future[Libtorch],
        context: Future[None] | None,
    ) -> Opened:
        stream = WeightStream(bundle, sink)
        torch = libraries.result()
        device: Device = Host()
        uploaded = None
        if isinstance(sink, Ring):
            assert context is not None
            context.result()
            device = Cuda()
            self._mark("cuda_context", "bundle_opened")
            weights = device.allocate(bundle.index.size)
            uploaded = pool.submit(self._upload, sink, device, weights)
        else:
            weights = Memory(sink.address, bundle.index.size, sink)
        checks.wait(name for name in bundle.manifest.files if name.startswith("model/"))
        folder = ModelFolder.open(bundle.path / "model")
        geometry = geometry_of(bundle, folder)
        ready = "libtorch" if context is None else "cuda_context"
        cuda_graphs = self.settings.cuda_graphs and device.name == "cuda"
        # Opening is the linker's work and Python's, which both do one thing at a time: the slowest package comes first.
        taking_turns = threading.Lock()

        def opened(recipe: Recipe) -> Program:
            checks.wait([recipe.library])
            with taking_turns:
                package = Package(torch, bundle.path / recipe.library, *arity(recipe, geometry))
                program = Program(recipe, package, torch, device, geometry)
                package.use(constants(bundle, recipe, package, torch, weights.address))
            self._linked.set()
            if recipe.images[1] > 1 and device.name == "cuda":
                return program  # see `Batches`
            program.rehearse(program.least)
            if recipe.kind == "step" and recipe.images == (1, 1) and cuda_graphs:
                program.capture()
            self._mark(f"{recipe.kind}_warm", ready)
            return program

        programs = Programs(bundle.manifest.packages, device.name, opened)
        for future in [programs.begin(recipe) for recipe in first_image(programs.recipes)]:
            future.result()
        self._mark("files_checked", "bundle_opened", checks.wait(bundle.manifest.files))
        stream.wait()
        self._mark("weights_read", "bundle_opened", stream.finished)
        if uploaded is not None:
            uploaded.result()
        return Opened(bundle, folder, device, geometry, programs, weights)

    def _upload(self, sink: Ring, device: Cuda, weights: Memory) -> None:
        sink.drain(device, weights.address, weights.size)
        self._mark("weights_on_device", "cuda_context")

    def _refuse_unfit(self, bundle: Bundle) -> None:
        reasons = bundle.unfit(describe(bundle.manifest.machine.device))
        reasons += contradictions(self.settings, bundle.manifest)
        if reasons:
            raise BundleError(f"{self.settings.bundle}: does not fit: {'; '.join(reasons)}")

    def _mark(self, name: str, since: str, at: float | None = None) -> None:
        self.moments.append((name, since, now() if at is None else at))


class Checks:
    """Threads that compare the checksums of a bundle's files: the small ones, the first image's packages, all others.

    No library is opened before its own is known to be right, and none waits for another's.
    """

    def __init__(self, bundle: Bundle) -> None:
        first = [recipe.library for recipe in first_image(bundle.manifest.packages)]
        order = sorted(bundle.manifest.files, key=lambda name: (name.startswith("packages/"), name not in first))
        pool = ThreadPoolExecutor(HASHERS, "hash")
        self._checks = {name: pool.submit(_checked, bundle, name) for name in order}
        pool.shutdown(wait=False)

    def wait(self, names: Iterable[str]) -> float:
        """When the last of these files was known to be right; raises BundleError that names one that is not."""
        return max(self._checks[name].result() for name in names)


def _checked(bundle: Bundle, name: str) -> float:
    bundle.verify(name)
    return now()


def contradictions(settings: EngineSettings, manifest: Manifest) -> list[str]:
    """Which settings ask for something else than what was baked, in words."""
    made = {"device": manifest.machine.device, "dtype": manifest.dtype}
    return [
        f"--{name} is {asked}, and it was baked for {baked}"
        for name, baked in made.items()
        if (asked := getattr(settings, name)) not in ("auto", baked)
    ]


def first_image(recipes: Sequence[Recipe]) -> list[Recipe]:
    """What a single image of the first size needs, slowest first."""
    size = next((recipe.height, recipe.width) for recipe in recipes if recipe.kind == "step")
    chosen = []
    for kind in ("step", "decode", "text", "preview"):
        fitting = [r for r in recipes if r.kind == kind and (kind == "text" or (r.height, r.width) == size)]
        chosen += sorted(fitting, key=lambda recipe: recipe.images[1])[:1]
    return chosen


def geometry_of(bundle: Bundle, folder: ModelFolder) -> Geometry:
    """The shapes that the model's configuration fixes."""
    encoders = [name for name in ("text_encoder", "text_encoder_2") if name in folder.components]
    texts = [folder.config(name) for name in encoders]
    unet = folder.config("unet")
    return Geometry(
        channels=bundle.manifest.channels,
        scale=bundle.manifest.scale,
        dtype=bundle.manifest.dtype,
        tokens=texts[0].get("max_position_embeddings", 77),
        encoders=len(encoders),
        width=unet["cross_attention_dim"],
        pooled=texts[-1]["projection_dim"] if unet.get("addition_embed_type") == "text_time" else 0,
    )


def arity(recipe: Recipe, geometry: Geometry) -> tuple[int, int]:
    """How many inputs and outputs the package has."""
    pooled = 1 if geometry.pooled else 0
    return {
        "text": (geometry.encoders, 1 + pooled),
        "step": (8 + pooled, 2),
        "decode": (1, 1),
        "preview": (1, 1),
    }[recipe.kind]


def constants(bundle: Bundle, recipe: Recipe, package: Package, torch: Libtorch, base: int) -> dict[str, int]:
    """Handles of the package's weights, by the names that it calls them."""
    wanted = package.constants()
    missing = sorted(set(wanted.values()) - recipe.constants.keys())
    if missing:
        raise LibtorchError(f"{bundle.path / recipe.library}: its constant {missing[0]} is not in manifest.json")
    handles = {}
    for name, parameter in wanted.items():
        spec = bundle.index.tensors[recipe.constants[parameter]]
        handles[name] = torch.wrap(base + spec.offset, spec.dtype, spec.shape, spec.strides)
    return handles
