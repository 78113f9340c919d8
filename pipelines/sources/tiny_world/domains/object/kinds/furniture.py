"""What stands in a room."""

from __future__ import annotations

import numpy as np

from pipelines.sources.tiny_world.domains.object.kind import Kind
from pipelines.sources.tiny_world.domains.object.thing import Thing
from pipelines.sources.tiny_world.pen import Color, Pen, Points, darker, ellipse, lighter, mirrored, points, rounded

_WOOD: tuple[Color, ...] = ((150, 98, 56), (104, 66, 42), (206, 160, 104), (70, 50, 44))


def _chair(pen: Pen, it: Thing) -> None:
    wood, back = it.pick(0, _WOOD), it.between(1, -0.98, -0.7)
    seat, leg = it.between(2, 0.1, 0.28), it.width(it.between(3, 0.12, 0.17))
    for x0, x1, low in ((-0.5, -0.54, 0.86), (0.62, 0.68, 0.86)):
        pen.rope(points((x0, seat), (x1, low)), darker(wood, 0.35), leg)
    for x in (-0.56, 0.52):
        pen.rope(points((x, back + 0.05), (x, seat)), wood, leg)
    if it.between(4, 0, 1) < 0.5:
        it.body(pen, rounded(-0.66, back - 0.04, 0.62, seat - 0.22, it.between(5, 0.06, 0.28)))
    else:
        for y in np.linspace(back + 0.05, seat - 0.42, 3):
            pen.shape(rounded(-0.62, y, 0.58, y + 0.17, 0.05), it.color)
    it.body(pen, points((-0.62, seat - 0.14), (0.66, seat - 0.14), (0.8, seat + 0.14), (-0.72, seat + 0.14)))
    pen.shape(rounded(-0.74, seat + 0.12, 0.82, seat + 0.26, 0.04), it.deep)
    for x0, x1 in ((-0.66, -0.7), (0.72, 0.76)):
        pen.rope(points((x0, seat + 0.26), (x1, 0.97)), wood, leg)


def _table(pen: Pen, it: Thing) -> None:
    wood, top = it.pick(0, _WOOD), it.between(1, -0.42, -0.1)
    if it.between(2, 0, 1) < 0.45:
        pen.rope(points((0, top), (0, 0.86)), wood, it.width(0.2))
        pen.shape(mirrored([(0, 0.78), (0.2, 0.82), (0.6, 0.98), (0, 1.0)]), wood)
        cloth: Points = np.concatenate([ellipse(0, top, 1.05, 0.26)[12:], points((1.05, top), (0.96, top + 0.4),
            (0.5, top + 0.52), (0, top + 0.54), (-0.5, top + 0.52), (-0.96, top + 0.4))])  # fmt: skip
    else:
        for x in (-0.66, 0.66):
            pen.rope(points((x, top), (x, 0.76)), darker(wood, 0.35), it.width(0.13))
        for x in (-0.88, 0.88):
            pen.rope(points((x, top), (x, 0.97)), wood, it.width(0.15))
        cloth = points((-0.84, top - 0.2), (0.84, top - 0.2), (1.06, top + 0.1), (1.0, top + 0.42), (-1.0, top + 0.42),
            (-1.06, top + 0.1))  # fmt: skip
    it.body(pen, cloth)
    round_edge = points((-1.05, top + 0.1), (-0.5, top + 0.19), (0, top + 0.21), (0.5, top + 0.19), (1.05, top + 0.1))
    pen.stroke(round_edge, it.dark, it.width(0.045))


