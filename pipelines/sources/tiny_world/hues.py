"""The colours of made things, by the word that names them."""

from __future__ import annotations

from pipelines.sources.tiny_world.pen import Color

HUES: dict[str, Color] = {"red": (206, 48, 48), "orange": (238, 132, 36), "yellow": (246, 200, 56),
    "green": (56, 146, 76), "teal": (34, 150, 150), "blue": (48, 106, 206), "navy": (38, 52, 104),
    "purple": (130, 70, 170), "pink": (238, 128, 162), "white": (240, 238, 232), "grey": (132, 136, 146),
    "black": (46, 44, 52)}  # fmt: skip
