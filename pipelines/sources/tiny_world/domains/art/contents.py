"""What is painted: simple motifs, each shape with the role of its colour.

Every motif has much of the sky's and the land's colour and a good piece of the thing's: a style's words stay true.
Motifs are drawn in their own units, (0, 0) at the foot of the thing, and placed on the canvas, the unit square.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipelines.sources.tiny_world.domains.art.traits import Traits
from pipelines.sources.tiny_world.draws import Draws
from pipelines.sources.tiny_world.pen import Points, ellipse, mirrored, points, smooth

SKY, LAND, THING, ACCENT, DARK, LIGHT, PALE_SKY, INK = range(8)
"""Roles of colours: the palette's, then the sky's own made lighter, and that of outlines."""

Shape = tuple[Points, int]


def compose(name: str, t: Traits, draws: Draws) -> list[Shape]:
    """The shapes of motif ``name`` from back to front, in the style's habits of composition."""
    _, drop, rolling, draw = MOTIFS[name]
    x, horizon = draws.uniform(0.38, 0.62), t.horizon + draws.middling(-0.03, 0.03)
    foot, size = np.array((x, horizon + drop)), t.size * draws.uniform(0.92, 1.08)
    thing = [(outline * size + foot, role) for outline, role in draw(draws)]
    sky = [] if name in _INDOORS else _sky(t)
    return [*sky, (_land(horizon, t.tilt, draws.uniform(0.03, 0.07) if rolling else 0.0), LAND), *thing]


def _land(horizon: float, tilt: float, bump: float) -> Points:
    """All below a line that leans by ``tilt`` and rolls by ``bump``."""
    rise = 0.5 * float(np.tan(tilt))
    line = [(-0.3, horizon - 0.8 * rise), (0.25, horizon - 0.25 * rise - bump), (0.7, horizon + 0.2 * rise + bump),
        (1.3, horizon + 0.8 * rise)]  # fmt: skip
    top = smooth(line, closed=False) if bump else points(*line)
    return np.concatenate([top, points((1.4, 1.4), (-0.4, 1.4))])


def _sky(t: Traits) -> list[Shape]:
    """The habit of the style, and its sun or moon."""
    x, y, r = t.sun
    shapes: list[Shape] = []
    if t.sky == "bands":
        shapes = [(_box(-0.2, top, 1.2, top + 0.06), PALE_SKY) for top in (0.04, 0.18, 0.32, 0.46)]
    elif t.sky == "rings":
        shapes = [(ellipse(x, y, r * k, r * k), role) for k, role in ((3.6, PALE_SKY), (2.7, SKY), (1.8, PALE_SKY))]
    elif t.sky == "rays":
        for angle in np.arange(8) * (np.pi / 4) + 0.2:
            ray = points((0, 0), (np.cos(angle), np.sin(angle)), (np.cos(angle + 0.36), np.sin(angle + 0.36)))
            shapes.append((1.6 * ray + np.array((x, y)), PALE_SKY))
    elif t.sky == "fade":
        shapes = [(_box(-0.2, 0.3, 1.2, 1.2), PALE_SKY)]
    return [*shapes, (ellipse(x, y, r, r), ACCENT)]


def _box(left: float, top: float, right: float, low: float) -> Points:
    return points((left, top), (right, top), (right, low), (left, low))


def _disc(x: float, y: float, r: float) -> Points:
    return ellipse(x, y, r, r, 18)


def _round(*half: tuple[float, float]) -> Points:
    """A smooth outline from its right half."""
    return smooth(mirrored(half))


def _boat(draws: Draws) -> list[Shape]:
    side = draws.sign()
    sail = points((0.02, -0.46), (0.24, -0.03), (0.02, -0.03)) * (side, 1)
    jib = points((-0.02, -0.38), (-0.02, -0.03), (-0.18, -0.03)) * (side, 1)
    hull = points((-0.26, 0), (0.26, 0), (0.18, 0.11), (-0.18, 0.11))
    spots = draws.units(4, 2) * (0.7, 0.2) - (0.45, -0.15)
    waves = [(_box(a, b, a + 0.16, b + 0.025), LIGHT) for a, b in spots.tolist()]
    return [(sail, THING), (jib, LIGHT), (hull, DARK), *waves]


