"""Eyes, nose, mouth and whiskers, and what a cat wears."""

from __future__ import annotations

import numpy as np

from pipelines.sources.tiny_world.domains.cat import coat
from pipelines.sources.tiny_world.domains.cat.body import Cat
from pipelines.sources.tiny_world.pen import Pen, Points, darker, ellipse, lighter, luminance, mix, points, smooth

_ACROSS = np.linspace(-1, 1, 13)
_ROUND = 1 - _ACROSS**2


def draw_eyes(pen: Pen, cat: Cat) -> None:
    """Both eyes; a shut one is a line."""
    for side, lids in zip((-1, 1), cat.pose.lids, strict=True):
        if lids:
            _open_eye(pen, cat, side, lids)
        else:
            _shut_eye(pen, cat, side)


def _rim(cat: Cat) -> tuple[int, int, int]:
    """Lids are dark; on dark fur they need a light edge to be seen."""
    fur = cat.traits.second if cat.traits.coat == "siamese" else cat.traits.fur
    return lighter(fur, 0.3) if luminance(fur) < 0.25 else darker(fur, 0.78)


def _open_eye(pen: Pen, cat: Cat, side: int, lids: float) -> None:
    t, p = cat.traits, cat.pose
    x0, y0 = side * t.eye_gap, 0.02
    half = t.eye_size * pen.ink.features
    opened = half * t.eye_open * lids
    xs = x0 + half * _ACROSS
    tilt = -(t.eye_tilt + 0.25 * (p.mood == "angry")) * half * _ACROSS * side
    upper, lower = y0 + tilt - opened * _ROUND**0.62, y0 + tilt + opened * 0.86 * _ROUND**0.7
    if p.mood == "angry":
        upper = np.maximum(upper, y0 - 0.5 * opened * (0.2 + side * _ACROSS))

    def almond(grow: float) -> Points:
        middle = (upper + lower) / 2
        wide = x0 + (xs - x0) * (1 + grow / half)
        top, low = middle + (upper - middle) * 1.0 - grow, middle + (lower - middle) + grow
        return cat.turn(np.concatenate([np.stack([wide, top], 1), np.stack([wide, low], 1)[::-1]]))

    pen.shape(almond(0.055), _rim(cat), 0)
    pen.shape(almond(0.0), pen.inked(darker(t.iris[side > 0], 0.25)), 0)
    iris = ellipse(x0, y0 + opened * 0.12, half * 0.86, opened * 0.9, 20)
    pupil = ellipse(x0 + p.gaze[0] * half * 0.22, y0 + p.gaze[1] * opened * 0.15,
        half * (0.16 + 0.42 * p.pupil), opened * (0.78 + 0.06 * p.pupil), 18)  # fmt: skip
    for disc, color in ((iris, t.iris[side > 0]), (pupil, (14, 12, 18))):
        disc[:, 1] = np.clip(disc[:, 1], np.interp(disc[:, 0], xs, upper), np.interp(disc[:, 0], xs, lower))
        pen.shape(cat.turn(disc), color, 0)
    pen.dots(cat.turn(points((x0 - 0.07, y0 - 0.4 * opened))), 0.0135, (255, 255, 255))


def _shut_eye(pen: Pen, cat: Cat, side: int) -> None:
    """A lid's line, arched upwards when the cat is wide awake."""
    t = cat.traits
    bend = -1 if cat.pose.mood == "winking" else 1
    xs, half = side * t.eye_gap + t.eye_size * 0.9 * _ACROSS, 0.1
    ys = 0.06 + bend * half * (_ROUND - 0.4) - t.eye_tilt * 0.5 * t.eye_size * _ACROSS * side
    pen.stroke(cat.turn(np.stack([xs, ys], 1)), _rim(cat), 0.016)


def draw_muzzle(pen: Pen, cat: Cat) -> None:
    """Chin, pads, nose and mouth."""
    t, p = cat.traits, cat.pose
    color, m = coat.muzzle(t), t.muzzle
    line = darker(color, 0.68) if luminance(color) > 0.3 else darker(color, 0.9)
    if p.mouth > 0.5:
        _yawn(pen, cat)
    else:
        pen.shape(cat.turn(ellipse(0, 0.62, 0.2 * m, 0.15, 16), 0.1), color, 0)
    for side in (-1, 1):
        pen.shape(cat.turn(ellipse(side * 0.18 * m, 0.45, 0.25 * m, 0.18, 18), 0.14), color, 0)
    nose = smooth([(-0.13 * m, 0.24), (0, 0.21), (0.13 * m, 0.24), (0.05, 0.35), (0, 0.38), (-0.05, 0.35)], steps=3)
    pen.shape(cat.turn(nose * pen.ink.features**0.5, 0.18), t.nose, 0.4)
    if p.mouth <= 0.5:
        _mouth(pen, cat, line)


