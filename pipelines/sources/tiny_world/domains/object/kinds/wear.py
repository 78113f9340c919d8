"""What is worn and carried."""

from __future__ import annotations

import numpy as np

from pipelines.sources.tiny_world.domains.object.kind import Kind
from pipelines.sources.tiny_world.domains.object.thing import Thing
from pipelines.sources.tiny_world.pen import Pen, darker, ellipse, lighter, mirrored, points, rounded, smooth


def _shoe(pen: Pen, it: Thing) -> None:
    heel, toe = it.between(0, -0.2, 0.02), it.between(1, 0.36, 0.52)
    upper = [(-1.0, heel), (-0.7, heel + 0.12), (-0.3, heel - 0.06), (0.04, heel + 0.22), (0.6, toe), (1.0, toe + 0.24)]
    it.body(pen, smooth([*upper, (0.98, 0.86), (-0.96, 0.86)], steps=4))
    pen.shape(smooth([(0.62, toe + 0.04), (0.98, toe + 0.22), (1.02, 0.84), (0.56, 0.84)], steps=4), it.second, 0.8)
    pen.shape(rounded(-1.04, 0.76, 1.08, 1.0, 0.1), it.pick(2, ((246, 244, 238), it.accent, (60, 54, 58))))
    for i in range(it.pick(3, (2, 3))):
        x = -0.2 + 0.24 * i
        pen.stroke(
            points((x, heel + 0.12 + 0.13 * i), (x - 0.26, heel + 0.36 + 0.1 * i)),
            lighter(it.accent, 0.5),
            it.width(0.075),
        )
    pen.shape(ellipse(-0.78, heel + 0.02, 0.22, 0.08, 12), it.deep, 0.6)


def _boot(pen: Pen, it: Thing) -> None:
    top, shaft = it.between(0, -1.0, -0.7), it.between(1, 0.36, 0.46)
    it.body(pen, smooth([(-0.34 - shaft, top), (-0.34 + shaft, top), (-0.3 + shaft, 0.2), (0.5, 0.32), (0.88, 0.6),
        (0.88, 0.88), (-0.32 - shaft, 0.88), (-0.26 - shaft, 0.2)], steps=4))  # fmt: skip
    pen.shape(rounded(-0.36 - shaft, 0.84, 0.96, 1.0, 0.06), it.pick(2, ((60, 54, 58), (134, 84, 48))))
    pen.shape(rounded(-0.72 - shaft * 0.3, 0.84, -0.26, 1.06, 0.05), it.pick(2, ((60, 54, 58), (134, 84, 48))))
    cuff = it.between(3, 0.16, 0.3)
    pen.shape(rounded(-0.4 - shaft, top - 0.04, -0.28 + shaft, top + cuff, 0.06), lighter(it.second, 0.15))
    it.gloss(pen, (-0.34 - shaft * 0.5, top + cuff + 0.2), (-0.34 - shaft * 0.5, 0.5))


def _hat(pen: Pen, it: Thing) -> None:
    crown, top, brim = it.between(0, 0.5, 0.62), it.between(1, -0.6, -0.2), it.between(2, 0.9, 1.1)
    style = it.pick(3, ("top", "round", "pointed"))
    half = {
        "top": [(0, top), (crown * 0.98, top), (crown, 0.8), (0, 0.84)],
        "round": [(0, top + 0.1), (crown * 0.72, top + 0.26), (crown * 1.02, 0.4), (crown, 0.8), (0, 0.84)],
        "pointed": [(0, top - 0.4), (0.1, top - 0.3), (crown, 0.8), (0, 0.84)],
    }[style]
    pen.shape(ellipse(0, 0.78, brim, 0.21, 32), it.deep)
    it.body(pen, smooth(mirrored(half), steps=4) if style == "round" else mirrored(half))
    wide = crown * (0.98 if style != "pointed" else 0.84)
    pen.shape(mirrored([(0, 0.5), (wide, 0.46), (crown, 0.74), (0, 0.8)]), it.accent, 0.8)


def _bag(pen: Pen, it: Thing) -> None:
    """A handbag."""
    w, top, low = it.between(0, 0.66, 0.84), it.between(1, -0.16, 0.05), it.between(2, 0.84, 1.05)
    rise = it.between(3, -1.0, -0.75)
    handle = smooth(
        [(-w * 0.6, top + 0.05), (-w * 0.5, rise + 0.2), (0, rise), (w * 0.5, rise + 0.2), (w * 0.6, top + 0.05)], False
    )
    pen.rope(handle, it.deep, it.width(0.13))
    it.body(pen, smooth(mirrored([(0, top), (w * 0.92, top), (low, 0.86), (low * 0.9, 1.0), (0, 1.02)]), steps=3))
    if it.between(4, 0, 1) < 0.6:
        flap = [(0, top - 0.03), (w * 0.96, top - 0.03), (w * 0.9, 0.26), (0.3, 0.5), (0, 0.52)]
        pen.shape(smooth(mirrored(flap), steps=3), it.deep)
    pen.shape(rounded(-0.13, 0.34, 0.13, 0.6, 0.06), (250, 208, 84), 0.8)


