"""What people live in."""

from __future__ import annotations

import numpy as np

from pipelines.sources.tiny_world.domains.object.kind import Kind
from pipelines.sources.tiny_world.domains.object.thing import Thing
from pipelines.sources.tiny_world.pen import Color, Pen, darker, mirrored, points, rounded

_LIT: Color = (255, 226, 140)
_GLASS: Color = (168, 214, 240)


def _window(pen: Pen, it: Thing, x: float, y: float, r: float, light: Color) -> None:
    pen.shape(rounded(x - r, y - r, x + r, y + r, 0.03), (250, 246, 236), 0.7)
    pen.shape(rounded(x - r * 0.72, y - r * 0.72, x + r * 0.72, y + r * 0.72, 0.02), light, 0.4)
    pen.stroke(points((x, y - r * 0.7), (x, y + r * 0.7)), (250, 246, 236), it.width(0.035), bold=False)


def _house(pen: Pen, it: Thing) -> None:
    w, eaves, peak = it.between(0, 0.74, 0.9), it.between(1, -0.25, 0.1), it.between(2, -1.0, -0.75)
    roof, light = it.accent, it.pick(3, (_LIT, _GLASS))
    if it.between(4, 0, 1) < 0.7:
        pen.box(0.32, peak + 0.02, 0.58, eaves, darker(roof, 0.35))
    it.body(pen, points((-w, eaves), (w, eaves), (w, 1.0), (-w, 1.0)))
    style = it.pick(5, ("peak", "hip", "barn"))
    if style == "peak":
        pen.shape(points((0, peak), (w + 0.2, eaves + 0.06), (-w - 0.2, eaves + 0.06)), roof)
    elif style == "hip":
        pen.shape(
            points((-0.5, peak + 0.15), (0.5, peak + 0.15), (w + 0.2, eaves + 0.06), (-w - 0.2, eaves + 0.06)), roof
        )
    else:
        half = [(0, peak), (0.56, peak + 0.2), (w + 0.18, eaves + 0.06), (0, eaves + 0.06)]
        pen.shape(mirrored(half), roof)
    door = it.pick(6, (-0.42, 0.0))
    pen.shape(rounded(door - 0.2, 0.38, door + 0.2, 1.0, it.pick(7, (0.02, 0.18))), darker(it.second, 0.3))
    pen.dots(points((door + 0.1, 0.72)), it.width(0.045), (250, 214, 90))
    for x in (0.38,) if door < 0 else (-0.52, 0.52):
        _window(pen, it, x, 0.45, 0.22 if door < 0 else 0.18, light)


def _tower(pen: Pen, it: Thing) -> None:
    """A castle's tower or a lighthouse."""
    w, foot, top = it.between(0, 0.34, 0.46), it.between(1, 0.46, 0.66), it.between(2, -0.55, -0.35)
    it.body(pen, mirrored([(0, top), (w, top), (foot, 1.0), (0, 1.03)]))
    if it.between(3, 0, 1) < 0.5:
        pen.shape(points((0, -1.05), (w + 0.2, top + 0.02), (-w - 0.2, top + 0.02)), it.accent)
    else:
        pen.box(-w - 0.14, top - 0.1, w + 0.14, top + 0.12, it.deep)
        for x in np.linspace(-w - 0.14, w - 0.1, 3):
            pen.box(x, top - 0.32, x + 0.24, top - 0.08, it.deep)
    for y in np.linspace(top + 0.36, 0.35, it.pick(4, (1, 2))):
        pen.shape(rounded(-0.13, y - 0.16, 0.13, y + 0.18, 0.12), it.pick(5, (_LIT, (50, 46, 70))), 0.8)
    pen.shape(rounded(-0.2, 0.56, 0.2, 1.03, 0.19), darker(it.accent, 0.45))


KINDS = {
    "house": Kind(_house, forms=("wide", "tall")),
    "tower": Kind(_tower, forms=("wide", "tall")),
}