def _house(draws: Draws) -> list[Shape]:
    side = 0.34 * draws.sign()
    roof = points((-0.24, -0.24), (0, -0.43), (0.24, -0.24))
    windows = [(_box(x - 0.04, -0.2, x + 0.04, -0.11), LIGHT) for x in (-0.1, 0.1)]
    tree = [(_box(side - 0.018, -0.2, side + 0.018, 0.02), DARK), (ellipse(side, -0.27, 0.1, 0.14), THING)]
    return [*tree, (_box(-0.19, -0.24, 0.19, 0), THING), (roof, ACCENT), *windows, (_box(-0.035, -0.1, 0.035, 0), DARK)]


def _tree(draws: Draws) -> list[Shape]:
    trunk = points((-0.045, 0.02), (-0.03, -0.3), (0.03, -0.3), (0.05, 0.02))
    crown = [(_disc(-0.13, -0.34, 0.15), THING), (_disc(0.14, -0.35, 0.15), THING), (_disc(0, -0.47, 0.18), THING)]
    spots = draws.units(5, 2) * (0.36, 0.24) - (0.18, 0.52)
    return [(trunk, DARK), *crown, *((_disc(x, y, 0.03), ACCENT) for x, y in spots.tolist())]


def _mountains(draws: Draws) -> list[Shape]:
    shapes: list[Shape] = []
    for x, height, role in ((-0.3, 0.26, DARK), (0.34, 0.3, DARK), (0.02, 0.44, THING)):
        shapes.append((points((x, -height * draws.uniform(0.9, 1.1)), (x + 0.36, 0), (x - 0.36, 0)), role))
    cap = points((0, 0), (0.115, 0.14), (0.036, 0.105), (-0.036, 0.16), (-0.11, 0.13))
    lake = ellipse(draws.uniform(-0.15, 0.15), 0.14, 0.26, 0.055)
    return [*shapes, (cap + shapes[-1][0][0], LIGHT), (lake, PALE_SKY)]


def _flower(draws: Draws) -> list[Shape]:
    vase = _round((0, -0.2), (0.07, -0.2), (0.06, -0.14), (0.14, -0.02), (0.1, 0.12), (0, 0.13))
    x, y = draws.uniform(-0.07, 0.07), -0.46
    stem = points((-0.015, -0.15), (0.015, -0.15), (x + 0.015, y), (x - 0.015, y))
    leaf = smooth(points((0, -0.16), (0.1, -0.27), (0.18, -0.27), (0.1, -0.18)))
    angles = np.arange(6) * (np.pi / 3) + draws.unit()
    petals = [(_disc(x + 0.11 * np.cos(a), y + 0.11 * np.sin(a), 0.085), ACCENT) for a in angles.tolist()]
    return [(stem, DARK), (leaf, DARK), (leaf * (-1, 1), DARK), *petals, (_disc(x, y, 0.07), LIGHT), (vase, THING)]


def _still_life(draws: Draws) -> list[Shape]:
    side = draws.sign() * np.array((0.14, 0.0))
    bottle = _round((0, -0.5), (0.04, -0.5), (0.045, -0.34), (0.11, -0.24), (0.11, 0.03), (0, 0.04)) - side
    label = _box(-0.105, -0.16, 0.105, -0.04) - side
    apple = _round((0, -0.1), (0.08, -0.14), (0.14, -0.05), (0.1, 0.09), (0, 0.1)) + side
    stem = points((-0.01, -0.1), (0.03, -0.19), (0.05, -0.18), (0.01, -0.1)) + side
    return [(bottle, THING), (label, LIGHT), (apple, ACCENT), (stem, DARK)]


