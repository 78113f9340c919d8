"""Light on any subject, from its silhouette alone."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

_FACTOR = 4
"""Light is soft, so its maps are this many times smaller than the layer."""


def relief(layer: Image.Image, light: float) -> Image.Image:
    """Shade (L) that makes a flat drawing round: bright towards the light, dark away from it.

    Args:
        layer: RGBA.
        light: -1 from the left to 1 from the right; it always comes from above, too.
    """
    alpha = layer.getchannel("A").reduce(_FACTOR)
    reach = max(2, alpha.width // 20)
    cover = np.asarray(alpha.filter(ImageFilter.BoxBlur(reach)), dtype=np.float32) / 255
    padded = np.pad(cover, reach)
    across = padded[reach:-reach, 2 * reach :] - padded[reach:-reach, : -2 * reach]
    down = padded[2 * reach :, reach:-reach] - padded[: -2 * reach, reach:-reach]
    slope = 0.75 * down - across * light
    level = 131 + np.where(slope > 0, 34, 78) * slope
    return Image.fromarray(np.clip(level, 0, 255).astype(np.uint8))


def ground_shadow(layer: Image.Image, light: float) -> Image.Image:
    """The share of light (L) that is left on the ground below what stands on it."""
    side = layer.width // _FACTOR
    cast = Image.new("L", (side, side), 255)
    left, _, right, bottom = (edge / _FACTOR for edge in layer.getbbox() or (0, 0, 0, 0))
    half = (right - left) / 2
    middle = (left + right) / 2 - 0.3 * half * light
    pen = ImageDraw.Draw(cast)
    for grow, level in ((1.25, 178), (1.0, 118)):
        rx, ry = half * grow, side * 0.034 * grow
        pen.ellipse((middle - rx, bottom - 1.4 * ry, middle + rx, bottom + 0.6 * ry), fill=level)
    return cast.filter(ImageFilter.BoxBlur(max(1, side // 40)))
