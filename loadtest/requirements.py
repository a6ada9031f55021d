"""`--require "cold.p95<6s"`: what must hold of a run's figures, for a gate to read; pure."""

import difflib
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

_WORDS: Final = re.compile(r"\s*([A-Za-z_][\w.]*)\s*(<=|>=|==|!=|<|>)\s*([0-9]+(?:\.[0-9]+)?)\s*(ms|s|min|%|)\s*")
_SCALES: Final = {"ms": 0.001, "s": 1.0, "min": 60.0, "%": 0.01, "": 1.0}
_COMPARE: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


@dataclass(frozen=True)
class Figure:
    """One number of a run: seconds, a count, a share of 1, or US dollars."""

    value: float
    at_least: bool = False  # censored: the truth is this or more


@dataclass(frozen=True)
class Requirement:
    """`name compare limit`, in the figure's own unit."""

    text: str
    name: str
    compare: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> "Requirement":
        """Read `NAME OPERATOR NUMBER[UNIT]`.

        Raises:
            ValueError: naming what came and what is allowed.
        """
        match = _WORDS.fullmatch(text)
        if match is None:
            raise ValueError(
                f"requirement: got {text!r}; allowed: NAME, one of {' '.join(_COMPARE)}, a number with ms, s, min, % "
                "or nothing, as in cold.p95<6s"
            )
        name, compare, number, unit = match.groups()
        return cls(text.strip(), name, compare, float(number) * _SCALES[unit])

    def met(self, figures: Mapping[str, Figure]) -> bool:
        """Whether it holds. What is censored exceeds every limit above what was seen: it can be too long, never short.

        Raises:
            ValueError: the run has no such figure: a gate that cannot be read must not be open.
        """
        if self.name not in figures:
            near = difflib.get_close_matches(self.name, figures, n=3, cutoff=0.3)
            raise ValueError(
                f"{self.text}: this run has no figure {self.name!r}; "
                f"{'near it: ' + ', '.join(near) if near else 'it has ' + ', '.join(sorted(figures)[:8])}"
            )
        figure = figures[self.name]
        if figure.at_least:
            return self.compare in (">", ">=", "!=") and figure.value >= self.limit
        return _COMPARE[self.compare](figure.value, self.limit)
