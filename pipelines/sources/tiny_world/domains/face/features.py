"""Eyes, brows, nose, mouth, and what is on the skin."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipelines.sources.tiny_world.domains.face.head import Head
from pipelines.sources.tiny_world.pen import (
    Color,
    Pen,
    Points,
    columns,
    darker,
    ellipse,
    evenly,
    lighter,
    luminance,
    mix,
    points,
    smooth,
)

Line = NDArray[np.float64]
"""Heights along a feature, (N,)."""

_ACROSS = np.linspace(-1, 1, 13)
_ROUND = 1 - _ACROSS**2
_UPPER_LID, _LOWER_LID = _ROUND**0.75, _ROUND**0.8
_ALONG = np.linspace(0, 1, 7)
_EYE_LINE = 0.04


def draw_skin_marks(pen: Pen, head: Head) -> None:
    """Blush, freckles, a mole."""
    t = head.traits
    for side in (-1, 1):
        for size, share in ((0.22, 0.35), (0.15, 0.7), (0.09, 1.0)):
            cheek = ellipse(side * 0.46, 0.38, size, size * 0.72, 14)
            pen.shape(head.turn(cheek), mix(t.skin, (236, 84, 84), t.blush * share), 0)
    if t.freckles:
        spots = [(s * x, y) for s in (-1, 1) for x, y in ((0.2, 0.3), (0.34, 0.24), (0.46, 0.32),
            (0.3, 0.42), (0.42, 0.44), (0.08, 0.22))]  # fmt: skip
        pen.dots(head.turn(points(*spots)), 0.0075, darker(mix(t.skin, (176, 84, 40), 0.5), 0.15))
    if t.mole:
        pen.dots(head.turn(points(t.mole)), 0.0105, (58, 34, 30))


def draw_eyes(pen: Pen, head: Head) -> None:
    """Both eyes with lids and lashes."""
    for side in (-1, 1):
        _eye(pen, head, side)


def _eye(pen: Pen, head: Head, side: int) -> None:
    t, p = head.traits, head.pose
    x0, half = side * t.eye_gap * t.width / 0.78, t.eye_size * pen.ink.features
    opened = half * t.eye_open * p.lids
    xs = x0 + half * _ACROSS
    tilt = -t.eye_tilt * half * _ACROSS * side
    squint = 0.35 * max(p.smile, 0.0)  # cheeks push the lower lid up
    upper = _EYE_LINE + tilt - opened * _UPPER_LID
    lower = _EYE_LINE + tilt + opened * (0.8 - squint) * _LOWER_LID
    edges = np.concatenate([upper - 0.075 * _ROUND, (lower + 0.05 * _ROUND)[::-1], upper, lower[::-1]])
    around = head.turn(columns(np.concatenate([xs, xs[::-1]] * 2), edges))  # all at once: turning has a price a call
    socket, ball = around[:26], around[26:]
    upper_lid, lower_lid = ball[:13], ball[:12:-1]
    pen.shape(socket, darker(t.skin, 0.16), 0)
    pen.shape(ball, (252, 250, 246), 0)
    gaze = np.array((x0 + p.gaze[0] * half * 0.28, _EYE_LINE + p.gaze[1] * opened * 0.25))
    sizes = [radius * pen.ink.features for radius in (0.122, 0.104, 0.054)]
    discs = gaze + np.concatenate([ellipse(0, 0, size, size, 18) for size in sizes])
    x, y = discs[:, 0], discs[:, 1]
    discs[:, 1] = np.minimum(np.maximum(y, np.interp(x, xs, upper)), np.interp(x, xs, lower))
    discs = head.turn(discs)
    for i, color in enumerate((pen.inked(darker(t.iris, 0.45)), t.iris, (14, 12, 18))):
        pen.shape(discs[18 * i : 18 * (i + 1)], color, 0)
    pen.dots(head.turn(gaze[None] + (0.035, -0.045)), 0.0078, (255, 255, 255))
    lash = mix(darker(t.skin, 0.75), (20, 14, 18), 0.6)
    pen.stroke(upper_lid, lash, 0.0125 if t.lashes else 0.0095)
    pen.stroke(lower_lid[2:-2], darker(t.skin, 0.4), 0.005)
    if t.lashes:
        corner = np.array((x0 + side * half, _EYE_LINE - t.eye_tilt * half))
        flick = corner + points((0, 0), (side * 0.075, -0.085))
        pen.stroke(head.turn(flick), lash, 0.011)


def draw_brows(pen: Pen, head: Head) -> None:
    """Brows in a darker tone of the hair."""
    t, p = head.traits, head.pose
    color = darker(t.hair_color, 0.35 if luminance(t.hair_color) > 0.25 else 0.1)
    if abs(luminance(color) - luminance(t.skin)) < 0.12:
        color = darker(t.skin, 0.6)
    for side in (-1, 1):
        inner = -0.14 * min(p.smile, 0.0) - 0.6 * t.brow_tilt * 0.3
        u = _ALONG
        xs = side * (0.13 + 0.43 * u) * t.width / 0.78
        middle = -0.25 - p.brows - t.brow_arch * 4 * u * (1 - u) * 0.9 - inner * (1 - u) + t.brow_tilt * (0.5 - u) * 0.5
        if p.mood == "serious":
            middle = middle + 0.06 * (1 - u)
        thick = t.brow_width * (1 - 0.6 * u) * pen.ink.bold**0.5
        top, low = columns(xs, middle - thick / 2), columns(xs, middle + thick / 2)
        pen.shape(head.turn(np.concatenate([top, low[::-1]])), pen.inked(color), 0)


def draw_nose(pen: Pen, head: Head) -> None:
    """A bridge in shadow on the dark side, a tip, nostrils."""
    t, far = head.traits, -head.pose.light
    wide = 0.1 * t.nose_width * {"button": 1.0, "straight": 0.95, "broad": 1.5, "pointed": 0.85}[t.nose]
    tip = _EYE_LINE + t.nose_length * (0.88 if t.nose == "button" else 1.0)
    line, side = darker(t.skin, 0.36), 1 if far > 0 else -1

    def at(*xy: tuple[float, float], depth: float = 0.12) -> Points:
        return head.turn(points(*xy), depth)

    if t.nose != "button":
        shadow = points((side * 0.035, -0.06), (side * 0.05, tip - 0.12), (side * wide, tip), (side * 0.01, tip + 0.01))
        pen.shape(head.turn(shadow, 0.1), darker(t.skin, 0.15), 0)
    ball = 0.08 if t.nose == "pointed" else 0.1
    pen.shape(head.turn(ellipse(0, tip - 0.03, ball * t.nose_width, ball * 0.85, 14), 0.14), lighter(t.skin, 0.1), 0)
    base = smooth([(-wide, tip - 0.045), (-wide * 0.75, tip + 0.035),
        (0, tip + (0.075 if t.nose == "pointed" else 0.045)), (wide * 0.75, tip + 0.035),
        (wide, tip - 0.045)], closed=False)  # fmt: skip
    pen.stroke(head.turn(base, 0.12), line, 0.0085)
    pen.dots(at((-wide * 0.45, tip + 0.035), (wide * 0.45, tip + 0.035)), 0.0062, darker(t.skin, 0.6))


def draw_mouth(pen: Pen, head: Head) -> None:
    """Lips; an open mouth shows teeth and tongue."""
    t, p = head.traits, head.pose
    y0 = 0.6 if not p.mouth else 0.57
    half = t.mouth_width * pen.ink.features * (1 + 0.22 * max(p.smile, 0)) * (0.62 if p.mood == "surprised" else 1.0)
    xs = half * _ACROSS
    bend = -0.11 * p.smile * _ACROSS**2
    seam = y0 + bend + 0.03 * p.smile
    gap = p.mouth * (0.2 if p.smile > 0 else 0.17) * _ROUND**0.6
    bow = 1 - 0.35 * np.exp(-((_ACROSS / 0.22) ** 2))  # cupid's bow
    rise = (0.35 if p.smile > 0 else 0.5) * gap
    inner_top, inner_low = seam - rise, seam - rise + gap

    def curve(ys: Line) -> Points:
        return head.turn(columns(xs, ys), 0.03)

    outer = np.concatenate(
        [curve(inner_top - t.lip * _ROUND**0.5 * bow), curve(inner_low + 1.3 * t.lip * _ROUND**0.6)[::-1]]
    )
    pen.shape(outer, t.lip_color, 0.5)
    if p.mouth:
        _open_mouth(pen, curve, inner_top, inner_low, p.smile > 0)
    else:
        pen.stroke(curve(seam), darker(t.lip_color, 0.6), 0.0085)


def _open_mouth(pen: Pen, curve: Callable[[Line], Points], top: Line, low: Line, teeth: bool) -> None:
    pen.shape(np.concatenate([curve(top), curve(low)[::-1]]), (74, 16, 26), 0)
    pen.shape(np.concatenate([curve(low - 0.42 * (low - top)), curve(low)[::-1]])[4:-4], (214, 84, 92), 0)
    if teeth:
        pen.shape(np.concatenate([curve(top), curve(np.minimum(top + 0.075, low))[::-1]]), (250, 248, 242), 0)


def draw_beard(pen: Pen, head: Head) -> None:
    """Below the mouth's shapes: stubble, goatee, short or long beard; the moustache comes over them."""
    t = head.traits
    color: Color = darker(t.hair_color, 0.12)
    if t.beard == "none":
        return
    if t.beard == "stubble":
        color = mix(t.skin, t.hair_color if luminance(t.hair_color) < 0.5 else (70, 60, 58), 0.3)
    if t.beard in ("stubble", "beard", "long beard"):
        _full_beard(pen, head, color, 1.55 if t.beard == "long beard" else 1.06)
    if t.beard == "goatee":
        patch = smooth([(-0.26, 0.62), (-0.2, 0.86), (0, 1.16), (0.2, 0.86), (0.26, 0.62), (0, 0.74)])
        pen.shape(head.turn(patch, 0.04), color, 0.8)


