"""The colours of made things, by the word that names them; and how no two things of a colour are quite alike."""

from __future__ import annotations

from pipelines.sources.tiny_world.draws import Draws
from pipelines.sources.tiny_world.pen import Color

HUES: dict[str, Color] = {"red": (206, 48, 48), "orange": (238, 132, 36), "yellow": (246, 200, 56),
    "green": (56, 146, 76), "teal": (34, 150, 150), "blue": (48, 106, 206), "navy": (38, 52, 104),
    "purple": (130, 70, 170), "pink": (238, 128, 162), "white": (240, 238, 232), "grey": (132, 136, 146),
    "black": (46, 44, 52)}  # fmt: skip


def jitter(color: Color, draws: Draws, amount: float) -> Color:
    """``color`` with each channel up to ``amount`` (0 to 255) off."""
    return tuple(min(255, max(0, round(c + draws.uniform(-amount, amount)))) for c in color)  # type: ignore[return-value]
