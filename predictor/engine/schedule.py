"""Which rows step next: continuous batching at the grain of one denoising step.

A row is one image on its way from noise to picture. Rows of one device call share a size and nothing else, so a
newcomer waits for the step that runs, not for the images in front of it. Sizes take turns. Pure: no device, no clock.
"""

from collections import deque
from dataclasses import dataclass

Size = tuple[int, int]


@dataclass(slots=True, eq=False)
class Row:
    """Image `index` of `request`, of `size` (height, width in pixels), after `step` of `steps`."""

    request: str
    index: int
    size: Size
    steps: int
    step: int = 0


class Schedule:
    """Rows that wait, rows that run, and whose turn it is.

    At most `limit(size)` rows of a size run; the others wait in order of arrival. `max_rows` bounds every size, and a
    size learns a lower bound when the device had no room for more.
    """

    def __init__(self, max_rows: int) -> None:
        self.max_rows = max_rows
        self.waiting: dict[Size, deque[Row]] = {}
        self.running: dict[Size, list[Row]] = {}  # in turn order: the first size steps next
        self.limits: dict[Size, int] = {}

    def __len__(self) -> int:
        return sum(map(len, self.waiting.values())) + sum(map(len, self.running.values()))

    def limit(self, size: Size) -> int:
        """Rows of `size` in one call."""
        return min(self.max_rows, self.limits.get(size, self.max_rows))

    def lower(self, size: Size, rows: int) -> None:
        """The device holds at most `rows` rows of `size`; those past it go back to the head of the queue.

        Forgotten once the last row of this size is gone, for by then the device may hold more.
        """
        self.limits[size] = max(1, min(rows, self.limit(size)))
        running = self.running.get(size, [])
        self.waiting.setdefault(size, deque()).extendleft(reversed(running[self.limits[size] :]))
        del running[self.limits[size] :]

    def add(self, rows: list[Row]) -> None:
        """Queue the rows of one request."""
        for row in rows:
            self.waiting.setdefault(row.size, deque()).append(row)

    def drop(self, request: str) -> list[Row]:
        """Take a request's rows out, wherever they are."""
        dropped = []
        for queues in (self.waiting, self.running):
            for queue in queues.values():
                mine = [row for row in queue if row.request == request]
                for row in mine:
                    queue.remove(row)
                dropped += mine
        return dropped

    def next_rows(self) -> list[Row]:
        """The rows of the next call: admits those that wait and fit, then takes the size whose turn it is."""
        for size, queue in list(self.waiting.items()):
            running = self.running.setdefault(size, [])
            while queue and len(running) < self.limit(size):
                running.append(queue.popleft())
            if not queue:
                del self.waiting[size]
        for size in list(self.running):
            rows = self.running.pop(size)
            if rows:
                self.running[size] = rows  # behind the others: its turn has come
                return list(rows)
            self.limits.pop(size, None)
        return []

    def advance(self, rows: list[Row]) -> list[Row]:
        """Count one step of `rows`; returns those that are done, which leave."""
        for row in rows:
            row.step += 1
        done = [row for row in rows if row.step >= row.steps]
        for row in done:
            self.running[row.size].remove(row)
        return done
