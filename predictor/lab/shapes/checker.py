"""What is in the picture? Shape, colour and background found from the pixels alone.

Shares no code and no constants with the drawings: colours are told by hue and lightness, shapes by their contour
(holes, convex hull, share of the bounding box, the radius around the centre). It says "unclear" where a picture is not
one flat shape on one flat background.
"""

import colorsys
import dataclasses
from typing import Final

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Picture = npt.NDArray[np.uint8]

UNCLEAR: Final = "unclear"
_BORDER: Final = 3
_ANGLES: Final = 72
_LEAST_AREA: Final = 0.01
_LEAST_CONTRAST: Final = 30.0


@dataclasses.dataclass(frozen=True)
class Finding:
    """Names, or "unclear". `centre` is (x, y) and `extent` (width, height), as shares of the picture, y down."""

    shape: str
    colour: str
    background: str
    centre: tuple[float, float]
    extent: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Contour:
    """Measures of a filled shape.

    `hole` = share of the outline's area that is hole, `solidity` = area / convex hull, `fill` = area / bounding box,
    `aspect` = width / height, `low` = vertical place of the centroid in the box (0 top, 1 bottom), `waves[k]` = k-th
    harmonic of the radius over the angle, relative to its mean.
    """

    hole: float
    solidity: float
    fill: float
    aspect: float
    low: float
    waves: tuple[float, ...]


def check(picture: Picture) -> Finding:
    """Look at one picture, uint8 [height, width, 3]."""
    pixels = picture.astype(np.float64)
    height, width = pixels.shape[:2]
    edge = np.ones((height, width), dtype=bool)
    edge[_BORDER:-_BORDER, _BORDER:-_BORDER] = False
    background = np.median(pixels[edge], axis=0)
    distance = np.linalg.norm(pixels - background, axis=2)
    contrast = np.percentile(distance, 98.5)
    nothing = Finding(UNCLEAR, UNCLEAR, name_colour(background), (0.5, 0.5), (0.0, 0.0))
    if contrast < _LEAST_CONTRAST:
        return nothing
    mask = largest_part(distance > contrast / 2)
    if mask.mean() < _LEAST_AREA or mask.sum() < 0.85 * (distance > contrast / 2).sum():
        return nothing
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    colour = np.median(pixels[mask & (distance > 0.8 * contrast)], axis=0)
    return Finding(
        shape=name_shape(measure(mask)),
        colour=name_colour(colour),
        background=name_colour(background),
        centre=((columns[0] + columns[-1] + 1) / 2 / width, (rows[0] + rows[-1] + 1) / 2 / height),
        extent=(len(columns) / width, len(rows) / height),
    )


