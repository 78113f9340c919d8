"""What is used: tools, and what music is made with."""

from __future__ import annotations

import numpy as np

from pipelines.sources.tiny_world.domains.object.kind import Kind
from pipelines.sources.tiny_world.domains.object.thing import Thing
from pipelines.sources.tiny_world.pen import Color, Pen, darker, ellipse, lighter, mirrored, points, rounded, smooth

_DARK: Color = (46, 44, 56)


def _key(pen: Pen, it: Thing) -> None:
    r, thick = it.between(0, 0.4, 0.5), it.width(it.between(1, 0.17, 0.22))
    pen.rope(points((0, -0.4), (0, 0.95)), it.color, thick)
    for y in it.pick(2, ((0.62, 0.86), (0.5, 0.7, 0.9), (0.86,))):
        pen.rope(points((0.04, y), (it.between(3, 0.34, 0.48), y)), it.color, it.width(0.15))
    bow = it.pick(4, ("ring", "heart", "square"))
    middle = np.array((0, -0.5))
    if bow == "heart":
        pen.shape(smooth(mirrored([(0, -0.28), (0.3, -0.52), (0.6, -0.3), (0.5, 0.16), (0, 0.56)])) + middle, it.color)
    elif bow == "square":
        pen.shape(rounded(-r, -r, r, r, 0.14) + middle, it.color)
    else:
        pen.shape(ellipse(0, 0, r, r) + middle, it.color)
    pen.shape(ellipse(0, -0.04, r * 0.45, r * 0.45, 16) + middle, it.accent)
    it.gloss(pen, (-r * 0.62, -0.62), (-r * 0.3, -0.5 - r * 0.72), width=0.06)


def _phone(pen: Pen, it: Thing) -> None:
    w, top = it.between(0, 0.44, 0.56), it.between(1, -0.95, -0.75)
    it.body(pen, rounded(-w, top, w, 1.0, 0.14))
    pen.shape(rounded(-w * 0.82, top + 0.2, w * 0.82, 0.72, 0.04), lighter(it.accent, 0.3), 0.8)
    pen.shape(rounded(-w * 0.82, 0.2, w * 0.82, 0.72, 0.04), darker(it.accent, 0.2), 0)
    tiles = [(x, y) for y in np.arange(top + 0.42, 0.2, 0.34) for x in (-1, 0, 1)]
    for i, (x, y) in enumerate(tiles):
        color = lighter(it.second, 0.2) if (i + int(4 * it.traits.form[2])) % 2 else (250, 248, 244)
        pen.shape(rounded(-0.09, -0.1, 0.09, 0.1, 0.03) + points((x * w * 0.5, y)), color, 0.4)
    pen.dots(points((0, 0.86)), it.width(0.075), (236, 236, 240))
    pen.stroke(points((-0.1, top + 0.1), (0.1, top + 0.1)), (236, 236, 240), it.width(0.05), bold=False)


def _camera(pen: Pen, it: Thing) -> None:
    top, lens = it.between(0, -0.2, 0.02), it.between(1, 0.4, 0.5)
    hump = it.pick(2, (-0.5, 0.0))
    pen.shape(
        mirrored([(0, top - 0.3), (0.26, top - 0.3), (0.4, top + 0.06), (0, top + 0.06)]) + points((hump, 0)), it.deep
    )
    pen.shape(rounded(0.52, top - 0.16, 0.84, top + 0.1, 0.05), it.accent, 0.8)
    it.body(pen, rounded(-1.02, top, 1.02, 1.0, it.between(3, 0.08, 0.2)))
    pen.box(-1.0, top + 0.02, 1.0, top + 0.2, (206, 208, 216), 0.5)
    y = (top + 0.2 + 1.0) / 2
    for share, color in ((1.0, (60, 58, 70)), (0.74, (200, 204, 214)), (0.58, (34, 40, 66)), (0.3, (80, 120, 190))):
        pen.shape(ellipse(0, y, lens * share, lens * share), color, 0.7)
    pen.dots(points((-lens * 0.22, y - lens * 0.24)), it.width(0.07), (240, 246, 255))
    pen.shape(rounded(-0.88, top + 0.05, -0.56, top + 0.26, 0.04), (255, 246, 200), 0.7)


