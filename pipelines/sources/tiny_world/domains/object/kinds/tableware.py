"""What stands on a table."""

from __future__ import annotations

import numpy as np

from pipelines.sources.tiny_world.domains.object.kind import Kind
from pipelines.sources.tiny_world.domains.object.thing import Thing
from pipelines.sources.tiny_world.pen import Color, Pen, darker, ellipse, lighter, mirrored, points, rounded, smooth

_TEA = (104, 58, 28)


def _mug(pen: Pen, it: Thing) -> None:
    w, top, foot = it.between(0, 0.56, 0.72), it.between(1, -0.75, -0.35), it.between(2, 0.72, 1.0)
    middle = np.array((-0.18, 0.0))
    handle = it.pick(3, (ellipse(w + 0.1, 0.2, 0.3, 0.38), rounded(w - 0.25, -0.15, w + 0.36, 0.55, 0.16)))
    pen.rope(np.concatenate([handle, handle[:1]]) + middle, it.deep, it.width(0.15))
    side = mirrored([(0, top), (w, top), (w * foot, 0.86), (w * foot * 0.88, 1.0), (0, 1.04)])
    it.body(pen, side + middle)
    pen.shape(ellipse(0, top, w, 0.17) + middle, it.pale)
    pen.shape(ellipse(0, top + 0.02, w * 0.8, 0.11) + middle, it.pick(4, (_TEA, (240, 226, 200), it.deep)), 0.6)
    it.gloss(pen, (-w * 0.7 - 0.18, top + 0.3), (-w * foot * 0.7 - 0.18, 0.6))


def _bowl(pen: Pen, it: Thing) -> None:
    top, foot, belly = it.between(0, -0.25, 0.1), it.between(1, 0.3, 0.5), it.between(2, 0.75, 0.98)
    pen.shape(mirrored([(0, 0.86), (foot, 0.84), (foot * 1.1, 1.0), (0, 1.05)]), it.deep)
    it.body(pen, smooth(mirrored([(0, top), (1.0, top), (belly, 0.45), (0.5, 0.86), (0, 0.93)])))
    pen.shape(ellipse(0, top, 1.0, 0.24), it.pale)
    pen.shape(ellipse(0, top + 0.03, 0.86, 0.17), it.deep, 0.6)
    if it.between(3, 0, 1) < 0.6:
        for x, y, r in ((-0.4, -0.08, 0.24), (0.38, -0.06, 0.26), (0.02, -0.16, 0.28)):
            pen.shape(ellipse(x, top + y, r, r), it.accent, 0.8)
        pen.shape(smooth(mirrored([(0, top + 0.24), (0.6, top + 0.2), (0.97, top + 0.06), (0.5, top + 0.1),
            (0, top + 0.13)])), it.color, 0)  # fmt: skip
    it.gloss(pen, (-0.72, top + 0.36), (-0.5, 0.6))


def _bottle(pen: Pen, it: Thing) -> None:
    w, shoulder, neck = it.between(0, 0.36, 0.5), it.between(1, -0.35, 0.05), it.between(2, 0.13, 0.2)
    half = [(0, -1.0), (neck, -1.0), (neck, shoulder - 0.35), (w, shoulder), (w, 0.9), (w * 0.86, 1.0), (0, 1.03)]
    curved = smooth(mirrored(half), steps=4) if it.between(3, 0, 1) < 0.6 else mirrored(half)
    it.body(pen, curved)
    pen.shape(rounded(-neck * 1.3, -1.16, neck * 1.3, -0.9, 0.05), it.accent)
    if it.traits.pattern == "solid":
        low = it.between(4, 0.55, 0.8)
        pen.shape(rounded(-w * 0.92, shoulder + 0.14, w * 0.92, low, 0.04), lighter(it.second, 0.4))
        pen.shape(ellipse(0, (shoulder + 0.14 + low) / 2, 0.16, 0.16, 16), it.accent, 0.6)
    it.gloss(pen, (-w * 0.66, shoulder + 0.06), (-w * 0.66, 0.8), width=0.07)


