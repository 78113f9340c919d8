"""What children play with."""

from __future__ import annotations

import numpy as np

from pipelines.sources.tiny_world.domains.object.kind import Kind
from pipelines.sources.tiny_world.domains.object.thing import Thing
from pipelines.sources.tiny_world.pen import Color, Pen, darker, ellipse, lighter, mirrored, points, rounded, smooth

_NIGHT: Color = (28, 24, 32)


def _ball(pen: Pen, it: Thing) -> None:
    r = it.between(0, 0.78, 0.92)
    middle = np.array((0, 1 - r))
    outline = ellipse(0, 0, r, r, 36) + middle
    it.body(pen, outline)
    if it.traits.pattern == "solid":
        with pen.inside(outline) as inner:
            bend = it.between(1, 0.3, 0.6)
            for way in (-1, 1):
                curve = [(way * r * 1.1, -r), (way * bend * r, 0), (way * r * 1.1, r)]
                inner.stroke(
                    smooth(curve, False) @ _turn(it.between(2, 0, 3)) + middle, it.second, it.width(0.15), bold=False
                )
            inner.shape(ellipse(0, 0, 0.2, 0.2, 16) + middle, it.second, 0.6)
        pen.outline(outline, it.color)
    it.gloss(pen, (-r * 0.5, 1 - r * 1.4), (-r * 0.34, 1 - r * 1.56), width=0.15)