def _guitar(pen: Pen, it: Thing) -> None:
    waist, low = it.between(0, 0.3, 0.4), it.between(1, 0.62, 0.76)
    neck = (92, 60, 40)
    pen.shape(rounded(-0.17, -1.12, 0.17, -0.8, 0.06), it.deep)
    pen.rope(points((0, -0.86), (0, 0.1)), neck, it.width(0.15))
    half = [(0, -0.12), (0.34, -0.14), (0.5, 0.1), (waist + 0.08, 0.34), (low, 0.66), (0.44, 0.98), (0, 1.02)]
    if it.between(2, 0, 1) < 0.4:  # electric: horns, no hole
        half = [
            (0, 0.04),
            (0.24, 0.0),
            (0.5, -0.2),
            (0.56, 0.12),
            (waist + 0.06, 0.36),
            (low, 0.7),
            (0.44, 0.98),
            (0, 1.0),
        ]
    it.body(pen, smooth(mirrored(half), steps=4))
    if len(half) == 7:
        pen.shape(ellipse(0, 0.36, 0.2, 0.2, 18), (56, 36, 30), 0.8)
    else:
        pen.shape(
            smooth(mirrored([(0, 0.28), (0.26, 0.36), (0.3, 0.76), (0, 0.8)]), steps=3), lighter(it.accent, 0.3), 0.8
        )
    pen.rope(points((0, -0.4), (0, 0.16)), neck, it.width(0.13))
    pen.shape(rounded(-0.24, 0.72, 0.24, 0.84, 0.03), (40, 32, 34), 0.5)
    for x in (-0.04, 0.04):
        pen.stroke(points((x, -0.86), (x, 0.74)), (240, 232, 206), it.width(0.03), bold=False)


def _drum(pen: Pen, it: Thing) -> None:
    w, top = it.between(0, 0.76, 0.95), it.between(1, -0.3, 0.05)
    it.body(pen, np.concatenate([ellipse(0, 0.8, w, 0.2, 24)[:13], points((-w, top), (w, top))]))
    if it.traits.pattern == "solid":
        xs = np.linspace(-w * 0.94, w * 0.94, 7)
        zigzag = np.stack([xs, np.where(np.arange(7) % 2, 0.78, top + 0.3)], 1)
        pen.stroke(zigzag, lighter(it.second, 0.3), it.width(0.075))
    rim = np.concatenate([ellipse(0, 0.84, w, 0.2, 24)[:13], ellipse(0, 0.66, w, 0.2, 24)[12::-1]])
    pen.shape(rim, it.accent)
    pen.shape(ellipse(0, top + 0.06, w * 1.02, 0.24), it.accent)
    pen.shape(ellipse(0, top, w * 0.96, 0.2), (248, 240, 222))
    for side, x in ((-1, -0.05), (1, 0.1)):
        stick = points((x, top + 0.04), (x + side * 0.8, top - it.between(2, 0.5, 0.7)))
        pen.rope(stick, (196, 146, 92), it.width(0.09))
        pen.shape(ellipse(x, top + 0.02, 0.1, 0.09, 12), (236, 214, 170), 0.7)


KINDS = {
    "key": Kind(
        _key, patterned=False, colors=("gold", "silver", "red", "blue", "black", "green"), forms=("thick", "thin")
    ),
    "phone": Kind(_phone, patterned=False, forms=("wide", "tall")),
    "camera": Kind(_camera, forms=("wide", "tall")),
    "guitar": Kind(_guitar, forms=("wide", "thin")),
    "drum": Kind(_drum, forms=("wide", "tall")),
}
