"""How long a step takes in an engine that has to rehearse a number of images before it steps them together.

The rules of `predictor/engine/baked/batches.py`: until enough images have stepped one by one, and while the rehearsal
runs, they go on one by one. Pure: the caller brings the time.
"""

import math
from collections import Counter

from predictor.lab.sim.measured import StepTimes


class Batches:
    """One engine's step times, from its start on.

    Args:
        steps: seconds by number of images.
        rows: images in one call at most.
    """

    __slots__ = ("_coming", "_rehearsal", "_rehearsed", "_stepped", "_table", "_together")

    def __init__(self, steps: StepTimes, rows: int) -> None:
        self._table = steps.table(rows)
        self._rehearsal = steps.rehearsal
        self.forget()

    def forget(self) -> None:
        """Another engine begins, which has rehearsed nothing."""
        self._rehearsed: set[int] = set()
        self._together: dict[int, float] = {}  # seconds of what is stepped together, for speed
        self._stepped: Counter[int] = Counter()  # images that stepped one by one, by the size that was wanted
        self._coming: tuple[int, float] | None = None  # a size, and when it is rehearsed

    def step(self, now: float, images: int) -> tuple[float, int | None]:
        """Seconds of a step of so many images that begins now, and after how many that has to be asked again.

        None: never, as long as the images stay the same.
        """
        table = self._table
        if images < 2 or self._rehearsal is None:
            return table[images], None
        if self._coming is None and images in self._together:
            return self._together[images], None
        singly = images * table[1]
        if self._coming is not None:
            size, done = self._coming
            if now < done - 1e-9:
                return singly, max(1, math.ceil((done - now) / singly - 1e-9))
            self._rehearsed.add(size)
            self._together.clear()
            self._coming = None
        size = self._serving(images)
        if not size:
            return singly, self._until(images)
        self._together[images] = table[size]
        return table[size], None

    def stepped(self, since: float, images: int, steps: int) -> None:
        """So many steps were taken from `since` on, as `step` had said of that moment."""
        if images < 2 or self._rehearsal is None or (self._coming is None and images in self._together):
            return
        if self._coming is None and steps >= self._until(images):
            # It begins beside the step that made it enough.
            began = since + (self._until(images) - 1) * images * self._table[1]
            self._coming = self._size(images), began + self._rehearsal.seconds
        self._stepped[self._size(images)] += images * steps

    def _serving(self, images: int) -> int:
        """The smallest rehearsed size that holds these at a gain; 0: none does."""
        assert self._rehearsal is not None
        own, most = self._size(images), self._rehearsal.waste * images
        return min((size for size in self._rehearsed if size == own or images <= size <= most), default=0)

    def _until(self, images: int) -> int:
        """Steps until their size is rehearsed."""
        assert self._rehearsal is not None
        return max(1, math.ceil((self._rehearsal.worth - self._stepped[self._size(images)]) / images))

    def _size(self, images: int) -> int:
        assert self._rehearsal is not None
        return next((size for size in self._rehearsal.sizes if images <= size), len(self._table) - 1)
