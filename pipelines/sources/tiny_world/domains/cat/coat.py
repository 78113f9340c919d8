"""Fur: which colour each part of a cat has, and the markings inside its outlines."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipelines.sources.tiny_world.domains.cat.traits import WHITE, Patch, Traits
from pipelines.sources.tiny_world.pen import (
    Color,
    Pen,
    Points,
    darker,
    ellipse,
    lighter,
    luminance,
    mix,
    points,
    smooth,
)

Turn = Callable[[Points], Points]
"""Moves points of the face as the head turns."""


def marking(t: Traits) -> Color:
    """Of stripes and spots: a deeper tone of the fur, a lighter one where the fur is dark."""
    return darker(t.fur, 0.55) if luminance(t.fur) > 0.3 else lighter(t.fur, 0.28)


def muzzle(t: Traits) -> Color:
    """Around the nose and on the chin."""
    if t.coat == "siamese":
        return lighter(t.second, 0.14)
    return WHITE if t.white_muzzle else lighter(t.fur, 0.3)


def paw(t: Traits) -> Color:
    """Of the front feet."""
    return t.second if t.coat == "siamese" else WHITE if t.white_muzzle else lighter(t.fur, 0.12)


def ruff(t: Traits) -> Color:
    """Of long hair on the chest."""
    return WHITE if t.white_muzzle else lighter(t.fur, 0.22)


def ear(t: Traits, side: int) -> Color:
    """Of the left (-1) or right ear."""
    if t.coat == "siamese":
        return t.second
    if t.coat in ("patched", "calico"):
        own = [p for p in t.patches[:2] if p[0] * side > 0]
        return _patch_color(t, own[0]) if own else t.fur
    return t.fur


def tail(t: Traits) -> Color:
    """Of the whole tail."""
    return t.second if t.coat in ("siamese", "patched", "calico") else t.fur


def _patch_color(t: Traits, patch: Patch) -> Color:
    return t.third if t.coat == "calico" and patch[3] else t.second


def _patches(pen: Pen, t: Traits, turn: Turn) -> None:
    angle = np.arange(12) * (2 * np.pi / 12)
    for i, patch in enumerate(t.patches):
        x, y, r, _ = patch
        uneven = 1 + 0.16 * np.sin(2 * angle + 3.4 * i) + 0.12 * np.cos(3 * angle + 5.1 * i)
        blob = ellipse(0, 0, r, r, 12) * uneven[:, None] + (x, y)
        pen.shape(turn(smooth(blob, steps=3)), _patch_color(t, patch), 0)


def _wedge(a: tuple[float, float], b: tuple[float, float], width: float) -> Points:
    """A stripe that starts ``width`` wide at ``a`` and ends in a point at ``b``."""
    ends = points(a, b)
    along = ends[1] - ends[0]
    across = along[::-1] * (-1, 1) * (width / 2 / float(np.hypot(*along)))
    middle = ends.mean(0)
    return smooth(
        np.stack([ends[0] + across, middle + across * 0.9, ends[1], middle - across * 0.9, ends[0] - across]), steps=3
    )


def mark_head(pen: Pen, t: Traits, turn: Turn) -> None:
    """Markings of the face, below eyes and nose."""
    if t.coat == "tabby":
        _tabby_head(pen, t, turn)
    elif t.coat == "spotted":
        _spots(pen, t, turn, ((0, -0.6), (-0.3, -0.52), (0.3, -0.52), (-0.15, -0.36), (0.15, -0.36),
            (-0.78, 0.12), (0.78, 0.12), (-0.7, 0.36), (0.7, 0.36), (-0.88, -0.12), (0.88, -0.12)))  # fmt: skip
    elif t.coat == "siamese":
        for size, share in ((1.0, 0.25), (0.86, 0.55), (0.7, 0.85), (0.56, 1.0)):
            pen.shape(turn(ellipse(0, 0.22, 0.95 * size, 0.84 * size)), mix(t.fur, t.second, share), 0)
    elif t.coat in ("patched", "calico"):
        _patches(pen, t, turn)
    elif t.coat == "speckled":
        _speckles(pen, t, turn, 0.0, 26)
    if t.white_muzzle:
        blaze = [(0, -0.5), (0.1, -0.1), (0.3, 0.2), (0.56, 0.5), (0.5, 1.0), (0, 1.1)]
        outline = np.concatenate([points(*blaze), (points(*blaze) * (-1, 1))[-2:0:-1]])
        if t.coat not in ("patched", "calico"):
            pen.shape(turn(smooth(outline)), WHITE, 0)


def _tabby_head(pen: Pen, t: Traits, turn: Turn) -> None:
    color, wide = marking(t), 0.15 * t.mark_width
    for x in (-0.3, 0.0, 0.3):
        pen.shape(turn(_wedge((x, -0.86), (x * 0.55, -0.3), wide)), color, 0)
    for side in (-1, 1):
        for i in range(t.marks):
            y = -0.18 + 0.27 * i
            pen.shape(turn(_wedge((side * 1.04, y - 0.04), (side * 0.6, y + 0.08), wide * 1.1)), color, 0)


def _spots(pen: Pen, t: Traits, turn: Turn, centres: tuple[tuple[float, float], ...]) -> None:
    for i, (x, y) in enumerate(centres):
        r = 0.095 * t.mark_width * (1 + 0.25 * ((i * 7) % 3 - 1))
        pen.shape(turn(ellipse(x, y, r, r * 0.85, 10)), marking(t), 0)


def _speckles(pen: Pen, t: Traits, turn: Turn, top: float, n: int) -> None:
    """Small flecks of the second colour, spread evenly by the golden ratio and laid by the cat's own patches."""
    shift = t.patches[0][0]
    i = np.arange(n)
    x = ((i * 0.618 + shift) % 1) * 2.1 - 1.05
    y = top - 0.75 + 1.6 * ((i * 0.7548 + shift * 2) % 1)
    for a, b, k in zip(x.tolist(), y.tolist(), i.tolist(), strict=True):
        r = (0.12 + 0.08 * ((k * 5) % 4) / 3) * t.mark_width
        pen.shape(turn(ellipse(a, b, r, r * 0.7, 8)), t.second, 0)