def _backpack(pen: Pen, it: Thing) -> None:
    w, top = it.between(0, 0.6, 0.74), it.between(1, -0.95, -0.75)
    pen.rope(
        smooth([(-0.2, top + 0.1), (-0.18, top - 0.14), (0.18, top - 0.14), (0.2, top + 0.1)], False),
        it.deep,
        it.width(0.1),
    )
    for side in (-1, 1):
        pen.shape(rounded(side * w - 0.2, 0.2, side * w + 0.2, 0.86, 0.12), it.deep)
    it.body(
        pen,
        smooth(
            mirrored([(0, top), (w * 0.7, top + 0.08), (w, top + 0.5), (w * 1.03, 0.8), (w * 0.86, 1.0), (0, 1.02)]),
            steps=3,
        ),
    )
    pocket = it.between(2, 0.16, 0.32)
    pen.shape(rounded(-w * 0.72, pocket, w * 0.72, 0.92, 0.13), it.accent)
    pen.stroke(points((-w * 0.6, pocket + 0.18), (w * 0.6, pocket + 0.18)), darker(it.accent, 0.5), it.width(0.05))
    pen.stroke(smooth([(-w * 0.8, -0.1), (0, -0.22), (w * 0.8, -0.1)], False), it.dark, it.width(0.06))


def _umbrella(pen: Pen, it: Thing) -> None:
    rim, n, high = it.between(0, -0.12, 0.08), it.pick(1, (4, 5)), it.between(2, -1.0, -0.8)
    pen.rope(points((0, high - 0.1), (0, rim)), (90, 70, 60), it.width(0.07))
    hook = it.pick(3, (1, -1))
    stem = smooth([(0, rim - 0.1), (0, 0.5), (0, 0.82), (0.12 * hook, 0.97), (0.3 * hook, 0.86)], False)
    pen.rope(stem, it.pick(4, ((120, 80, 50), (60, 56, 64))), it.width(0.1))
    angle = np.linspace(np.pi, 2 * np.pi, 17)
    dome = np.stack([1.06 * np.cos(angle), rim + (rim - high) * np.sin(angle)], 1)
    edges = np.linspace(1.06, -1.06, n + 1)
    hem = np.linspace(1.06, -1.06, 2 * n + 1)
    scallops = np.stack([hem, np.where(np.arange(2 * n + 1) % 2, rim - 0.13, rim)], 1)
    outline = np.concatenate([dome, scallops[1:-1]])
    it.body(pen, outline)
    for x in edges[1:-1]:
        rib = smooth([(0, high), (x * 0.72, (high * 1.1 + rim) / 2.1), (x, rim)], False)
        pen.stroke(rib, it.dark, it.width(0.045))


def _crown(pen: Pen, it: Thing) -> None:
    w, spike, n = it.between(0, 0.76, 0.92), it.between(1, -0.5, -0.1), it.pick(2, (3, 5))
    xs = np.linspace(-w * 1.08, w * 1.08, 2 * n - 1)
    tips = np.stack([xs, np.where(np.arange(2 * n - 1) % 2, spike + 0.56, spike)], 1)
    pen.shape(np.concatenate([tips, ellipse(0, 0.84, w, 0.18, 24)[:13]]), it.color)
    jewels = np.linspace(-0.62, 0.62, it.pick(3, (3, 4))) * w
    rim = np.concatenate([ellipse(0, 0.84, w, 0.18, 24)[:13], ellipse(0, 0.56, w, 0.16, 24)[12::-1]])
    pen.shape(rim, it.deep)
    pen.dots(np.stack([jewels, 0.86 + 0.1 * (1 - (jewels / w) ** 2)], 1), it.width(0.1), lighter(it.accent, 0.1))
    for x, y in tips[::2]:
        pen.shape(ellipse(x, y, 0.11, 0.1, 12), it.accent, 0.7)
    it.gloss(pen, (-w * 0.7, 0.3), (-w * 0.7, 0.5), width=0.07)


KINDS = {
    "shoe": Kind(_shoe, forms=("long", "tall")),
    "boot": Kind(_boot, forms=("wide", "tall")),
    "hat": Kind(_hat, forms=("wide", "tall")),
    "bag": Kind(_bag, forms=("wide", "tall")),
    "backpack": Kind(_backpack, forms=("wide", "tall")),
    "umbrella": Kind(_umbrella, forms=("wide", "tall")),
    "crown": Kind(_crown, patterned=False, colors=("gold", "gold", "silver", "red", "blue"), forms=("wide", "tall")),
}
