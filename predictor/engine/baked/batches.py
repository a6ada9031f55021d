"""Which numbers of images a GPU is ready for.

cuDNN plans each convolution when a thread meets it with a new shape. For a step of Stable Diffusion 1.5 that is 50
plans and 0.75 s on an H100, as long as ten steps of sixteen images: nobody may wait for it.
"""

from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass, field

from predictor.engine.baked.manifest import Package as Recipe
from predictor.engine.baked.program import Programs, Shape

RUNGS = (2, 4, 6, 8, 12, 16, 24, 32)  # images; what lies between takes the next one, at the cost of idle rows
WORTH = 20  # images stepped by themselves before a shape is rehearsed: a burst does not arrive all at once
WASTE = 1.5  # times the images: a larger shape still costs less than these by themselves


@dataclass
class Batches:
    """The rehearsed shapes of one package for several images.

    A shape that is wanted often enough is rehearsed in the package's own thread; until then its images step one by
    one. One thread calls this.
    """

    programs: Programs
    recipe: Recipe
    _rehearsed: set[Shape] = field(default_factory=set)
    _stepped: Counter[Shape] = field(default_factory=Counter)  # images, one by one
    _coming: tuple[Shape, "Future[None]"] | None = None

    def ready(self, images: int, evaluations: int) -> Shape | None:
        """The smallest rehearsed shape that holds these at a gain, if the package's thread is free.

        Raises:
            NoMemory, LibtorchError: what the last rehearsal ended with; it may be tried again.
        """
        if self._coming is not None:
            if not self._coming[1].done():
                return None
            (shape, done), self._coming = self._coming, None
            done.result()
            self._rehearsed.add(shape)
        own = self.rung(images, evaluations)
        fitting = [
            shape
            for shape in self._rehearsed
            if shape == own or (images <= shape.images <= WASTE * images and evaluations <= shape.evaluations)
        ]
        return min(fitting, key=lambda shape: shape.evaluations, default=None)

    def one_by_one(self, images: int, evaluations: int) -> None:
        """Note that these step by themselves; their shape may be rehearsed from now on.

        The work of the package's thread must be done by then.
        """
        wanted = self.rung(images, evaluations)
        self._stepped[wanted] += images
        if self._coming is None and self._stepped[wanted] >= WORTH:
            self._coming = wanted, self.programs.rehearse(self.recipe, wanted)

    def rung(self, images: int, evaluations: int) -> Shape:
        """What is rehearsed for these: two evaluations for each image, or one where none is guided."""
        most = self.recipe.images[1]
        rung = next((rung for rung in RUNGS if images <= rung < most), most)
        return Shape(rung, rung if evaluations == images else 2 * rung)
