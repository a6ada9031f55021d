"""The training pictures: one flat shape on one flat background, drawn from signed distances in batches of any size.

A batch of drawings is a struct of arrays. It is sampled with numpy from `(seed, counter)`, so that a resumed run sees
the same stream, and rendered with torch on whichever device trains.

Distance functions follow Inigo Quilez, "2D distance functions" (iquilezles.org/articles/distfunctions2d); y points up.
"""

import dataclasses
import math
import zlib
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

PIXELS: Final = 128

SHAPES: Final = ("circle", "square", "triangle", "star", "heart", "cross", "diamond", "ring")
COLOURS: Final = {
    "red": (222, 32, 40),
    "orange": (252, 142, 22),
    "yellow": (250, 222, 44),
    "green": (38, 160, 70),
    "cyan": (40, 204, 222),
    "blue": (40, 80, 222),
    "purple": (130, 48, 182),
    "pink": (250, 134, 192),
    "white": (250, 250, 250),
    "black": (20, 20, 22),
    "grey": (150, 150, 152),
}
SHAPE_COLOURS: Final = tuple(name for name in COLOURS if name != "grey")
BACKGROUNDS: Final = ("white", "black", "grey", "blue", "yellow", "green")
SIZES: Final = {"small": (20.0, 23.0), "medium": (29.0, 33.0), "large": (41.0, 46.0)}
"""Radius of the circle around a shape, in pixels of a 128-pixel picture."""
PLACES: Final = {"middle": (0, 0), "left": (-1, 0), "right": (1, 0), "top": (0, 1), "bottom": (0, -1)}

_MIDDLE_JITTER: Final = 4.0
_COLOUR_JITTER: Final = 2.0
_OFF_CENTRE_SHARE: Final = 0.3
_MARGIN: Final = 6.0
_HELD_OUT_ONE_IN: Final = 10


@dataclasses.dataclass(frozen=True)
class Facts:
    """What there is to say about one drawing; each field is a name from the tables above."""

    shape: str
    colour: str
    background: str
    size: str
    place: str


@dataclasses.dataclass(frozen=True)
class Drawings:
    """`n` drawings.

    Names are indices into the tables above (int64 [n]); the rest is float32: `radius` [n] and `centre` [n, 2] in pixels
    from the middle, y up, `ink` and `paper` [n, 3] in 0..255.
    """

    shape: npt.NDArray[np.int64]
    colour: npt.NDArray[np.int64]
    background: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]
    place: npt.NDArray[np.int64]
    radius: npt.NDArray[np.float32]
    centre: npt.NDArray[np.float32]
    ink: npt.NDArray[np.float32]
    paper: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.shape)

    def facts(self, row: int) -> Facts:
        """The names of one drawing."""
        return Facts(
            SHAPES[self.shape[row]],
            SHAPE_COLOURS[self.colour[row]],
            BACKGROUNDS[self.background[row]],
            tuple(SIZES)[self.size[row]],
            tuple(PLACES)[self.place[row]],
        )


def is_held_out(shape: str, colour: str, background: str) -> bool:
    """Whether the combination is kept for checking and never drawn for training."""
    return zlib.crc32(f"{shape}/{colour}/{background}".encode()) % _HELD_OUT_ONE_IN == 0


def combinations(*, held_out: bool) -> list[tuple[int, int, int]]:
    """Indices (shape, colour, background) whose colours differ, either those kept for checking or all others."""
    return [
        (s, c, b)
        for s, shape in enumerate(SHAPES)
        for c, colour in enumerate(SHAPE_COLOURS)
        for b, background in enumerate(BACKGROUNDS)
        if colour != background and is_held_out(shape, colour, background) == held_out
    ]


def sample_drawings(seed: int, counter: int, count: int, *, held_out: bool = False) -> Drawings:
    """`count` random drawings, the same for the same `(seed, counter, held_out)`."""
    random = np.random.Generator(np.random.Philox(key=[seed, counter]))
    table = np.array(combinations(held_out=held_out), dtype=np.int64)
    shape, colour, background = table[random.integers(len(table), size=count)].T
    size = random.integers(len(SIZES), size=count)
    low, high = np.array(tuple(SIZES.values())).T
    radius = random.uniform(low[size], high[size])
    off_centre = random.random(count) < _OFF_CENTRE_SHARE
    place = np.where(off_centre, random.integers(1, len(PLACES), size=count), 0)
    room = PIXELS / 2 - _MARGIN - radius
    direction = np.array(tuple(PLACES.values()))[place]
    centre = direction * (room * random.uniform(0.85, 1.0, size=count))[:, None]
    centre = centre + random.uniform(-_MIDDLE_JITTER, _MIDDLE_JITTER, size=(count, 2))
    centre = np.clip(centre, -room[:, None], room[:, None])
    ink_table = np.array([COLOURS[name] for name in SHAPE_COLOURS])
    paper_table = np.array([COLOURS[name] for name in BACKGROUNDS])
    jitter = random.uniform(-_COLOUR_JITTER, _COLOUR_JITTER, size=(2, count, 3))
    return Drawings(
        shape,
        colour,
        background,
        size,
        place,
        radius.astype(np.float32),
        centre.astype(np.float32),
        np.clip(ink_table[colour] + jitter[0], 0, 255).astype(np.float32),
        np.clip(paper_table[background] + jitter[1], 0, 255).astype(np.float32),
    )