def _lamp(pen: Pen, it: Thing) -> None:
    low, upper, shade = it.between(0, 0.6, 0.85), it.between(1, 0.28, 0.5), it.between(2, -0.1, 0.12)
    foot = it.pick(3, ("ball", "stem", "cone"))
    pen.rope(points((0, shade - 0.1), (0, 0.9)), it.accent, it.width(0.12))
    if foot == "ball":
        pen.shape(ellipse(0, 0.55, 0.34, 0.32), it.accent)
    elif foot == "cone":
        pen.shape(mirrored([(0, 0.3), (0.12, 0.3), (0.4, 0.95), (0, 0.95)]), it.accent)
    pen.shape(mirrored([(0, 0.84), (0.34, 0.86), (0.5, 1.0), (0, 1.02)]), darker(it.accent, 0.3))
    pen.shape(ellipse(0, shade, low * 0.96, 0.13), (255, 236, 150))
    it.body(pen, mirrored([(0, -1.0), (upper, -1.0), (low, shade), (0, shade + 0.1)]))
    it.gloss(pen, (-upper * 0.66, -0.8), (-low * 0.66, shade - 0.16), width=0.07)


def _clock(pen: Pen, it: Thing) -> None:
    square = it.between(0, 0, 1) < 0.3
    rim, face = it.between(1, 0.16, 0.26), it.pick(2, ((252, 250, 240), (252, 250, 240), (236, 226, 196)))
    for side in (-1, 1):
        pen.rope(points((side * 0.4, 0.6), (side * 0.6, 0.96)), it.deep, it.width(0.16))
        if it.between(3, 0, 1) < 0.6:
            pen.shape(ellipse(side * 0.5, -0.72, 0.3, 0.24), it.accent)
    it.body(pen, rounded(-0.86, -0.76, 0.86, 0.9, 0.2) if square else ellipse(0, 0.06, 0.86, 0.86, 32))
    inner = 0.86 - rim
    pen.shape(rounded(-inner, 0.06 - inner, inner, 0.06 + inner, 0.12) if square else ellipse(0, 0.06, inner, inner),
        face, 0.8)  # fmt: skip
    angle = np.arange(12 if it.between(4, 0, 1) < 0.4 else 4) / (12 if it.between(4, 0, 1) < 0.4 else 4) * 2 * np.pi
    pen.dots(np.stack([np.sin(angle), np.cos(angle)], 1) * inner * 0.8 + (0, 0.06), it.width(0.05), (40, 36, 44))
    for turns, reach, width in ((it.pose.moment, 0.42, 0.1), (12 * it.pose.moment, 0.68, 0.075)):
        x, y = np.sin(2 * np.pi * turns) * inner * reach, -np.cos(2 * np.pi * turns) * inner * reach
        pen.stroke(points((0, 0.06), (x, y + 0.06)), (34, 30, 40), it.width(width))


def _book(pen: Pen, it: Thing) -> None:
    """Standing, a little open: pages between two covers."""
    w, top, thick = it.between(0, 0.66, 0.82), it.between(1, -0.98, -0.7), it.between(2, 0.2, 0.36)
    pen.shape(
        points((-w, top), (w, top - 0.0), (w + thick, top + 0.16), (w + thick, 0.86), (w, 1.0), (-w, 1.0)), it.deep
    )
    pages = points((w, top + 0.06), (w + thick * 0.9, top + 0.2), (w + thick * 0.9, 0.82), (w, 0.94))
    pen.shape(pages - (0.1, 0), (246, 240, 222), 0.7)
    for share in (0.35, 0.65):
        x = w - 0.1 + thick * share
        pen.stroke(points((x, top + 0.16), (x, 0.86)), (186, 176, 156), it.width(0.03))
    it.body(pen, rounded(-w - 0.16, top, w - 0.08, 1.0, 0.06))
    pen.shape(points((-w - 0.16, top), (-w + 0.08, top), (-w + 0.08, 1.0), (-w - 0.16, 1.0)), it.deep)
    label = lighter(it.accent, 0.25)
    middle = -0.02
    if it.between(3, 0, 1) < 0.5:
        pen.shape(rounded(middle - 0.36, top + 0.26, middle + 0.36, top + 0.66, 0.05), label, 0.8)
    else:
        pen.shape(ellipse(middle, (top + 1) / 2, 0.32, 0.36), label, 0.8)


KINDS = {
    "chair": Kind(_chair, forms=("wide", "tall")),
    "table": Kind(_table, forms=("wide", "tall")),
    "lamp": Kind(_lamp, forms=("wide", "tall")),
    "clock": Kind(_clock),
    "book": Kind(_book, forms=("wide", "tall")),
}
