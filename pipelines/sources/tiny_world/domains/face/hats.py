"""What is worn on the head; a part of the identity."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipelines.sources.tiny_world.domains.face.head import Head
from pipelines.sources.tiny_world.pen import Pen, columns, darker, ellipse, evenly, lighter, mirrored, points, smooth


def _beanie(pen: Pen, head: Head) -> None:
    c, w = head.traits.hat_color, head.traits.width + 0.16
    pen.shape(ellipse(0, -1.42, 0.2, 0.19, 14), lighter(c, 0.5))
    pen.shape(smooth(mirrored([(0, -1.36), (w * 0.62, -1.2), (w, -0.72), (w, -0.42), (0, -0.4)])), c)
    pen.shape(smooth(mirrored([(0, -0.72), (w, -0.64), (w + 0.04, -0.36), (0, -0.42)])), lighter(c, 0.25))
    for x in (-0.55, -0.2, 0.2, 0.55):
        pen.stroke(points((x, -0.66), (x, -0.45)), darker(c, 0.2), 0.008, bold=False)


def _cap(pen: Pen, head: Head) -> None:
    c, w, s = head.traits.hat_color, head.traits.width + 0.1, head.traits.parting
    pen.shape(smooth(mirrored([(0, -1.26), (w * 0.68, -1.12), (w, -0.66), (w, -0.46), (0, -0.5)])), c)
    brim = [(-0.66, -0.5), (0.1, -0.62), (0.8, -0.56), (1.28, -0.36), (1.2, -0.27), (0.5, -0.36),
        (-0.1, -0.36), (-0.62, -0.38)]  # fmt: skip
    pen.shape(smooth([(s * x, y) for x, y in brim]), darker(c, 0.3))
    pen.shape(ellipse(0, -1.26, 0.07, 0.05, 10), darker(c, 0.3), 0.5)


def _wide_hat(pen: Pen, head: Head) -> None:
    c, w = head.traits.hat_color, head.traits.width
    pen.shape(smooth(mirrored([(0, -0.72), (w, -0.68), (1.42, -0.5), (1.3, -0.36), (w * 0.8, -0.42), (0, -0.44)])), c)
    pen.shape(smooth(mirrored([(0, -1.36), (w * 0.5, -1.4), (w * 0.82, -1.2), (w * 0.92, -0.6), (0, -0.56)])), c)
    band = mirrored([(0, -0.78), (w * 0.9, -0.82), (w * 0.94, -0.6), (0, -0.56)])
    pen.shape(band, darker(c, 0.5) if sum(c) > 240 else lighter(c, 0.6), 0.6)


def _headscarf(pen: Pen, head: Head) -> None:
    """Wraps hair, ears and neck; the face stays free."""
    c, w = head.traits.hat_color, head.traits.width
    outer = mirrored([(0, -1.2), (w * 0.75, -1.04), (w + 0.18, -0.4), (w + 0.18, 0.3), (w + 0.06, 0.86),
        (w + 0.3, 1.4), (0.5, 1.62), (0, 1.66)])  # fmt: skip
    y = evenly(-0.6, 0.98, 9)
    rim = np.concatenate([[(0, -0.68)], columns(head.half(y) * 0.93, y), [(0, 1.03)]])
    outside = smooth(outer)
    opening = smooth(np.concatenate([rim, (rim * (-1, 1))[-2:0:-1]]), steps=3)
    # one polygon with a hole: round the outside, cut in at the top, round the opening the other way
    ring = np.concatenate([outside, outside[:1], opening[:1], opening[::-1]])
    pen.shape(ring, c, 0)
    pen.outline(outside, c)
    pen.outline(opening, c)
    fold = [(-w * 0.9, 0.5), (-0.4, 1.14), (0.35, 1.3), (w + 0.1, 1.1)]
    pen.stroke(smooth(fold, closed=False), darker(c, 0.3), 0.01)
    pen.stroke(smooth([(-0.3, -1.0), (0.4, -0.92), (w, -0.4)], closed=False), lighter(c, 0.3), 0.01, bold=False)


def _headband(pen: Pen, head: Head) -> None:
    w = head.traits.width
    band = [(-w - 0.1, -0.36), (-w * 0.7, -0.74), (0, -0.86), (w * 0.7, -0.74), (w + 0.1, -0.36),
        (w + 0.06, -0.2), (w * 0.66, -0.56), (0, -0.68), (-w * 0.66, -0.56), (-w - 0.06, -0.2)]  # fmt: skip
    pen.shape(smooth(band), head.traits.hat_color)


def _flower(pen: Pen, head: Head) -> None:
    at = np.array((head.traits.parting * head.traits.width * 0.86, -0.5))
    for angle in np.linspace(0, 2 * np.pi, 5, endpoint=False):
        x, y = at + 0.16 * np.array((np.cos(angle), np.sin(angle)))
        pen.shape(ellipse(x, y, 0.13, 0.13, 12), head.traits.hat_color, 0.6)
    pen.shape(at + ellipse(0, 0, 0.1, 0.1, 12), (250, 206, 70), 0.5)


HATS: dict[str, Callable[[Pen, Head], None]] = {"beanie": _beanie, "cap": _cap, "wide hat": _wide_hat,
    "headscarf": _headscarf, "headband": _headband, "flower": _flower}  # fmt: skip
