"""What a bake is doing, a line for each package: redrawn on a terminal, else printed when something changes."""

import sys
import threading
from dataclasses import dataclass

from predictor.clock import now

BETWEEN = 0.1  # seconds
AT_REST = ("waiting", "done", "reused", "failed", "stopped")


@dataclass
class _Line:
    state: str = "waiting"
    detail: str = ""
    begun: float | None = None  # while it is worked on
    spent: float = 0.0  # seconds of work before that

    @property
    def seconds(self) -> float:
        return self.spent + (now() - self.begun if self.begun is not None else 0.0)


class Board:
    """States of named things and the seconds that each was worked on; may be told from any thread."""

    def __init__(self, names: list[str]) -> None:
        self._lines = {name: _Line() for name in names}
        self._width = max(map(len, names))
        self._drawn, self._last = 0, 0.0
        self._lock = threading.Lock()
        self._terminal = sys.stdout.isatty()
        self.draw()

    def tell(self, name: str, state: str, detail: str = "") -> None:
        """A change of state."""
        with self._lock:
            line = self._lines[name]
            line.spent, line.begun = line.seconds, None if state in AT_REST else now()
            line.state, line.detail = state, detail
            if not self._terminal:
                print(self._text(name, line), flush=True)
        self.draw()

    def show(self, name: str, detail: str) -> None:
        """How far it is, within one state; on terminals only, at most ten times a second."""
        self._lines[name].detail = detail
        if self._terminal and now() - self._last > BETWEEN:
            self.draw()

    def draw(self) -> None:
        """Bring a terminal up to date."""
        if not self._terminal:
            return
        with self._lock:
            if self._drawn:
                sys.stdout.write(f"\x1b[{self._drawn}A")
            for name, line in self._lines.items():
                sys.stdout.write(f"\x1b[2K{self._text(name, line)}\n")
            self._drawn, self._last = len(self._lines), now()
            sys.stdout.flush()

    def _text(self, name: str, line: _Line) -> str:
        seconds = f"{line.seconds:6.1f} s" if line.seconds >= 0.05 else ""
        return f"  {name:{self._width}}  {line.state:10}{seconds:>8}  {line.detail}".rstrip()