def _turn(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def _balloon(pen: Pen, it: Thing) -> None:
    w = it.between(0, 0.6, 0.72)
    string = smooth([(0, 0.5), (0.12, 0.75), (-0.1, 0.98), (0.08, 1.22)], False)
    pen.stroke(string, (96, 90, 100), it.width(0.055))
    pen.shape(points((0, 0.38), (0.14, 0.58), (-0.14, 0.58)), it.deep)
    shape = it.pick(1, ("round", "round", "heart"))
    half = [(0, -0.96), (w * 0.66, -0.82), (w, -0.36), (w * 0.74, 0.16), (0.16, 0.44), (0, 0.48)]
    if shape == "heart":
        half = [(0, -0.62), (w * 0.44, -0.92), (w * 1.08, -0.64), (w * 0.94, -0.16), (0.3, 0.34), (0, 0.5)]
    it.body(pen, smooth(mirrored(half)))
    it.gloss(pen, (-w * 0.62, -0.38), (-w * 0.44, -0.66), width=0.13)


def _robot(pen: Pen, it: Thing) -> None:
    head, wide = it.between(0, 0.4, 0.6), it.between(1, 0.5, 0.66)
    metal: Color = it.pick(2, ((176, 182, 194), (120, 126, 140), it.deep))
    for side in (-1, 1):
        pen.rope(points((side * 0.26, 0.6), (side * 0.3, 0.9)), metal, it.width(0.17))
        pen.shape(rounded(side * 0.32 - 0.24, 0.84, side * 0.32 + 0.24, 1.0, 0.07), it.deep)
        lift = it.pick(3, (0.5, -0.15)) if side > 0 else 0.5
        pen.rope(
            smooth([(side * wide, 0.1), (side * (wide + 0.24), 0.2), (side * (wide + 0.28), lift)], False),
            metal,
            it.width(0.15),
        )
        pen.shape(ellipse(side * (wide + 0.28), lift, 0.13, 0.13, 14), it.accent, 0.8)
    it.body(pen, rounded(-wide, -0.1, wide, 0.7, it.between(4, 0.06, 0.2)))
    pen.rope(points((0, -0.95), (0, -0.7)), metal, it.width(0.08))
    pen.shape(ellipse(0, -0.98, 0.13, 0.13, 14), it.accent)
    pen.shape(rounded(-head, -0.8, head, -0.12, it.between(5, 0.06, 0.24)), lighter(it.color, 0.15))
    for side in (-1, 1):
        pen.shape(ellipse(side * head * 0.46, -0.5, 0.15, 0.15, 16), (255, 250, 220), 0.7)
        pen.dots(points((side * head * 0.46 + 0.06 * (it.pose.moment - 0.5), -0.49)), it.width(0.085), _NIGHT)
    pen.stroke(points((-head * 0.4, -0.25), (head * 0.4, -0.25)), it.dark, it.width(0.07))
    pen.shape(rounded(-0.26, 0.12, 0.26, 0.5, 0.06), it.accent, 0.8)


def _teddy(pen: Pen, it: Thing) -> None:
    fur, muzzle = it.color, lighter(it.color, 0.5)
    ear, belly = it.between(0, 0.2, 0.28), it.between(1, 0.5, 0.62)
    for side in (-1, 1):
        pen.shape(ellipse(side * 0.5, -0.74, ear, ear, 18), fur)
        pen.shape(ellipse(side * 0.5, -0.74, ear * 0.55, ear * 0.55, 14), muzzle, 0.5)
        pen.shape(smooth([(side * 0.4, 0.0), (side * 0.92, 0.3), (side * 0.8, 0.52), (side * 0.4, 0.36)]), fur)
    pen.shape(ellipse(0, 0.45, belly, 0.52), fur)
    pen.shape(ellipse(0, 0.5, belly * 0.6, 0.32), muzzle, 0.5)
    for side in (-1, 1):
        pen.shape(ellipse(side * 0.5, 0.82, 0.27, 0.2, 18), darker(fur, 0.08))
        pen.shape(ellipse(side * 0.5, 0.84, 0.14, 0.1, 14), muzzle, 0.5)
    pen.shape(ellipse(0, -0.42, it.between(2, 0.56, 0.66), 0.5, 28), fur)
    pen.shape(ellipse(0, -0.26, 0.29, 0.22, 18), muzzle, 0.7)
    pen.shape(ellipse(0, -0.36, 0.11, 0.08, 12), _NIGHT, 0)
    pen.dots(points((-0.24, -0.52), (0.24, -0.52)), it.width(0.075) * pen.ink.features, _NIGHT)
    pen.stroke(smooth([(-0.12, -0.2), (0, -0.15), (0.12, -0.2)], False), (90, 50, 44), it.width(0.05))
    if it.between(3, 0, 1) < 0.65:
        for side in (-1, 1):
            pen.shape(points((0, 0.04), (side * 0.3, -0.1), (side * 0.3, 0.2)), it.accent)


def _box(pen: Pen, it: Thing) -> None:
    """A present: a box seen from its corner, with a ribbon."""
    top, skew = it.between(0, -0.3, -0.05), it.between(1, -0.1, 0.35)
    lid = points((skew - 0.1, top - 0.36), (1.0, top - 0.1), (skew, top + 0.22), (-1.0, top - 0.08))
    left = points((-1.0, top - 0.08), (skew, top + 0.22), (skew, 1.05), (-0.94, 0.72))
    right = points((skew, top + 0.22), (1.0, top - 0.1), (0.94, 0.7), (skew, 1.05))
    it.body(pen, left)
    pen.shape(right, it.deep)
    pen.shape(lid, it.pale)

    def ribbon(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> None:
        ends = [a + (b - a) * 0.4, a + (b - a) * 0.6, d + (c - d) * 0.6, d + (c - d) * 0.4]
        pen.shape(np.stack(ends), it.accent, 0.8)

    ribbon(*left[[0, 1, 2, 3]])
    ribbon(*right[[0, 1, 2, 3]])
    ribbon(*lid[[0, 1, 2, 3]])
    ribbon(*lid[[1, 2, 3, 0]])
    knot = np.array((skew * 0.5, top - 0.12))
    for side in (-1, 1):
        loop = smooth([(0, 0), (side * 0.2, -0.4), (side * 0.5, -0.42), (side * 0.42, -0.1)])
        pen.shape(loop * it.between(2, 0.8, 1.1) + knot, it.accent)


KINDS = {
    "ball": Kind(_ball),
    "balloon": Kind(_balloon, forms=("round", "long"), stands=False),
    "robot": Kind(_robot, forms=("wide", "tall")),
    "teddy": Kind(
        _teddy, patterned=False, colors=("brown", "beige", "white", "pink", "grey", "gold"), forms=("wide", "tall")
    ),
    "box": Kind(_box, forms=("wide", "tall")),
}
