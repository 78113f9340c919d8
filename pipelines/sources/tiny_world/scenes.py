"""The places a picture can be taken at. The subject covers the middle, so what names a place stands at its sides."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from pipelines.sources.tiny_world.draws import Draws
from pipelines.sources.tiny_world.pen import Color, Ink, Pen, ellipse, lighter, mix, points, smooth

_WALLS: tuple[Color, ...] = (
    (222, 196, 172), (196, 208, 190), (176, 200, 214), (226, 182, 170), (206, 190, 216), (232, 214, 160),
    (150, 180, 178), (188, 186, 180), (214, 160, 140), (160, 176, 208), (238, 228, 212), (134, 158, 140),
)  # fmt: skip


def paint(scene: str, draws: Draws, side: int, ink: Ink) -> Image.Image:
    """An RGB picture of ``scene``, ``side`` x ``side``."""
    return SCENES[scene](draws, side, ink)


def _gradient(side: int, *stops: tuple[float, Color]) -> Image.Image:
    """Vertical colour stops ``(y, colour)``."""
    at = [y for y, _ in stops]
    rows = np.stack([np.interp((np.arange(side) + 0.5) / side, at, [c[i] for _, c in stops]) for i in range(3)], 1)
    column = Image.fromarray(rows.astype(np.uint8)[:, None])
    return column.resize((side, side), Image.Resampling.NEAREST)


def _plain(draws: Draws, side: int, ink: Ink) -> Image.Image:
    """A wall with one soft pool of light."""
    wall = np.array(draws.choice(_WALLS), dtype=np.float32)
    axis = (np.arange(32, dtype=np.float32) + 0.5) / 32
    across = np.exp(-((axis - draws.uniform(0.1, 0.9)) ** 2) / 0.5)
    down = np.exp(-((axis - draws.uniform(0.0, 0.5)) ** 2) / 0.7)
    light = 0.72 + 0.42 * down[:, None] * across
    small = Image.fromarray(np.minimum(wall * light[..., None], 255).astype(np.uint8))
    return small.resize((side, side), Image.Resampling.BILINEAR)


def _beach(draws: Draws, side: int, ink: Ink) -> Image.Image:
    horizon, shore = draws.uniform(0.4, 0.48), draws.uniform(0.62, 0.7)
    top, low = draws.weighted({((62, 156, 232), (206, 236, 250)): 3, ((244, 128, 84), (255, 214, 140)): 1})
    pen = Pen(side, ink, _gradient(side, (0, top), (horizon, low)))
    left = draws.sign() < 0
    _sun(pen, 0.84 if left else 0.16, draws.uniform(0.14, 0.2))
    for _ in range(draws.below(3)):
        _cloud(pen, draws.uniform(0.05, 0.95), draws.uniform(0.08, 0.28), draws.uniform(0.05, 0.08))
    pen.box(-0.1, horizon, 1.1, 1.1, (24, 122, 178))
    pen.box(-0.1, (horizon + shore) / 2, 1.1, 1.1, (46, 164, 196), 0)
    for y in np.linspace(horizon + 0.045, shore - 0.045, 3):
        _swell(pen, draws.uniform(-0.15, 0.0), float(y))
    wave = [(x, shore + 0.015 * np.sin(x * 9 + shore * 40)) for x in np.linspace(-0.1, 1.1, 9)]
    pen.shape(smooth([*wave, (1.1, 1.2), (-0.1, 1.2)]) - (0, 0.018), (240, 250, 250), 0)
    pen.shape(smooth([*wave, (1.1, 1.2), (-0.1, 1.2)]), (240, 208, 146))
    pen.dots(draws.units(14, 2) * (1, 0.3) + (0, shore + 0.04), 0.006, (206, 166, 104))
    (_palm if draws.chance(0.7) else _parasol)(pen, draws, 0.1 if left else 0.9, shore)
    return pen.image


def _sun(pen: Pen, x: float, y: float) -> None:
    for angle in np.arange(8) * (np.pi / 4) + 0.2:
        ray = np.array((np.cos(angle), np.sin(angle)))
        pen.stroke(np.outer((0.1, 0.14), ray) + points((x, y)), (255, 226, 110), 0.012)
    pen.shape(ellipse(x, y, 0.072, 0.072), (255, 232, 120))


def _swell(pen: Pen, left: float, y: float) -> None:
    """A row of waves: in a drawing without colours they alone say that this is the sea."""
    crest = [(left + 0.075 * i, y + (0.014 if i % 2 else -0.014)) for i in range(17)]
    pen.stroke(smooth(crest, closed=False, steps=3), (186, 232, 240), 0.009)


def _cloud(pen: Pen, x: float, y: float, r: float) -> None:
    for dx, dy, size in ((-1.1, 0.2, 0.6), (0, 0, 1.0), (1.1, 0.2, 0.7)):
        pen.shape(ellipse(x + dx * r, y + dy * r, r * size * 1.3, r * size * 0.62), (250, 252, 255), 0)


def _palm(pen: Pen, draws: Draws, x: float, ground: float) -> None:
    lean = 0.07 if x < 0.5 else -0.07
    crown = np.array((x + lean, ground - draws.uniform(0.4, 0.46)))
    trunk = smooth([(x, ground + 0.08), (x + lean * 0.2, ground - 0.18), tuple(crown)], closed=False)
    pen.rope(trunk, (122, 84, 50), 0.03)
    for angle in np.deg2rad([200, 232, 268, 302, 336, 10, 168]):
        tip = crown + 0.2 * np.array((np.cos(angle), np.sin(angle) * 0.75 + 0.3))
        bend = (crown + tip) / 2 - (0, 0.055)
        pen.shape(
            smooth([tuple(crown), tuple(bend - (0, 0.014)), tuple(tip), tuple(bend - (0, -0.026))]), (30, 132, 68), 0.7
        )


def _parasol(pen: Pen, draws: Draws, x: float, ground: float) -> None:
    top = ground - 0.34
    pen.rope(points((x, ground + 0.16), (x, top)), (236, 236, 230), 0.02)
    color = draws.choice(((226, 62, 62), (250, 176, 34), (34, 144, 206)))
    for i, (a, b) in enumerate(((-0.2, -0.1), (-0.1, 0.0), (0.0, 0.1), (0.1, 0.2))):
        panel = [(x, top - 0.06), (x + a * 0.75, top), (x + a, top + 0.1), ((x + (a + b) / 2), top + 0.08),
            (x + b, top + 0.1), (x + b * 0.75, top)]  # fmt: skip
        pen.shape(points(*panel), color if i % 2 else (250, 246, 238), 0.6)


def _snow(draws: Draws, side: int, ink: Ink) -> Image.Image:
    pen = Pen(side, ink, _gradient(side, (0, (142, 184, 222)), (0.6, (224, 236, 246))))
    for base, color, height in ((0.56, (176, 200, 224), 0.2), (0.62, (204, 220, 236), 0.1)):
        xs = np.linspace(-0.15, 1.15, 7)
        ridge = [(float(x), base - height * draws.unit()) for x in xs]
        pen.shape(points(*ridge, (1.2, 1.2), (-0.2, 1.2)), color, 0.7)
    ground = smooth([(-0.2, 0.66), (0.2, 0.62), (0.6, 0.68), (1.2, 0.63), (1.2, 1.3), (-0.2, 1.3)])
    pen.shape(ground, (246, 250, 255))
    for x in (draws.uniform(0.02, 0.1), draws.uniform(0.2, 0.28), draws.uniform(0.74, 0.8), draws.uniform(0.9, 0.98)):
        near = draws.uniform(0.75, 1.25)
        _snowy_pine(pen, x, 0.64 + 0.08 * near, 0.42 * near)
    pen.shape(smooth([(-0.2, 0.88), (0.3, 0.84), (0.7, 0.9), (1.2, 0.85), (1.2, 1.3), (-0.2, 1.3)]), (222, 234, 246), 0)
    _snowman(pen, draws.choice((0.1, 0.9)), draws.uniform(0.8, 0.86), draws.uniform(0.9, 1.1))
    flakes = draws.units(42, 2)
    pen.dots(flakes[:26], 0.008, (255, 255, 255))
    for x, y in flakes[26:]:  # with an edge where the style draws edges: white on white paper would not be seen
        pen.shape(ellipse(x, y, 0.016, 0.016, 8), (255, 255, 255), 0.5)
    return pen.image


def _snowman(pen: Pen, x: float, ground: float, size: float) -> None:
    white, coal = (244, 248, 254), (40, 38, 48)
    for up, r in ((0.07, 0.095), (0.2, 0.07)):
        pen.shape(ellipse(x, ground - up * size, r * size, r * size), white)
        pen.shape(
            ellipse(x + 0.02, ground - (up - 0.02) * size, r * size * 0.6, r * size * 0.6, 16), (222, 232, 244), 0
        )
        pen.shape(ellipse(x - 0.01, ground - (up + 0.01) * size, r * size * 0.7, r * size * 0.7, 16), white, 0)
    pen.box(x - 0.06 * size, ground - 0.285 * size, x + 0.06 * size, ground - 0.262 * size, coal, 0.5)
    pen.box(x - 0.04 * size, ground - 0.36 * size, x + 0.04 * size, ground - 0.275 * size, coal, 0.5)
    pen.dots(points((x - 0.025, ground - 0.225 * size), (x + 0.025, ground - 0.225 * size)), 0.011, coal)
    nose = points((x, ground - 0.21 * size), (x + 0.07 * size, ground - 0.19 * size), (x, ground - 0.18 * size))
    pen.shape(nose, (240, 130, 40), 0.5)
    pen.stroke(
        points((x - 0.065 * size, ground - 0.14 * size), (x + 0.065 * size, ground - 0.14 * size)),
        (206, 48, 56),
        0.03,
        bold=False,
    )


def _snowy_pine(pen: Pen, x: float, ground: float, height: float) -> None:
    pen.box(x - 0.016, ground - 0.06, x + 0.016, ground + 0.02, (84, 60, 46), 0.5)
    for level in (0, 1, 2):
        top, low = ground - height * (0.52 + 0.24 * level), ground - height * (0.08 + 0.26 * level)
        half = height * (0.34 - 0.08 * level)
        pen.shape(points((x, top), (x + half, low), (x - half, low)), (36, 92, 80), 0.7)
        cap = top + (low - top) * 0.55
        cap_half = half * 0.55
        cap_points = points((x, top), (x + cap_half, cap), (x + cap_half * 0.3, cap - 0.015),
            (x - cap_half * 0.3, cap + 0.01), (x - cap_half, cap))  # fmt: skip
        pen.shape(cap_points, (250, 252, 255), 0)


def _forest(draws: Draws, side: int, ink: Ink) -> Image.Image:
    mist = draws.choice(((206, 228, 158), (176, 216, 160), (230, 222, 150)))
    pen = Pen(side, ink, _gradient(side, (0, mix(mist, (60, 120, 60), 0.35)), (0.5, mist), (0.75, (122, 164, 84))))
    for depth, n in ((0.72, 6), (0.4, 5), (0.0, 4)):
        bark = mix((74, 50, 36), mist, depth)
        for i in range(n):
            x = (i + draws.uniform(0.15, 0.85)) / n
            _trunk(pen, x, 0.7 + 0.14 * (1 - depth), 0.02 + 0.045 * (1 - depth) * draws.uniform(0.7, 1.2), bark)
        leaves = mix((34, 104, 48), mist, depth * 0.75)
        for i in range(7):
            at = ((i + draws.unit()) / 7, draws.uniform(-0.06, 0.02 + 0.1 * (depth + 0.2)))
            pen.shape(ellipse(*at, draws.uniform(0.1, 0.15), draws.uniform(0.08, 0.12), 14), leaves, 0.6)
    pen.shape(smooth([(-0.2, 0.8), (0.3, 0.76), (0.7, 0.81), (1.2, 0.77), (1.2, 1.3), (-0.2, 1.3)]), (60, 116, 48))
    for x in (
        draws.uniform(-0.02, 0.1),
        draws.uniform(0.16, 0.26),
        draws.uniform(0.76, 0.84),
        draws.uniform(0.92, 1.02),
    ):
        pen.shape(ellipse(x, draws.uniform(0.8, 0.88), 0.12, 0.09, 14), draws.choice(((36, 98, 44),
            (52, 124, 50), (28, 84, 50))), 0.6)  # fmt: skip
    return pen.image


def _trunk(pen: Pen, x: float, ground: float, width: float, bark: Color) -> None:
    half = width / 2
    pen.shape(points((x - half * 0.8, -0.1), (x + half * 0.8, -0.1), (x + half * 1.2, ground),
        (x - half * 1.2, ground)), bark, 0.7)  # fmt: skip
    pen.stroke(points((x - half * 0.45, 0.0), (x - half * 0.6, ground)), lighter(bark, 0.2), width * 0.22, bold=False)


def _night(draws: Draws, side: int, ink: Ink) -> Image.Image:
    glow = draws.choice(((112, 60, 130), (60, 74, 150), (150, 74, 96)))
    pen = Pen(side, ink, _gradient(side, (0, (16, 18, 54)), (0.45, mix((18, 20, 62), glow, 0.45)), (0.8, glow)))
    pen.dots(draws.units(26, 2) * (1, 0.45), 0.006, (236, 236, 255))
    x, y, r = draws.choice((0.12, 0.88)), draws.uniform(0.1, 0.18), 0.07
    pen.shape(ellipse(x, y, r, r), (250, 240, 200))
    pen.shape(ellipse(x + r * 0.5, y - r * 0.2, r * 0.85, r * 0.85), (18, 18, 56), 0)
    _skyline(pen, draws, 9, (0.42, 0.6), mix(glow, (20, 18, 60), 0.55), 0.35)
    _skyline(pen, draws, 6, (0.26, 0.58), (24, 24, 56), 0.62)
    _street(pen, glow)
    return pen.image


def _street(pen: Pen, glow: Color) -> None:
    pen.shape(points((-0.1, 0.84), (1.1, 0.84), (1.1, 1.1), (-0.1, 1.1)), mix((58, 58, 86), glow, 0.35))
    pen.box(-0.1, 0.88, 1.1, 1.1, mix((40, 40, 64), glow, 0.2), 0)
    for x in (0.02, 0.36, 0.7):
        pen.box(x, 0.945, x + 0.2, 0.965, (222, 206, 150), 0)


def _skyline(pen: Pen, draws: Draws, n: int, tops: tuple[float, float], wall: Color, lit: float) -> None:
    for i in range(n):
        left, right = (i + 0.03) / n, (i + draws.uniform(0.8, 0.97)) / n
        top = draws.uniform(*tops)
        pen.box(left, top, right, 1.1, mix(wall, (44, 40, 84), 0.5 * draws.unit()), 0.7)
        if draws.chance(0.25):
            pen.stroke(points(((left + right) / 2, top), ((left + right) / 2, top - 0.08)), wall, 0.012, bold=False)
        _windows(pen, draws, (left + 0.016, top + 0.03, right - 0.016), lit)


def _windows(pen: Pen, draws: Draws, area: tuple[float, float, float], lit: float) -> None:
    """Rows of windows from the top of a house to the frame's lower edge."""
    left, top, right = area
    columns = max(1, int((right - left) / 0.05))
    step = (right - left) / columns
    rows = int((1.0 - top) / 0.062)
    on = draws.units(rows, columns)
    row, column = np.nonzero(on < lit)
    x, y = left + (column + 0.18) * step, top + row * 0.062
    colors = [_LAMPS[int(share * len(_LAMPS))] for share in (on[row, column] / lit).tolist()]
    pen.tiles(np.stack([x, y, x + step * 0.64, y + 0.036], 1), colors)


_LAMPS: tuple[Color, ...] = ((255, 222, 110), (255, 206, 96), (255, 190, 82), (255, 176, 70), (170, 214, 240))


Painter = Callable[[Draws, int, Ink], Image.Image]
SCENES: dict[str, Painter] = {"plain": _plain, "beach": _beach, "snow": _snow, "forest": _forest, "night": _night}
