"""How a picture is made: scene and subject, drawn with the style's ink, become pixels and an exact mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from pipelines.sources.tiny_world.draws import Draws
from pipelines.sources.tiny_world.pen import Ink

SUPERSAMPLING = 4
"""Layers are drawn this many times larger than the picture."""

Floats = NDArray[np.floating[Any]]
"""float32, 0 to 255 for colours."""


@dataclass(frozen=True)
class Layers:
    """What a style works on.

    Attributes:
        scene: RGB.
        subject: RGBA, opaque or transparent.
        shade: L, any size; see :class:`~pipelines.sources.tiny_world.domains.base.Subject`.
    """

    scene: Image.Image
    subject: Image.Image
    shade: Image.Image


@dataclass(frozen=True)
class Style:
    """A way to make pictures.

    Attributes:
        ink: edges of what is drawn.
        finish: ``(layers, size, draws) -> (rgb (H, W, 3), mask (H, W))``, uint8.
    """

    ink: Ink
    finish: Callable[[Layers, int, Draws], tuple[NDArray[np.uint8], NDArray[np.uint8]]]


def _floats(image: Image.Image) -> Floats:
    return np.asarray(image, dtype=np.float32)


def _shrunk(layers: Layers, factor: int) -> tuple[Floats, Floats, Floats]:
    """Scene, subject (premultiplied by its cover) and cover (H, W, 1; 0 to 1), averaged over ``factor`` pixels."""
    rgb, alpha = layers.subject.convert("RGB").reduce(factor), layers.subject.getchannel("A").reduce(factor)
    return _floats(layers.scene.reduce(factor)), _floats(rgb), _floats(alpha)[..., None] / 255


def _lit(rgb: Floats, cover: Floats, shade: Image.Image) -> Floats:
    """Light and warm shadow on a premultiplied subject."""
    level = np.asarray(shade.resize(rgb.shape[1::-1], Image.Resampling.BILINEAR))
    keep, glow = _light_tables()
    # `take` on rows is several times faster than indexing
    out = keep.take(level, 0)
    out *= rgb
    light = glow.take(level, 0)
    light *= cover
    out += light
    return out


@lru_cache(maxsize=1)
def _light_tables() -> tuple[Floats, Floats]:
    """For each shade level (256, 3): the share of the colour that stays, and the white that is added."""
    level = np.arange(256, dtype=np.float32)[:, None] / 128
    dark = np.minimum(level, 1) ** np.array((0.85, 1.05, 1.0), dtype=np.float32)
    light = np.maximum(level - 1, 0) * 0.8
    return dark * (1 - light), np.repeat(255 * light, 3, 1)


def _bytes(values: Floats) -> NDArray[np.uint8]:
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)


# --- photo


def _photo(layers: Layers, size: int, draws: Draws) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Smooth light on the subject before a background slightly out of focus."""
    scene, subject, cover = _shrunk(layers, SUPERSAMPLING)
    scene = _floats(Image.fromarray(_bytes(scene)).filter(ImageFilter.GaussianBlur(size / 110)))
    rgb = _lit(subject, cover, layers.shade) + scene * (1 - cover)
    return _bytes(rgb), _bytes(cover[..., 0] * 255)


# --- pencil sketch

_LINE = 19
"""Grey levels below this are lines."""
_FAR_LINE = 18
"""The level that lines of the scene are given: they are drawn less black, so that the subject stands before it."""


