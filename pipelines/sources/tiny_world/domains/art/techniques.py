"""How it is painted: each technique makes a flat plan of colours into marks of its own kind.

Arrays are (n, n, 3) float32, 0 to 255; positions x, y are (n, n), 0 to 1, y down.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from pipelines.sources.tiny_world.domains.art.traits import Traits
from pipelines.sources.tiny_world.draws import Draws

Floats = NDArray[np.floating[Any]]
Roles = NDArray[np.uint8]
"""(n, n) a colour's role for each pixel."""
Metric = Callable[[Floats, Floats], Floats]
"""Offsets along and across a mark in units of its width -> below 0.5 inside of it."""

_TABLE = 32


@lru_cache(maxsize=4)
def _grid(n: int) -> tuple[Floats, Floats]:
    axis = (np.arange(n, dtype=np.float32) + 0.5) / n
    return np.broadcast_to(axis, (n, n)), np.broadcast_to(axis[:, None], (n, n))


def _index(n: int, x: Floats, y: Floats) -> NDArray[np.intp]:
    """Flat indices of the pixels at x, y; what lies outside takes the nearest inside."""
    return np.clip(y * n, 0, n - 1).astype(np.intp) * n + np.clip(x * n, 0, n - 1).astype(np.intp)


def _sample(plan: Floats, x: Floats, y: Floats) -> Floats:
    """The plan's colours at x, y."""
    return plan.reshape(-1, 3).take(_index(len(plan), x, y), 0)


def wander(roles: Roles, t: Traits, draws: Draws) -> Roles:
    """Straight edges become a hand's."""
    n = len(roles)
    x, y = _grid(n)
    a, b = draws.uniform(0, 6), draws.uniform(0, 6)
    return roles.ravel().take(_index(n, x + t.wobble * np.sin(9 * y + a), y + t.wobble * np.sin(11 * x + b)))


def _table(draws: Draws) -> Floats:
    """Numbers from -0.5 to 0.5, three for each cell of a lattice."""
    return draws.units(_TABLE * _TABLE, 3).astype(np.float32) - 0.5


def _numbers(table: Floats, column: Floats, row: Floats) -> Floats:
    """(3, n, n), the same within a cell."""
    index = (row.astype(np.intp) % _TABLE) * _TABLE + column.astype(np.intp) % _TABLE
    return table.take(index, 0).transpose(2, 0, 1)


def _marks(
    plan: Floats, t: Traits, draws: Draws, width: float, length: float, metric: Metric,
    loose: float = 0.3, relief: float = 0.2, brick: float = 0.5, swirl: bool = False,
) -> Floats:  # fmt: skip
    """Rows of marks, each in the colour of the plan under its middle; the ground shows between them.

    Args:
        width: of a mark, a share of the side; ``length``: in widths.
        loose: how far marks stray from their place; ``relief``: light on one edge and shadow on the other.
        brick: shift of every other row; ``swirl``: rows are rings around the style's sun.
    """
    x, y = _grid(plan.shape[0])
    cos, sin = np.float32(np.cos(t.angle)), np.float32(np.sin(t.angle))
    cx, cy = t.sun[0], t.sun[1]
    if swirl:
        v = np.hypot(x - cx, y - cy) / width
        row = np.floor(v)
        u = np.arctan2(y - cy, x - cx) * (row + 0.5) / length
    else:
        v = (y * cos - x * sin) / width
        row = np.floor(v)
        u = (x * cos + y * sin) / (width * length)
    u = u + brick * row
    column = np.floor(u)
    a, b, tone = _numbers(_table(draws), column, row)
    middle_u, middle_v = column + 0.5 + loose * a, row + 0.5 + loose * b
    across = v - middle_v
    inside = metric((u - middle_u) * length, across) < 0.5
    middle_u = (middle_u - brick * row) * length
    if swirl:
        angle = middle_u / (row + 0.5)
        sx, sy = cx + middle_v * width * np.cos(angle), cy + middle_v * width * np.sin(angle)
    else:
        sx, sy = width * (middle_u * cos - middle_v * sin), width * (middle_u * sin + middle_v * cos)
    light = 1 + t.tone * tone - relief * across
    # some of the plan itself, so that what is painted stays readable under coarse marks
    colors = 0.5 * _sample(plan, sx, sy) + 0.5 * plan
    colors = colors * light[..., None] + (t.tone * 40 * tone)[..., None]
    return np.where(inside[..., None], colors, np.array(t.ground, dtype=np.float32))


def _capsule(length: float, fill: float) -> Metric:
    return lambda u, v: np.hypot(np.maximum(np.abs(u) - (length - 1) / 2, 0), v) / fill


def _dots(plan: Floats, t: Traits, draws: Draws) -> Floats:
    return _marks(plan, t, draws, 0.052 * t.mark, 1, _capsule(1, 0.98), 0.16, 0.15)


def _dashes(plan: Floats, t: Traits, draws: Draws) -> Floats:
    return _marks(plan, t, draws, 0.04 * t.mark, 2.7, _capsule(2.7, 0.96), 0.3, 0.25, 0.37)


def _swirls(plan: Floats, t: Traits, draws: Draws) -> Floats:
    return _marks(plan, t, draws, 0.046 * t.mark, 2.6, _capsule(2.6, 0.98), 0.24, 0.25, 0.37, swirl=True)


def _slabs(plan: Floats, t: Traits, draws: Draws) -> Floats:
    return _marks(plan, t, draws, 0.075 * t.mark, 1.9, _capsule(2.3, 1.5), 0.3, 0.55, 0.41)