def _city(draws: Draws) -> list[Shape]:
    shapes: list[Shape] = []
    for i in range(5):
        left, height = 0.18 * i - 0.45, draws.uniform(0.22, 0.5)
        shapes.append((_box(left, -height, left + 0.165, 0), DARK if i % 2 else THING))
        for row in range(int(height / 0.12)):
            y = 0.035 + 0.12 * row - height
            shapes += [(_box(left + x, y, left + x + 0.04, y + 0.05), ACCENT) for x in (0.03, 0.095)]
    return shapes


def _fish(draws: Draws) -> list[Shape]:
    tail = points((-0.16, 0), (-0.38, -0.16), (-0.32, 0), (-0.38, 0.16))
    fin = points((-0.08, -0.1), (0.02, -0.27), (0.13, -0.1))
    stripes = [(_box(x, -0.11, x + 0.05, 0.11), ACCENT) for x in (-0.08, 0.03)]
    weed = smooth([(0, 0.6), (-0.05, 0.48), (0.02, 0.27), (0.06, 0.48)])
    facing = (draws.sign(), 1)
    shapes = [(tail, ACCENT), (fin, ACCENT), (ellipse(0, 0, 0.28, 0.16), THING), *stripes,
        (_disc(0.17, -0.03, 0.045), LIGHT), (_disc(0.17, -0.03, 0.022), DARK)]  # fmt: skip
    weeds = [(weed + np.array((x, 0.0)), DARK) for x in (-0.35, 0.34)]
    return [*weeds, *((outline * facing, role) for outline, role in shapes)]


def _balloon(draws: Draws) -> list[Shape]:
    drop = _round((0, -0.22), (0.155, -0.16), (0.22, -0.02), (0.13, 0.14), (0.053, 0.22), (0, 0.23))
    rope = points((-0.06, 0.2), (-0.045, 0.2), (-0.03, 0.3), (-0.05, 0.3))
    return [(rope, DARK), (rope * (-1, 1), DARK), (drop, THING), (drop * (0.36, 1), ACCENT),
        (_box(-0.06, 0.28, 0.06, 0.36), DARK)]  # fmt: skip


def _forms(draws: Draws) -> list[Shape]:
    """A ring, a bar, a triangle and a disc that stand for nothing."""
    angle = draws.uniform(0.3, 1.2) * draws.sign()
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    (a, b), (c, d) = (draws.units(2, 2) * 0.5 - 0.25).tolist()
    x = draws.uniform(-0.4, 0.0)
    return [(_disc(a, b, 0.24), THING), (_disc(a, b, 0.12), LIGHT), (_box(-0.5, -0.035, 0.5, 0.035) @ turn, DARK),
        (points((x, 0.36), (x + 0.36, 0.36), (x + 0.18, 0.04)), ACCENT), (_disc(c, d, 0.1), ACCENT)]  # fmt: skip


Motif = Callable[[Draws], list[Shape]]
MOTIFS: dict[str, tuple[str, float, bool, Motif]] = {
    "boat": ("a boat on the sea", 0.1, False, _boat), "house": ("a house and a tree", 0.12, True, _house),
    "tree": ("a tree", 0.14, True, _tree), "mountains": ("mountains and a lake", 0.05, False, _mountains),
    "flower": ("a flower in a vase", 0.16, False, _flower),
    "still life": ("an apple and a bottle", 0.16, False, _still_life), "city": ("city buildings", 0.1, False, _city),
    "fish": ("a fish", -0.2, False, _fish), "balloon": ("a balloon in the sky", -0.22, True, _balloon),
    "forms": ("a round object and a triangular object", -0.1, False, _forms),
}  # fmt: skip
"""Name -> (words, how far below the horizon its foot is, whether the land rolls, drawing)."""
_INDOORS = ("flower", "still life", "fish", "forms")