def name_colour(rgb: npt.NDArray[np.float64]) -> str:
    """The everyday name of a colour given as red, green, blue in 0..255."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(rgb / 255))
    if value < 0.28:
        return "black"
    if saturation < 0.18:
        return "white" if value > 0.82 else "grey"
    degrees = hue * 360
    if 305 <= degrees < 345 or (degrees >= 345 and saturation < 0.6):
        return "pink"
    limits = (
        (15, "red"),
        (42, "orange"),
        (70, "yellow"),
        (165, "green"),
        (204, "cyan"),
        (255, "blue"),
        (305, "purple"),
    )
    return next((name for limit, name in limits if degrees < limit), "red")


def largest_part(mask: Mask) -> Mask:
    """The largest 4-connected part of a mask."""
    rest, best = mask.copy(), np.zeros_like(mask)
    while rest.sum() > best.sum():
        part = flood(rest, np.unravel_index(np.argmax(rest), rest.shape))
        if part.sum() > best.sum():
            best = part
        rest &= ~part
    return best


def flood(mask: Mask, start: tuple[np.intp, ...]) -> Mask:
    """All pixels of `mask` that 4-connected steps reach from `start`."""
    part = np.zeros_like(mask)
    part[start] = True
    size = 0
    while (reached := int(part.sum())) > size:
        size = reached
        for axis in (0, 1):
            for backwards in (False, True):
                part = _sweep(part, mask, axis, backwards=backwards)
    return part


def _sweep(part: Mask, mask: Mask, axis: int, *, backwards: bool) -> Mask:
    lines, allowed = (part, mask) if axis == 0 else (part.T, mask.T)
    order = range(len(lines) - 2, -1, -1) if backwards else range(1, len(lines))
    swept = lines.copy()
    before = 1 if backwards else -1
    for line in order:
        swept[line] |= swept[line + before] & allowed[line]
    return swept if axis == 0 else swept.T


def measure(mask: Mask) -> Contour:
    """Contour measures of one connected mask."""
    framed = np.pad(mask, 1)
    filled = ~flood(~framed, (np.intp(0), np.intp(0)))
    area = filled.sum()
    y, x = np.nonzero(filled)
    width, height = np.ptp(x) + 1, np.ptp(y) + 1
    lines = np.flatnonzero(filled.any(1))
    left = filled[lines].argmax(1)
    right = filled.shape[1] - filled[lines, ::-1].argmax(1)
    corners = np.concatenate([np.stack([side, lines + below], axis=1) for side in (left, right) for below in (0, 1)])
    return Contour(
        hole=float(1 - framed.sum() / area),
        solidity=float(area / hull_area(corners)),
        fill=float(area / (width * height)),
        aspect=float(width / height),
        low=float((y.mean() - y.min() + 0.5) / height),
        waves=_waves(x, y),
    )


def hull_area(points: npt.NDArray[np.int64]) -> float:
    """Area of the convex hull of integer points [n, 2] (Andrew's monotone chain)."""
    ordered = sorted({(int(px), int(py)) for px, py in points})
    outline = _half_hull(ordered)[:-1] + _half_hull(ordered[::-1])[:-1]
    hull = np.array(outline, dtype=np.float64)
    x, y = hull.T
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)


def _half_hull(ordered: list[tuple[int, int]]) -> list[tuple[int, int]]:
    chain: list[tuple[int, int]] = []
    for point in ordered:
        while len(chain) >= 2 and _turn(chain[-2], chain[-1], point) <= 0:
            chain.pop()
        chain.append(point)
    return chain


def _turn(a: tuple[int, int], b: tuple[int, int], c: tuple[int, int]) -> int:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _waves(x: npt.NDArray[np.int64], y: npt.NDArray[np.int64]) -> tuple[float, ...]:
    across, down = x - x.mean(), y - y.mean()
    angle = ((np.arctan2(down, across) / (2 * np.pi)) % 1 * _ANGLES).astype(int) % _ANGLES
    radius = np.zeros(_ANGLES)
    np.maximum.at(radius, angle, np.hypot(across, down))
    spectrum = np.abs(np.fft.rfft(radius)) / _ANGLES
    return tuple(float(2 * wave / spectrum[0]) for wave in spectrum[:9])


def name_shape(contour: Contour) -> str:
    """The shape whose contour tests hold; at most one set of tests does."""
    waves = contour.waves
    if contour.hole > 0.08:
        return "ring" if waves[4] < 0.06 and contour.solidity > 0.93 else UNCLEAR
    if contour.hole > 0.02:
        return UNCLEAR
    if contour.solidity < 0.86:
        return _name_concave(contour)
    if contour.fill > 0.88:
        return "square" if 0.85 < contour.aspect < 1.18 else UNCLEAR
    if contour.fill < 0.62:
        return "triangle" if contour.low > 0.58 else "diamond" if contour.low < 0.55 else UNCLEAR
    if contour.solidity > 0.94 and max(waves[1:7]) < 0.04 and 0.85 < contour.aspect < 1.18:
        return "circle"
    return "heart" if contour.low < 0.47 and waves[3] > 0.08 else UNCLEAR


def _name_concave(contour: Contour) -> str:
    if contour.waves[5] > 1.5 * max(contour.waves[3], contour.waves[4]):
        return "star"
    if contour.waves[4] > 1.5 * max(contour.waves[3], contour.waves[5]):
        return "cross"
    return UNCLEAR