def _mosaic(plan: Floats, t: Traits, draws: Draws) -> Floats:
    def square(u: Floats, v: Floats) -> Floats:
        return np.maximum(np.abs(u), np.abs(v)) / 0.84

    return _marks(plan, t, draws, 0.06 * t.mark, 1, square, 0.1, 0.3, 0.0 if t.tilt < 0 else 0.5)


def _stitches(plan: Floats, t: Traits, draws: Draws) -> Floats:
    def cross(u: Floats, v: Floats) -> Floats:
        return np.abs(np.abs(u) - np.abs(v)) / 0.62

    return _marks(plan, t, draws, 0.068 * t.mark, 1, cross, 0.0, 0.1, 0.0)


def _glass(plan: Floats, t: Traits, draws: Draws) -> Floats:
    """Panes around scattered points, lead between them and light through them."""
    x, y = _grid(len(plan))
    cells, table = np.float32(6.2 / t.mark), _table(draws)
    u, v = x * cells, y * cells
    column, row = np.floor(u), np.floor(v)
    nearest, second = np.full_like(u, 9.0), np.full_like(u, 9.0)
    pane = np.zeros((3, *u.shape), dtype=np.float32)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            a, b, tone = _numbers(table, column + dx, row + dy)
            point = np.stack([column + (dx + 0.5) + 0.7 * a, row + (dy + 0.5) + 0.7 * b, tone])
            distance = np.hypot(u - point[0], v - point[1])
            second = np.minimum(second, np.maximum(nearest, distance))
            pane = np.where(distance < nearest, point, pane)
            nearest = np.minimum(nearest, distance)
    # as a glazier cuts it, lead also runs along what is shown: the plan brings its outlines
    colors = 0.25 * _sample(plan, pane[0] / cells, pane[1] / cells) + 0.75 * plan
    colors = colors * (1.12 + 0.6 * t.tone * pane[2] - 0.25 * nearest)[..., None] + 10
    return np.where((second - nearest < 0.1)[..., None], np.float32(24), colors)


def _cubism(plan: Floats, t: Traits, draws: Draws) -> Floats:
    """Triangles that are lit as if each faced another way."""
    x, y = _grid(plan.shape[0])
    size = 0.17 * t.mark
    cos, sin = np.cos(t.angle), np.sin(t.angle)
    u, v = (x * cos + y * sin) / size, (y * cos - x * sin) / size
    column, row = np.floor(u), np.floor(v)
    du, dv = u - column, v - row
    flip = (column + row) % 2 == 0
    upper = np.where(flip, du + dv < 1, dv < du)
    half = np.where(upper, 0.0, 0.5)
    _, _, tone = _numbers(_table(draws), column * 2 + upper, row)
    low = np.where(flip, np.where(upper, 0.3, 0.7), np.where(upper, 0.7, 0.3))
    pu, pv = column + low, row + np.where(upper, 0.3, 0.7)
    share = np.abs(u - pu) + np.abs(v - pv)
    colors = 0.5 * _sample(plan, size * (pu * cos - pv * sin), size * (pu * sin + pv * cos)) + 0.5 * plan
    light = 1 + (0.35 + t.tone) * tone + 0.18 * (half - 0.25) - 0.16 * (share - 0.5)
    return colors * light[..., None]


def _poster(plan: Floats, t: Traits, draws: Draws) -> Floats:
    return plan


def _woodcut(plan: Floats, t: Traits, draws: Draws) -> Floats:
    """Colour that fades towards the middle of the sheet, and the grain of the block."""
    x, y = _grid(plan.shape[0])
    fade = np.clip(1 - np.abs(y - 0.05) / 0.4, 0, 1) * 0.45
    grain = 0.06 * np.sin(70 * y + 3 * np.sin(5 * x + t.angle))
    return plan * (1 - fade * 0.6 + grain)[..., None] + (fade * 12)[..., None]


def _watercolor(plan: Floats, t: Traits, draws: Draws) -> Floats:
    """Thin colour that runs and gathers at its edges, on white paper."""
    n = plan.shape[0]
    flat = Image.fromarray(np.clip(plan, 0, 255).astype(np.uint8))
    soft = np.asarray(flat.filter(ImageFilter.GaussianBlur(n * 0.022)), dtype=np.float32)
    edge = np.abs(soft - plan).mean(2, keepdims=True) / 255
    cloud = Image.fromarray(draws.units(6, 6).astype(np.float32)).resize((n, n), Image.Resampling.BICUBIC)
    water = 0.16 + 0.46 * np.clip(np.asarray(cloud), 0, 1)[..., None]
    return (soft * (1 - water) + 252 * water) * (1 - 1.1 * edge)


def _lines(plan: Floats, t: Traits, draws: Draws) -> Floats:
    """Parallel lines in the plan's colours: thick where it is far from the paper's tone, thin where it is near."""
    x, y = _grid(plan.shape[0])
    cos, sin = np.cos(t.angle), np.sin(t.angle)
    along, across = x * cos + y * sin, y * cos - x * sin
    phase = (across / (0.046 * t.mark) + 0.35 * np.sin(along * 14 + t.angle * 9)) % 1
    ground = np.array(t.ground, dtype=np.float32)
    contrast = np.abs(plan - ground).mean(2) / 255
    drawn = np.abs(phase - 0.5) < 0.3 + 0.22 * np.clip(contrast, 0, 0.8)
    return np.where(drawn[..., None], plan, ground)


TECHNIQUES: dict[str, Callable[[Floats, Traits, Draws], Floats]] = {
    "dots": _dots, "dashes": _dashes, "swirls": _swirls, "slabs": _slabs, "mosaic": _mosaic, "glass": _glass,
    "cubism": _cubism, "poster": _poster, "watercolor": _watercolor, "lines": _lines, "stitches": _stitches,
    "woodcut": _woodcut,
}  # fmt: skip