def _full_beard(pen: Pen, head: Head, color: Color, chin: float) -> None:
    y = evenly(0.2, 0.97, 8)
    edge = head.half(y) + (0.015 if chin < 1.1 else 0.03)
    side = columns(edge, y)
    below = np.array([(0.36, chin * 0.98), (0, chin + 0.06)]) if chin > 1.1 else np.array([(0, chin)])
    right = np.concatenate([side if chin < 1.1 else side[:-2], below])
    cheek = np.array([(-head.traits.width * 0.86, 0.34), (-0.44, 0.52), (-0.2, 0.46), (0, 0.47),
        (0.2, 0.46), (0.44, 0.52), (head.traits.width * 0.86, 0.34)])  # fmt: skip
    outline = np.concatenate([right, (right * (-1, 1))[-2::-1], cheek])
    pen.shape(smooth(outline, steps=3), color, 0.8)
    if chin > 1.1:
        for x in (-0.24, 0.0, 0.24):
            pen.stroke(points((x, 0.86), (x * 0.7, chin - 0.1)), darker(color, 0.25), 0.007)


def draw_moustache(pen: Pen, head: Head) -> None:
    """Over the upper lip."""
    t = head.traits
    if t.beard not in ("moustache", "goatee", "beard", "long beard"):
        return
    w = t.mouth_width * 1.05
    y = 0.485 - 0.015 * head.pose.smile
    lift = 0.06 if t.beard == "moustache" else -0.03
    half = [(0, y - 0.055), (w * 0.55, y - 0.05), (w * 1.08, y + 0.07 - lift), (w * 0.6, y + 0.07), (0, y + 0.045)]
    right = np.array(half)
    outline = np.concatenate([right, (right * (-1, 1))[-2:0:-1]])
    pen.shape(head.turn(smooth(outline, steps=4), 0.06), darker(t.hair_color, 0.18), 0.7)