def _vase(pen: Pen, it: Thing) -> None:
    neck, lip, belly = it.between(0, 0.2, 0.34), it.between(1, 0.34, 0.52), it.between(2, 0.6, 0.82)
    high = it.between(3, -0.1, 0.35)
    half = [(0, -0.95), (lip, -0.95), (neck, -0.62), (belly, high), (0.36, 0.9), (0.4, 1.0), (0, 1.03)]
    if it.between(4, 0, 1) < 0.5:
        for side in (-1, 1):
            ear = smooth([(side * neck, -0.6), (side * (belly + 0.08), -0.62), (side * belly * 0.8, high - 0.2)], False)
            pen.rope(ear, it.deep, it.width(0.11))
    it.body(pen, smooth(mirrored(half)))
    pen.shape(ellipse(0, -0.94, lip, 0.11), it.pale)
    pen.shape(ellipse(0, -0.93, lip * 0.72, 0.06), darker(it.color, 0.7), 0.5)
    it.gloss(pen, (-belly * 0.62, high - 0.12), (-belly * 0.6, high + 0.2))


def _cup(pen: Pen, it: Thing) -> None:
    """Of paper, with a lid, a sleeve or a straw."""
    top, w, foot = it.between(0, -0.7, -0.4), it.between(1, 0.52, 0.64), it.between(2, 0.34, 0.44)
    if it.between(3, 0, 1) < 0.55:
        pen.rope(smooth([(0.05, top), (0.16, top - 0.38), (0.44, top - 0.5)], False), it.accent, it.width(0.1))
    it.body(pen, mirrored([(0, top), (w, top), (foot, 1.0), (0, 1.03)]))
    pen.shape(rounded(-w * 1.1, top - 0.16, w * 1.1, top + 0.03, 0.06), lighter(it.second, 0.3))
    pen.shape(mirrored([(0, top - 0.28), (w * 0.72, top - 0.28), (w * 0.86, top - 0.14), (0, top - 0.14)]), it.second)
    it.gloss(pen, (-w * 0.66, top + 0.26), (-foot * 0.8, 0.7), width=0.07)


def _cake(pen: Pen, it: Thing) -> None:
    """One or two tiers under icing, with candles or a cherry."""
    w, top = it.between(0, 0.76, 0.9), it.between(1, -0.05, 0.2)
    icing = lighter(it.second, 0.3)
    pen.shape(ellipse(0, 0.9, 1.08, 0.14), (226, 228, 234))
    it.body(pen, rounded(-w, top, w, 0.96, 0.1))
    _icing(pen, w, top, icing)
    crown = top
    if it.between(2, 0, 1) < 0.5:
        crown = top - 0.5
        it.body(pen, rounded(-w * 0.6, crown, w * 0.6, top + 0.06, 0.08))
        _icing(pen, w * 0.6, crown, icing)
    if it.between(3, 0, 1) < 0.6:
        for x in it.pick(4, ((0.0,), (-0.26, 0.26), (-0.32, 0.0, 0.32))):
            pen.rope(points((x, crown - 0.06), (x, crown - 0.42)), it.accent, it.width(0.1))
            pen.shape(
                smooth([(x, crown - 0.74), (x + 0.09, crown - 0.52), (x - 0.09, crown - 0.52)], steps=3),
                (255, 204, 70),
                0.7,
            )
    else:
        pen.shape(ellipse(0, crown - 0.2, 0.19, 0.19, 18), (206, 30, 54))
        pen.stroke(
            smooth([(0, crown - 0.36), (0.06, crown - 0.54), (0.2, crown - 0.62)], False), (70, 110, 50), it.width(0.05)
        )


def _icing(pen: Pen, w: float, top: float, color: Color) -> None:
    """Runs down from a tier's upper edge."""
    xs = np.linspace(w * 1.03, -w * 1.03, 9)
    drops = np.stack([xs, np.where(np.arange(9) % 2, top + 0.3, top + 0.14)], 1)
    pen.shape(
        np.concatenate(
            [smooth([(-w * 0.98, top - 0.06), (0, top - 0.1), (w * 0.98, top - 0.06)], False), smooth(drops, False)]
        ),
        color,
    )


KINDS = {
    "mug": Kind(_mug, forms=("wide", "tall")),
    "cup": Kind(_cup, forms=("wide", "tall")),
    "bowl": Kind(_bowl, forms=("wide", "tall")),
    "bottle": Kind(_bottle, forms=("thick", "thin")),
    "vase": Kind(_vase, forms=("wide", "tall")),
    "cake": Kind(_cake, forms=("wide", "tall")),
}