@lru_cache(maxsize=4)
def _hatching(side: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Pixels (side, side) on the lines of two hatching directions."""
    y, x = np.mgrid[:side, :side].astype(np.float32) / side
    return ((x + y) / 0.05) % 1 < 0.4, ((x - 0.6 * y) / 0.05) % 1 < 0.36


def _table(f: Callable[[Floats], Floats]) -> list[int]:
    """``f`` of every grey level, for :meth:`PIL.Image.Image.point`."""
    return _bytes(f(np.arange(256, dtype=np.float32))).tolist()


_TONE = _table(lambda grey: 251 - 128 * (1 - grey / 255) ** 1.6)
_FAR = _table(lambda grey: np.where(grey < _LINE, _FAR_LINE, 64 + 0.75 * grey))
_SHADOW = _table(lambda shade: 40 - 40 * shade / 128)


def _sketch(layers: Layers, size: int, draws: Draws) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Black lines on white paper, pencil tones, hatching where it is dark."""
    square = layers.subject.size
    alpha = layers.subject.getchannel("A")
    grey = Image.composite(layers.subject.convert("L"), layers.scene.convert("L").point(_FAR), alpha)
    shadow = layers.shade.resize(square, Image.Resampling.BILINEAR).point(_SHADOW)
    shadow = ImageChops.multiply(shadow, alpha)
    tone = np.array(ImageChops.subtract(grey.point(_TONE), shadow))
    level = np.asarray(grey)
    shaded = np.asarray(ImageChops.subtract(grey, shadow.point([min(6 * i, 255) for i in range(256)])))
    first, second = _hatching(square[0])
    tone -= (first & (shaded < 127)) * np.uint8(43)
    tone -= (second & (level < 66)) * np.uint8(33)
    np.putmask(tone, level < _LINE, 8)
    np.putmask(tone, level == _FAR_LINE, 76)
    pixels = np.asarray(Image.fromarray(tone).reduce(SUPERSAMPLING))
    return np.repeat(pixels[..., None], 3, 2), np.asarray(alpha.reduce(SUPERSAMPLING))


# --- oil painting

_SHEETS = 3


@lru_cache(maxsize=16)
def _strokes(
    side: int, length: float, width: float, tone_share: float, relief_share: float, seed: int
) -> tuple[NDArray[np.intp], Floats]:
    """A sheet of brush strokes that swirl.

    Returns:
        Per pixel (side * side): the pixel whose colour its stroke takes, and a factor on that colour (side * side):
        strokes differ in tone, and their bristles stand out.
    """
    draws = Draws("strokes", side, seed)
    n = int(2.6 / (length * width))
    at, tone = draws.units(n, 2) * 1.1 - 0.05, draws.units(n) * 2 - 1
    phase = draws.units(4) * 2 * np.pi
    angle = 1.2 * np.sin(at[:, 0] * 5 + phase[0]) + 1.2 * np.sin(at[:, 1] * 6 + phase[1]) + phase[2] + 0.5 * tone
    reach = np.stack([np.cos(angle), np.sin(angle)], 1) * length / 2
    sheet, relief = Image.new("I", (side, side), n), Image.new("L", (side, side), 128)
    pens = ImageDraw.Draw(sheet), ImageDraw.Draw(relief)
    for i, (a, b) in enumerate(zip((at - reach) * side, (at + reach) * side, strict=True)):
        pens[0].line((*a, *b), fill=i, width=max(1, round(width * side)))
        _bristles(pens[1], a, b, width * side)
    which = np.asarray(sheet).ravel()
    column, row = np.clip((at * side).astype(np.intp), 0, side - 1).T
    source = np.where(which < n, np.append(row * side + column, 0)[which], np.arange(side * side))
    bumps = (_floats(relief.filter(ImageFilter.GaussianBlur(side / 256))) - 128) / 128
    light = 1 + tone_share * np.append(tone, 0)[which] + relief_share * bumps.ravel()
    return source, light.astype(np.float32)


def _bristles(pen: ImageDraw.ImageDraw, a: NDArray[np.float64], b: NDArray[np.float64], width: float) -> None:
    """One edge of a stroke catches light, the other lies in shadow."""
    across = np.array((a[1] - b[1], b[0] - a[0])) * (0.45 * width / max(float(np.hypot(*(b - a))), 1e-6))
    across *= 1 if across[1] < 0 else -1
    pen.line((*a, *b), fill=128, width=max(1, round(width)))
    pen.line((*(a + across), *(b + across)), fill=196, width=max(1, round(width * 0.3)))
    pen.line((*(a - across), *(b - across)), fill=60, width=max(1, round(width * 0.3)))


def _painting(layers: Layers, size: int, draws: Draws) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Every stroke takes the colour under its middle: long strokes for the scene, short ones for the subject."""
    scene, subject, cover = _shrunk(layers, SUPERSAMPLING // 2)
    side = size * 2
    # channels first, (3 or 4, side * side): numpy is several times faster on long rows than on three numbers a pixel
    front = np.concatenate([_lit(subject, cover, layers.shade), 255 * cover], 2).reshape(-1, 4).T.copy()
    back = scene.reshape(-1, 3).T.copy()
    # some of the drawing's own colour under the strokes, so that eyes and windows stay readable
    source, light = _strokes(side, 0.1, 0.036, 0.12, 0.22, draws.below(_SHEETS))
    back = (0.3 * back + 0.7 * back.take(source, 1)) * light
    source, light = _strokes(side, 0.055, 0.02, 0.09, 0.18, draws.below(_SHEETS))
    front = 0.55 * front + 0.45 * front.take(source, 1)
    front[:3] = front[:3] * light + back * (1 - front[3] / 255)
    out = front.reshape(4, side, side)
    out = (out[:, ::2, ::2] + out[:, 1::2, ::2] + out[:, ::2, 1::2] + out[:, 1::2, 1::2]) / 4
    return _bytes(_rich(out[:3].transpose(1, 2, 0))), _bytes(out[3])


def _rich(rgb: Floats) -> Floats:
    """Deeper colour, warmer light: oil on a brown ground."""
    grey = rgb.mean(2, keepdims=True)
    out = grey + (rgb - grey) * 1.25
    out = (out - 128) * 1.1 + 122
    return out * np.array((1.03, 0.99, 0.88), dtype=np.float32) + np.array((6, 2, 0), dtype=np.float32)


# --- pixel art

_GRID = 32
_HUES = ((255, 224, 204), (240, 190, 154), (214, 168, 124), (194, 136, 96), (164, 106, 68),
    (138, 88, 56), (112, 70, 46), (74, 44, 34), (206, 48, 48), (240, 112, 40), (246, 196, 60),
    (120, 180, 70), (44, 130, 66), (28, 84, 60), (34, 150, 160), (70, 170, 230), (44, 96, 200),
    (30, 36, 90), (130, 72, 176), (238, 120, 164), (150, 40, 70), (244, 242, 236), (176, 182, 192),
    (118, 122, 134), (62, 62, 76), (24, 20, 32), (214, 200, 176), (176, 196, 186), (206, 176, 190),
    (176, 190, 214))  # fmt: skip


@lru_cache(maxsize=1)
def _palette() -> NDArray[np.uint8]:
    """(32, 32, 32, 3): for each colour of 5 bits a channel the nearest of the sprite palette."""
    hues = np.array(_HUES, dtype=np.float32)
    known = np.concatenate([hues, hues * 0.76, hues + (255 - hues) * 0.24])
    axis = np.arange(32, dtype=np.float32) * (255 / 31)
    cells = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    weigh = np.sqrt(np.array((0.30, 0.45, 0.25), dtype=np.float32))
    a, b = cells * weigh, known * weigh
    distance = (b**2).sum(1) - 2 * a @ b.T
    return _bytes(known)[distance.argmin(1)].reshape(32, 32, 32, 3)


def _pixel_art(layers: Layers, size: int, draws: Draws) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A 32 x 32 sprite in a small palette with a dark outline, enlarged without smoothing."""
    scene, subject, cover = _shrunk(layers, layers.subject.width // _GRID)
    solid = cover[..., 0] >= 0.5
    lit = _lit(subject, cover, layers.shade) / np.maximum(cover, 0.5)
    rgb = np.where(solid[..., None], _crisp(lit), scene)
    grey = rgb.mean(2, keepdims=True)
    red, green, blue = (_bytes(grey + (rgb - grey) * 1.15) >> 3).transpose(2, 0, 1)
    rgb = _palette()[red, green, blue]
    ring = _grown(solid) & ~solid
    rgb[ring] = (24, 16, 36)
    sheets = Image.fromarray(rgb), Image.fromarray((solid | ring).astype(np.uint8) * np.uint8(255))
    large = [np.asarray(s.resize((size, size), Image.Resampling.NEAREST)) for s in sheets]
    return large[0], large[1]


def _crisp(rgb: Floats) -> Floats:
    """Each pixel further from its four neighbours, so that eyes and mouths survive the coarse grid."""
    around = np.pad(rgb, ((1, 1), (1, 1), (0, 0)), mode="edge")
    mean = (around[2:, 1:-1] + around[:-2, 1:-1] + around[1:-1, 2:] + around[1:-1, :-2]) / 4
    return rgb + 0.7 * (rgb - mean)


def _grown(solid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    out = solid.copy()
    out[1:] |= solid[:-1]
    out[:-1] |= solid[1:]
    out[:, 1:] |= solid[:, :-1]
    out[:, :-1] |= solid[:, 1:]
    return out


STYLES: dict[str, Style] = {
    "photo": Style(Ink(), _photo),
    "sketch": Style(Ink(width=0.02, black=1.0, bold=1.5, features=1.08), _sketch),
    "painting": Style(Ink(bold=1.2), _painting),
    "pixel_art": Style(Ink(width=0.011, black=0.5, bold=1.25, features=1.22), _pixel_art),
}