def render(drawings: Drawings, device: torch.device | str = "cpu") -> torch.Tensor:
    """Pictures, float32 [n, 3, 128, 128] in -1..1, edges anti-aliased over one pixel."""
    axis = torch.arange(PIXELS, device=device, dtype=torch.float32) + 0.5 - PIXELS / 2
    radius = _upload(drawings.radius, device)[:, None, None]
    centre = _upload(drawings.centre, device)
    x = (axis[None, None, :] - centre[:, 0, None, None]) / radius
    y = (-axis[None, :, None] - centre[:, 1, None, None]) / radius
    distance = torch.empty(len(drawings), PIXELS, PIXELS, device=device)
    for index, name in enumerate(SHAPES):
        rows = _upload(np.flatnonzero(drawings.shape == index), device)
        distance[rows] = DISTANCES[name](x[rows].expand(-1, PIXELS, -1), y[rows].expand(-1, -1, PIXELS))
    coverage = (0.5 - distance * radius).clamp(0, 1)[:, None]
    ink, paper = _upload(drawings.ink, device)[:, :, None, None], _upload(drawings.paper, device)[:, :, None, None]
    return (paper + (ink - paper) * coverage) / 127.5 - 1


def _upload(array: npt.NDArray[Any], device: torch.device | str) -> torch.Tensor:
    # A blocking copy would wait for all work queued on the device, so that it idles while the next step is prepared.
    return torch.from_numpy(array).to(device, non_blocking=True)


Distance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(x, y) in units of the radius → signed distance in the same unit, negative inside."""


def _circle(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.hypot(x, y) - 0.92


def _ring(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (torch.hypot(x, y) - 0.72).abs() - 0.24


def _square(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.maximum(x.abs(), y.abs()) - 0.8


def _diamond(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    width, height = 0.76, 1.0
    return (x.abs() * height + y.abs() * width - width * height) / math.hypot(width, height)


def _triangle(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    # An equilateral triangle with its base at -0.75, so that its bounding box is centred.
    slanted = (x.abs() * math.sqrt(3) + y - 0.85) / 2
    return torch.maximum(slanted, -0.75 - y)


def _cross(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    arm, half = 0.92, 0.31
    upright = torch.maximum(x.abs() - half, y.abs() - arm)
    level = torch.maximum(x.abs() - arm, y.abs() - half)
    return torch.minimum(upright, level)


def _star(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    k_x, k_y, inner = math.cos(math.pi / 5), -math.sin(math.pi / 5), 0.46
    x = x.abs()
    fold = 2 * (k_x * x + k_y * y).clamp(min=0)
    x, y = x - fold * k_x, y - fold * k_y
    fold = 2 * (-k_x * x + k_y * y).clamp(min=0)
    x, y = (x + fold * k_x).abs(), y - fold * k_y - 1
    edge_x, edge_y = -inner * k_y, inner * k_x - 1
    along = ((x * edge_x + y * edge_y) / (edge_x**2 + edge_y**2)).clamp(0, 1)
    return torch.hypot(x - edge_x * along, y - edge_y * along) * torch.sign(y * edge_x - x * edge_y)


def _heart(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    scale = 1.62
    x, y = x.abs() / scale, y / scale + 0.55
    lobe = torch.hypot(x - 0.25, y - 0.75) - math.sqrt(2) / 4
    diagonal = 0.5 * (x + y).clamp(min=0)
    cleft = torch.minimum(torch.hypot(x, y - 1), torch.hypot(x - diagonal, y - diagonal)) * torch.sign(x - y)
    return torch.where(x + y > 1, lobe, cleft) * scale


DISTANCES: Final[dict[str, Distance]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "heart": _heart,
    "cross": _cross,
    "diamond": _diamond,
    "ring": _ring,
}
