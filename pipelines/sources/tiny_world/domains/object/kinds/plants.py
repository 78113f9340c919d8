"""What grows."""

from __future__ import annotations

import numpy as np

from pipelines.sources.tiny_world.domains.object.kind import Kind
from pipelines.sources.tiny_world.domains.object.thing import Thing
from pipelines.sources.tiny_world.pen import Color, Pen, darker, ellipse, lighter, mirrored, points, smooth

_BARK: Color = (112, 72, 44)
_STEM: Color = (58, 138, 62)


def _tree(pen: Pen, it: Thing) -> None:
    low = it.between(0, 0.3, 0.5)
    half = it.between(1, 0.1, 0.16)
    pen.shape(mirrored([(0, low - 0.4), (half, low - 0.4), (half * 1.4, 0.94), (half * 2, 1.0), (0, 1.0)]), _BARK)
    shape = it.pick(2, ("round", "cloud", "cone"))
    if shape == "cone":
        for share in (0.0, 0.3, 0.6):
            wide, top = 0.86 - 0.62 * share, low - 0.75 - 0.9 * share
            pen.shape(points((0, top), (wide, low - 0.85 * share), (-wide, low - 0.85 * share)), it.color)
    elif shape == "round":
        pen.shape(ellipse(0, -0.32, 0.82, 0.7, 28), it.color)
        pen.shape(ellipse(-0.26, -0.52, 0.36, 0.28, 18), lighter(it.color, 0.16), 0)
    else:
        blobs = ((-0.5, -0.1, 0.44), (0.5, -0.06, 0.44), (-0.26, -0.56, 0.46), (0.3, -0.54, 0.44), (0, -0.2, 0.5))
        for x, y, r in blobs:
            pen.shape(ellipse(x, y, r, r * 0.9, 20), it.color)
        pen.shape(ellipse(0, -0.22, 0.52, 0.44, 20), lighter(it.color, 0.1), 0)
    if it.between(3, 0, 1) < 0.6 and shape != "cone":
        spots = points((-0.42, -0.2), (0.38, -0.5), (0.1, -0.08), (-0.16, -0.6), (0.48, 0.0))
        pen.dots(spots, it.width(0.105), it.accent)


def _flower(pen: Pen, it: Thing) -> None:
    pen.rope(smooth([(0.02, -0.2), (-0.06, 0.4), (0.02, 1.0)], False), _STEM, it.width(0.1))
    for side in (-1, 1):
        leaf = smooth([(0, 0.78), (side * 0.28, 0.42), (side * 0.66, 0.4), (side * 0.4, 0.72)])
        pen.shape(leaf, lighter(_STEM, 0.1))
    n, length = it.pick(0, (5, 6, 8)), it.between(1, 0.3, 0.36)
    head, wide = np.array((0, -0.36)), it.between(2, 0.7, 1.0) * 1.5 / n + 0.02
    for angle in np.arange(n) * (2 * np.pi / n) - np.pi / 2:
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        pen.shape((ellipse(0.4, 0, length, wide, 16)) @ turn + head, it.color)
    pen.shape(ellipse(0, 0, 0.25, 0.25, 20) + head, it.pick(3, ((250, 200, 64), (122, 74, 40))))


def _apple(pen: Pen, it: Thing) -> None:
    w = it.between(0, 0.78, 0.9)
    pen.rope(smooth([(0, -0.4), (0.06, -0.66), (0.2, -0.82)], False), _BARK, it.width(0.11))
    pen.shape(
        smooth(mirrored([(0, -0.42), (0.36, -0.56), (w, -0.12), (w * 0.86, 0.6), (0.36, 1.02), (0, 0.92)])), it.color
    )
    pen.shape(smooth([(0.14, -0.66), (0.4, -0.94), (0.76, -0.88), (0.5, -0.62)]), (76, 164, 70))
    pen.shape(
        smooth(mirrored([(0, -0.42), (0.24, -0.5), (0.1, -0.34), (0, -0.32)]), steps=3), darker(it.color, 0.35), 0
    )
    it.gloss(pen, (-w * 0.62, 0.1), (-w * 0.5, -0.2), width=0.14)


def _pear(pen: Pen, it: Thing) -> None:
    w = it.between(0, 0.64, 0.78)
    pen.rope(smooth([(0, -0.86), (0.02, -1.0), (0.14, -1.14)], False), _BARK, it.width(0.11))
    pen.shape(smooth(mirrored([(0, -0.92), (0.28, -0.78), (0.38, -0.3), (w, 0.36), (0.5, 0.94), (0, 1.02)])), it.color)
    pen.shape(smooth([(0.06, -0.96), (0.36, -1.1), (0.66, -0.94), (0.34, -0.82)]), (76, 164, 70))
    it.gloss(pen, (-w * 0.58, 0.5), (-w * 0.52, 0.16), width=0.13)


_PETALS = ("red", "orange", "yellow", "blue", "purple", "pink", "white", "cyan")

KINDS = {
    "tree": Kind(_tree, patterned=False, colors=("green", "orange", "teal", "pink", "yellow"), forms=("wide", "tall")),
    "flower": Kind(_flower, patterned=False, colors=_PETALS, forms=("wide", "tall")),
    "apple": Kind(_apple, patterned=False, colors=("red", "green", "yellow", "maroon"), forms=("wide", "tall")),
    "pear": Kind(_pear, patterned=False, colors=("green", "yellow", "gold", "beige"), forms=("thick", "thin")),
}