def mark_body(pen: Pen, t: Traits) -> None:
    """Markings of chest and flanks."""
    if t.coat == "tabby":
        for side in (-1, 1):
            for i in range(t.marks):
                y = 0.95 + 0.34 * i
                pen.shape(_wedge((side * 1.3, y + 0.1), (side * 0.42, y + 0.02), 0.17 * t.mark_width), marking(t), 0)
    elif t.coat == "spotted":
        spots = [(s * x, y) for s in (-1, 1) for x, y in ((0.25, 1.0), (0.55, 1.2), (0.3, 1.4), (0.8, 1.5), (0.55, 1.7),
            (0.9, 1.85), (0.26, 1.8))]  # fmt: skip
        _spots(pen, t, lambda xy: xy, tuple(spots))
    elif t.coat in ("patched", "calico"):
        _patches(pen, t, lambda xy: xy)
    elif t.coat == "speckled":
        _speckles(pen, t, lambda xy: xy, 1.6, 18)
    if t.white_muzzle and t.coat not in ("patched", "calico"):
        pen.shape(smooth([(0, 0.4), (0.4, 0.7), (0.44, 1.1), (0, 1.6), (-0.44, 1.1), (-0.4, 0.7)]), WHITE, 0)


def mark_tail(pen: Pen, t: Traits, middle: Points, across: Points, half: float) -> None:
    """Rings on striped and spotted cats, a white tip where the paws are white.

    Args:
        middle: (N, 2) the tail's middle line from root to tip; ``across``: (N, 2) unit vectors beside it.
        half: of the tail's width.
    """
    if t.coat in ("tabby", "spotted"):
        for i in range(5, len(middle) - 1, 5):
            ring = np.stack([middle[i] + across[i] * 1.5 * half, middle[i] - across[i] * 1.5 * half])
            pen.stroke(ring, marking(t), 0.022 * t.mark_width, bold=False)
    if t.white_muzzle and len(middle) > 6:
        cut = middle[-5:]
        pen.shape(np.concatenate([cut + across[-5:] * 0.5, (cut - across[-5:] * 0.5)[::-1]]), WHITE, 0)
