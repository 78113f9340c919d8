"""What people travel in."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from pipelines.sources.tiny_world.domains.object.kind import Kind
from pipelines.sources.tiny_world.domains.object.thing import Thing
from pipelines.sources.tiny_world.pen import Color, Pen, Points, darker, ellipse, lighter, points, rounded, smooth

_GLASS: Color = (172, 216, 240)
_TYRE: Color = (44, 42, 50)
_LAMP: Color = (255, 236, 150)


def _wheel(pen: Pen, it: Thing, x: float, r: float) -> None:
    pen.shape(ellipse(x, 1.0 - r, r, r), _TYRE)
    pen.shape(ellipse(x, 1.0 - r, r * 0.52, r * 0.52, 16), it.pick(7, ((210, 212, 220), it.accent)), 0.6)


def _car(pen: Pen, it: Thing) -> None:
    belt, roof, r = it.between(0, 0.08, 0.22), it.between(1, -0.55, -0.3), it.between(2, 0.27, 0.34)
    rear, front = it.between(3, -0.72, -0.4), it.between(4, 0.3, 0.52)
    cabin = smooth(
        [(rear - 0.2, belt + 0.05), (rear, roof + 0.04), (front - 0.2, roof), (front + 0.22, belt + 0.05)], steps=4
    )
    pen.shape(cabin, it.deep if it.between(5, 0, 1) < 0.4 else it.color)
    middle = (rear + front) / 2
    for left, right, upper in ((rear - 0.02, middle - 0.05, rear + 0.06), (middle + 0.05, front + 0.06, front - 0.18)):
        top = sorted((upper, left + 0.08 if upper > middle else right))
        pen.shape(
            points((top[0], roof + 0.13), (top[1], roof + 0.13), (right, belt - 0.02), (left, belt - 0.02)), _GLASS
        )
    hood = it.between(6, 0.02, 0.14)
    side = [(-1.04, belt + 0.04), (0.4, belt - 0.03), (0.94, belt + hood), (1.06, 0.5), (1.0, 0.8), (-1.0, 0.8)]
    it.body(pen, smooth([*side, (-1.08, 0.5)], steps=4))
    pen.shape(ellipse(0.97, belt + hood + 0.14, 0.09, 0.1, 14), _LAMP, 0.7)
    for x in (-0.58, 0.6):
        _wheel(pen, it, x, r)


def _truck(pen: Pen, it: Thing) -> None:
    cab, top = it.between(0, 0.28, 0.42), it.between(1, -0.75, -0.4)
    pen.box(-1.05, 0.56, 1.05, 0.78, (70, 70, 80))
    it.body(pen, rounded(-1.08, top, cab - 0.06, 0.66, 0.05))
    high = it.between(2, -0.3, -0.1)
    pen.shape(smooth([(cab, high), (cab + 0.4, high), (1.02, 0.16), (1.08, 0.66), (cab, 0.68)], steps=3), it.accent)
    pen.shape(points((cab + 0.14, high + 0.12), (cab + 0.4, high + 0.12), (0.86, 0.2), (cab + 0.14, 0.2)), _GLASS, 0.8)
    pen.shape(ellipse(1.0, 0.5, 0.08, 0.09, 12), _LAMP, 0.7)
    for x in (-0.7, -0.14, 0.7) if it.between(3, 0, 1) < 0.5 else (-0.6, 0.7):
        _wheel(pen, it, x, it.between(4, 0.23, 0.29))


def _bus(pen: Pen, it: Thing) -> None:
    top, n = it.between(0, -0.7, -0.35), it.pick(1, (3, 4))
    it.body(pen, rounded(-1.08, top, 1.08, 0.8, it.between(2, 0.1, 0.24)))
    pen.shape(rounded(-1.0, top + 0.16, 1.04, top + 0.64, 0.08), darker(it.color, 0.4), 0.6)
    edges = np.linspace(-0.94, 1.0, n + 1)
    for left, right in pairwise(edges.tolist()):
        pen.shape(rounded(left + 0.03, top + 0.2, right - 0.05, top + 0.6, 0.05), _GLASS, 0.7)
    pen.shape(ellipse(1.02, 0.55, 0.08, 0.1, 12), _LAMP, 0.7)
    for x in (-0.6, 0.62):
        _wheel(pen, it, x, it.between(4, 0.22, 0.28))


def _train(pen: Pen, it: Thing) -> None:
    """A steam engine."""
    high, funnel = it.between(0, -0.72, -0.5), it.between(1, 0.1, 0.17)
    pen.shape(
        points((-funnel, 0), (-funnel * 1.7, -0.62), (funnel * 1.7, -0.62), (funnel, 0)) + points((0.5, 0)), it.deep
    )
    for dx, dy, r in ((-0.02, -0.82, 0.17), (-0.3, -0.98, 0.12)):
        pen.shape(ellipse(0.5 + dx, dy, r * 1.2, r), (232, 232, 238), 0.7)
    it.body(pen, rounded(-0.5, -0.16, 0.94, 0.56, 0.26))
    it.body(pen, points((-1.04, high), (-0.3, high), (-0.3, 0.62), (-1.04, 0.62)))
    pen.shape(rounded(-1.14, high - 0.14, -0.2, high + 0.05, 0.05), it.accent)
    pen.shape(rounded(-0.88, high + 0.2, -0.46, high + 0.62, 0.06), _GLASS, 0.8)
    pen.shape(points((-1.06, 0.56), (0.98, 0.56), (1.16, 0.86), (-1.06, 0.78)), it.accent)
    pen.shape(ellipse(0.94, 0.12, 0.12, 0.14, 14), _LAMP, 0.7)
    for x, r in ((-0.7, 0.32), (0.02, 0.24), (0.56, 0.24)):
        _wheel(pen, it, x, r)


def _boat(pen: Pen, it: Thing) -> None:
    """With sails."""
    deck, mast = it.between(0, 0.38, 0.5), it.between(1, -0.12, 0.12)
    pen.rope(points((mast, -1.0), (mast, deck + 0.1)), (112, 74, 46), it.width(0.1))
    reach, low = it.between(2, 0.6, 0.85), deck - 0.12
    it.body(
        pen,
        smooth([(mast + 0.07, -0.95), (mast + reach * 0.6, -0.35), (mast + reach, low), (mast + 0.07, low)], steps=3),
    )
    if it.between(3, 0, 1) < 0.65:
        pen.shape(points((mast - 0.07, -0.72), (mast - 0.07, low), (mast - reach * 0.86, low)), it.pale)
    pen.shape(points((mast, -1.04), (mast - 0.32, -0.94), (mast, -0.82)), it.accent, 0.7)
    hull = [(-1.0, deck), (0, deck + 0.06), (1.05, deck - 0.02), (0.72, 0.92), (0.3, 1.0), (-0.5, 1.0), (-0.82, 0.88)]
    pen.shape(smooth(hull, steps=3), it.pick(4, (it.accent, (134, 84, 48), it.color)))
    band = points((-0.94, deck + 0.12), (0, deck + 0.18), (0.96, deck + 0.11))
    pen.stroke(band, lighter(it.second, 0.4), it.width(0.08), bold=False)


def _plane(pen: Pen, it: Thing) -> None:
    nose, tail = it.between(0, 0.16, 0.26), it.between(1, -0.66, -0.5)

    def wing(root: float, tip: float, y: float, far: float) -> Points:
        return points((root + 0.22, y), (root - 0.26, y), (tip - 0.24, far), (tip, far))

    reach = it.between(2, 0.55, 0.8)
    pen.shape(wing(0.16, -0.16, -0.1, -reach * 0.75), darker(it.accent, 0.3))
    pen.shape(points((-0.94, -0.02), (-1.08, tail), (-0.84, tail), (-0.5, -0.14)), it.accent)
    it.body(pen, smooth([(-1.1, -0.1), (-0.4, -nose), (0.5, -nose), (1.0, -0.02), (1.04, 0.1), (0.5, nose * 1.1),
        (-0.4, nose)], steps=4))  # fmt: skip
    pen.shape(wing(0.12, -0.3, 0.06, reach), it.accent)
    for x in np.linspace(-0.44, 0.4, it.pick(3, (3, 4))):
        pen.shape(ellipse(x, -0.06, 0.07, 0.075, 12), _GLASS, 0.6)
    pen.shape(points((0.6, -0.14), (0.78, -0.12), (0.9, -0.02), (0.62, -0.0)), _GLASS, 0.7)
    if it.between(4, 0, 1) < 0.5:
        pen.shape(ellipse(1.08, 0.03, 0.06, 0.36, 14), (110, 108, 118), 0.7)


KINDS = {
    "car": Kind(_car, forms=("long", "tall")),
    "truck": Kind(_truck, forms=("long", "tall")),
    "bus": Kind(_bus, forms=("long", "tall")),
    "train": Kind(_train, forms=("long", "tall")),
    "boat": Kind(_boat, forms=("wide", "tall")),
    "plane": Kind(_plane, stands=False),
}
