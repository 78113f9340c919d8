"""Drawing in frame units (0 to 1, y down) on a supersampled layer, with the outlines that a style asks for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Points = NDArray[np.float64]
"""(N, 2) x, y."""

Color = tuple[int, int, int]


_BLACK: Color = (16, 12, 18)


@lru_cache(maxsize=4096)
def mix(a: Color, b: Color, share: float) -> Color:
    """``a`` with ``share`` of ``b``."""
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def darker(color: Color, share: float) -> Color:
    """``color`` with ``share`` of a warm black."""
    return mix(color, (24, 14, 18), share)


def lighter(color: Color, share: float) -> Color:
    """``color`` with ``share`` of white."""
    return mix(color, (255, 255, 255), share)


def luminance(color: Color) -> float:
    """Rec. 601 luma, 0 to 1."""
    return (0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]) / 255


def apart(a: Color, b: Color) -> float:
    """How different two colours look: 0 the same, 441 black and white."""
    return math.dist(a, b)


def points(*xy: tuple[float, float]) -> Points:
    """An array of the given points."""
    return np.array(xy, dtype=np.float64)


def columns(x: NDArray[np.float64] | float, y: NDArray[np.float64]) -> Points:
    """Points from their coordinates, (N,) each: cheaper than ``np.stack``, and curves are many."""
    out = np.empty((len(y), 2))
    out[:, 0], out[:, 1] = x, y
    return out


@lru_cache(maxsize=64)
def evenly(low: float, high: float, n: int) -> NDArray[np.float64]:
    """``np.linspace``, kept: not to be written to."""
    out = np.linspace(low, high, n)
    out.setflags(write=False)
    return out


def ellipse(x: float, y: float, rx: float, ry: float, n: int = 24) -> Points:
    """A closed ellipse."""
    return np.array((x, y)) + _circle(n) * (rx, ry)


def rounded(left: float, top: float, right: float, bottom: float, corner: float) -> Points:
    """A rectangle with round corners of radius ``corner``."""
    quarter = _circle(16)[:5] * corner
    outline = []
    for x, y, turn in ((right, bottom, 0), (left, bottom, 1), (left, top, 2), (right, top, 3)):
        inward = np.array((-corner if x == right else corner, -corner if y == bottom else corner))
        outline.append(np.array((x, y)) + inward + quarter @ _QUARTERS[turn])
    return np.concatenate(outline)


_QUARTERS = [np.linalg.matrix_power(np.array([[0.0, 1.0], [-1.0, 0.0]]), turn) for turn in range(4)]


@lru_cache(maxsize=16)
def _circle(n: int) -> Points:
    angles = np.arange(n) * (2 * np.pi / n)
    return np.stack([np.cos(angles), np.sin(angles)], 1)


def smooth(control: Points | Sequence[tuple[float, float]], closed: bool = True, steps: int = 5) -> Points:
    """A Catmull-Rom curve through the control points, ``steps`` points a segment."""
    p = np.asarray(control, dtype=np.float64)
    p = np.concatenate([p[-1:], p, p[:2]]) if closed else np.concatenate([p[:1], p, p[-1:]])
    curve = (_catmull_rom(steps) @ p[_windows(len(p))]).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, p[-1:]])


@lru_cache(maxsize=64)
def _windows(n: int) -> NDArray[np.intp]:
    """(n - 3, 4) numbers of four points in a row."""
    return np.arange(n - 3)[:, None] + np.arange(4)


@lru_cache(maxsize=16)
def _catmull_rom(steps: int) -> Points:
    t = np.arange(steps) / steps
    basis = [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3]
    return np.stack(basis, 1) / 2


def mirrored(half: Sequence[tuple[float, float]]) -> Points:
    """A closed outline from its right half (top to bottom); points on the axis x = 0 are not doubled."""
    right = np.array(half, dtype=np.float64)
    left = right[::-1] * (-1, 1)
    return np.concatenate([right, left[np.abs(left[:, 0]) > 1e-9]])


@dataclass(frozen=True)
class Ink:
    """How a style draws edges.

    Attributes:
        width: of outlines in frame units; 0 for none.
        black: share of black in an outline's colour.
        bold: factor on the width of feature strokes (mouth, brows, lashes).
        features: factor on the size of what must survive a coarse style (eyes, mouth).
    """

    width: float = 0.0
    black: float = 0.0
    bold: float = 1.0
    features: float = 1.0


class Pen:
    """Shapes and strokes on one transparent layer.

    Args:
        side: pixels of the layer's side.
        ink: the style's edges.
        canvas: what to draw on; a transparent layer by default.
        place: local coordinates -> frame units; the frame's own by default.
    """

    def __init__(
        self,
        side: int,
        ink: Ink,
        canvas: Image.Image | None = None,
        place: Callable[[Points], Points] | None = None,
    ) -> None:
        self.side, self.ink, self.place = side, ink, place
        self.image = canvas if canvas is not None else Image.new("RGBA", (side, side))
        self._draw = ImageDraw.Draw(self.image)

    def at(self, place: Callable[[Points], Points]) -> Pen:
        """A pen on the same layer with other coordinates."""
        return Pen(self.side, self.ink, self.image, place)

    def shape(self, outline: Points, fill: Color, edge: float = 1.0) -> None:
        """A filled closed shape; ``edge`` scales the style's outline (0 for none)."""
        xy = self._pixels(outline)
        self._draw.polygon(xy, fill=fill)
        self._edge(xy, fill, edge)

    @contextmanager
    def inside(self, outline: Points) -> Iterator[Pen]:
        """A pen with the same coordinates; what it draws outside ``outline`` is lost: markings on fur."""
        xy = self._pixels(outline)
        sheet = self.image.copy()
        yield Pen(self.side, self.ink, sheet, self.place)
        mask = Image.new("1", self.image.size)
        ImageDraw.Draw(mask).polygon(xy, fill=1)
        box = mask.getbbox()
        if box:
            self.image.paste(sheet.crop(box), box, mask.crop(box))

    def outline(self, outline: Points, fill: Color, edge: float = 1.0) -> None:
        """The outline of a shape of colour ``fill`` alone."""
        self._edge(self._pixels(outline), fill, edge)

    def stroke(self, line: Points, color: Color, width: float, bold: bool = True) -> None:
        """An open line with round ends, ``width`` in frame units; features are ``bold``, texture is not."""
        xy = self._pixels(line)
        thick = max(1, round(width * (self.ink.bold if bold else 1.0) * self.side))
        color = self.inked(color) if bold else color
        self._draw.line(xy, fill=color, width=thick, joint="curve" if thick > 6 else None)
        if thick > 2:
            for x, y in (xy[:2], xy[-2:]):
                self._disc(x, y, thick / 2, color)

    def tiles(self, rectangles: Points, fills: Sequence[Color]) -> None:
        """Many upright rectangles (N, 4: left, top, right, bottom) without outline, in the frame's own units."""
        for box, fill in zip((rectangles * self.side).tolist(), fills, strict=True):
            self._draw.rectangle(box, fill=fill)

    def inked(self, color: Color) -> Color:
        """``color`` as the style's ink draws a feature."""
        return mix(color, _BLACK, self.ink.black**2)

    def rope(self, line: Points, color: Color, width: float) -> None:
        """A thick line that has the style's outline, as a shape does."""
        if self.ink.width:
            self.stroke(line, mix(color, _BLACK, self.ink.black), width + 1.4 * self.ink.width, bold=False)
        self.stroke(line, color, width, bold=False)

    def dots(self, centres: Points, radius: float, color: Color) -> None:
        """Small discs, ``radius`` in frame units."""
        xy = self._pixels(centres)
        for x, y in zip(xy[::2], xy[1::2], strict=True):
            self._disc(x, y, radius * self.side, color)

    def box(self, left: float, top: float, right: float, bottom: float, fill: Color, edge: float = 1.0) -> None:
        """An upright rectangle."""
        self.shape(points((left, top), (right, top), (right, bottom), (left, bottom)), fill, edge)

    def _edge(self, xy: list[float], fill: Color, edge: float) -> None:
        width = round(self.ink.width * edge * self.side)
        if width:
            self._draw.line([*xy, *xy[:4]], fill=mix(fill, _BLACK, self.ink.black), width=width)

    def _disc(self, x: float, y: float, r: float, color: Color) -> None:
        self._draw.ellipse((x - r, y - r, x + r, y + r), fill=color)

    def _pixels(self, xy: Points) -> list[float]:
        if self.place is not None:
            xy = self.place(xy)
        return (xy * self.side).ravel().tolist()