def _mouth(pen: Pen, cat: Cat, line: tuple[int, int, int]) -> None:
    """The curves below the nose; an open one shows the tongue."""
    lift = 0.05 if cat.pose.mood in ("happy", "winking") else -0.02 if cat.pose.mood == "angry" else 0.02
    if cat.pose.mouth:
        pen.shape(cat.turn(ellipse(0, 0.58, 0.1, 0.09, 14), 0.14), (150, 40, 58), 0)
        pen.shape(cat.turn(ellipse(0, 0.62, 0.07, 0.05, 12), 0.14), (240, 120, 136), 0)
    curve = [(-0.27, 0.55 - lift), (-0.14, 0.58), (0, 0.5), (0.14, 0.58), (0.27, 0.55 - lift)]
    pen.stroke(cat.turn(smooth(curve, closed=False), 0.14), line, 0.0085)
    pen.stroke(cat.turn(points((0, 0.38), (0, 0.5)), 0.16), line, 0.0085)


def _yawn(pen: Pen, cat: Cat) -> None:
    m = cat.traits.muzzle
    pen.shape(cat.turn(ellipse(0, 0.68, 0.29 * m, 0.25), 0.1), coat.muzzle(cat.traits), 0.7)
    pen.shape(cat.turn(ellipse(0, 0.66, 0.21 * m, 0.2), 0.1), (112, 26, 42), 0)
    pen.shape(cat.turn(ellipse(0, 0.76, 0.14 * m, 0.1), 0.1), (240, 120, 136), 0)
    for side in (-1, 1):
        tooth = points((side * 0.14 * m, 0.54), (side * 0.07 * m, 0.54), (side * 0.1 * m, 0.68))
        pen.shape(cat.turn(tooth, 0.1), (252, 250, 244), 0)


def draw_whiskers(pen: Pen, cat: Cat) -> None:
    """Three on each side, past the cheeks."""
    t = cat.traits
    color = (58, 52, 58) if luminance(t.fur) > 0.45 else (244, 242, 240)
    for side in (-1, 1):
        for y, rise in ((0.38, 0.18), (0.46, 0.04), (0.53, -0.1)):
            tip = side * (t.width * 0.92 + 0.5 * t.whiskers * (1 - 0.5 * side * cat.pose.yaw))
            curve = [(side * 0.34, y), ((side * 0.34 + tip) / 2, y - rise * 0.7), (tip, y - rise)]
            pen.stroke(smooth(curve, closed=False, steps=4), color, 0.006)


def draw_neckwear(pen: Pen, cat: Cat) -> None:
    """Between head and chest."""
    t = cat.traits
    if t.neckwear == "none":
        return
    c = t.cloth
    band = [(-0.66, 0.6), (-0.3, 0.86), (0, 0.92), (0.3, 0.86), (0.66, 0.6), (0.7, 0.8), (0.34, 1.08), (0, 1.14),
        (-0.34, 1.08), (-0.7, 0.8)]  # fmt: skip
    if t.neckwear == "scarf":
        pen.shape(points((-0.62, 0.9), (0.62, 0.9), (0.06, 1.72), (-0.06, 1.72)), darker(c, 0.12))
        pen.dots(points((-0.2, 1.2), (0.2, 1.2), (0, 1.45)), 0.014, mix(c, (255, 255, 255), 0.75))
    pen.shape(smooth(band), c)
    if t.neckwear == "necklace":
        pen.shape(ellipse(0, 1.2, 0.14, 0.14, 16), (248, 204, 72), 0.7)
        pen.dots(points((0, 1.24)), 0.009, (120, 80, 20))
    if t.neckwear == "tie":
        for side in (-1, 1):
            bow = [(0, 1.16), (side * 0.46, 0.9), (side * 0.54, 1.18), (side * 0.46, 1.46)]
            pen.shape(smooth(bow, steps=3), c, 0.8)
        pen.shape(ellipse(0, 1.17, 0.12, 0.13, 12), darker(c, 0.3), 0.6)
