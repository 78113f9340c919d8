"""Soft light and shadow over a subject."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFilter

from pipelines.sources.tiny_world.pen import Points


class Shade:
    """A grey map where 128 changes nothing, less darkens and more lightens.

    Args:
        side: pixels of the map's side; a quarter of the layer's is enough.
    """

    def __init__(self, side: int) -> None:
        self.side = side
        self.image = Image.new("L", (side, side), 128)
        self._draw = ImageDraw.Draw(self.image)

    def spot(self, outline: Points, level: int) -> None:
        """A patch in frame units."""
        self._draw.polygon((outline * self.side).ravel().tolist(), fill=level)

    def soft(self) -> Image.Image:
        """The map, blurred."""
        return self.image.filter(ImageFilter.GaussianBlur(self.side / 52))