def draw_glasses(pen: Pen, head: Head) -> None:
    """Frames before the eyes, with a glint."""
    t = head.traits
    if t.glasses == "none":
        return
    x0 = t.eye_gap * t.width / 0.78
    wide = min(0.29, x0 - 0.05)
    for side in (-1, 1):
        lens = _lens(t.glasses, wide, side) + points((side * x0, _EYE_LINE))
        ring = head.turn(lens, 0.05)
        pen.stroke(np.concatenate([ring, ring[:2]]), t.frame, 0.0135)
        glint = head.turn(
            points((side * x0 - wide * 0.62, _EYE_LINE - 0.06), (side * x0 - wide * 0.4, _EYE_LINE - 0.16)), 0.05
        )
        pen.stroke(glint, (255, 255, 255), 0.007, bold=False)
        pen.stroke(head.turn(points((side * (x0 + wide), -0.02), (side * t.width * 1.02, -0.06)), 0.0), t.frame, 0.011)
    pen.stroke(head.turn(smooth([(-x0 + wide, 0.0), (0, -0.05), (x0 - wide, 0.0)], closed=False), 0.1), t.frame, 0.0125)


def _lens(kind: str, wide: float, side: int) -> Points:
    if kind == "round":
        return ellipse(0, 0.01, wide, wide * 0.95, 22)
    if kind == "square":
        h = wide * 0.82
        return points((-wide, -h), (wide, -h), (wide * 0.92, h), (-wide * 0.92, h))
    return smooth([(-side * wide, -0.1), (side * wide * 1.12, -0.24), (side * wide * 0.8, 0.14), (0, 0.2),
        (-side * wide * 0.85, 0.13)], steps=4)  # fmt: skip
