"""What makes a style of art this style: its colours, its way with brush and ground, its habits of composition."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.sources.tiny_world.draws import Draws
from pipelines.sources.tiny_world.hues import jitter
from pipelines.sources.tiny_world.pen import Color, apart, darker, lighter, luminance, mix

PIGMENTS: dict[str, Color] = {"red": (204, 48, 44), "orange": (238, 126, 36), "yellow": (246, 210, 70),
    "gold": (206, 156, 46), "olive": (134, 136, 58), "green": (58, 142, 76), "teal": (26, 136, 138),
    "turquoise": (92, 208, 198), "cyan": (112, 198, 236), "blue": (44, 96, 196), "navy": (30, 42, 104),
    "purple": (112, 60, 154), "pink": (240, 144, 174), "magenta": (208, 46, 134), "maroon": (124, 30, 46),
    "brown": (124, 78, 46), "beige": (216, 190, 150), "cream": (246, 232, 194), "white": (246, 244, 238),
    "grey": (142, 144, 152), "black": (34, 32, 40)}  # fmt: skip
TECHNIQUES: dict[str, tuple[str, float]] = {
    "dots": ("a dotted painting", 1.2), "dashes": ("a painting of short strokes", 1.2),
    "swirls": ("a painting of curly strokes", 1.2), "slabs": ("a painting of large thick strokes", 1),
    "mosaic": ("a mosaic", 1.2), "glass": ("a stained glass window", 1.2), "cubism": ("a cubism painting", 1.2),
    "poster": ("a flat poster", 1), "watercolor": ("a soft watercolor", 1), "lines": ("an ink line print", 1),
    "stitches": ("a checkered picture", 1), "woodcut": ("a ukiyo e print", 1),
}  # fmt: skip
SKIES = ("flat", "bands", "rays", "rings", "fade")
_LEAD: Color = (26, 22, 30)
_GROUND_SHOWS = ("dots", "dashes", "swirls", "stitches", "lines")
_OUTLINED = ("poster", "woodcut", "glass")


@dataclass(frozen=True)
class Traits:
    """A style of art. Lengths are shares of the canvas side.

    Attributes:
        lead_names: the colours of sky (or wall) and land (or table); ``third_name``: of the main thing.
        palette: colours by role, see :data:`~pipelines.sources.tiny_world.domains.art.contents.SKY` and the like.
        technique: a key of :data:`TECHNIQUES`; ``mark``: width of its strokes, tiles or lines.
        angle: of strokes, radians; ``tone``: how much single strokes differ (0 to 1).
        ground: the canvas between strokes; ``dark_ground`` says which.
        line: width of outlines, 0 for none; ``ink``: their colour.
        horizon: height of the horizon; ``tilt``: radians it leans; ``size``: factor on the main thing.
        sky: a habit of :data:`SKIES`; ``sun``: x, y, radius of its sun or moon.
        wobble: how far straight edges wander; ``margin``: width of the bare border.
    """

    lead_names: tuple[str, str]
    third_name: str
    palette: tuple[Color, ...]
    technique: str
    mark: float
    angle: float
    tone: float
    ground: Color
    dark_ground: bool
    line: float
    ink: Color
    horizon: float
    tilt: float
    size: float
    sky: str
    sun: tuple[float, float, float]
    wobble: float
    margin: float

    def words(self) -> tuple[str, ...]:
        """Attributes that a caption can name, the most telling first."""
        canvas = f"{'dark' if self.dark_ground else 'light'} canvas" if self.technique in _GROUND_SHOWS else ""
        line = f"{'black' if luminance(self.ink) < 0.5 else 'white'} line" if self.line else ""
        named = (TECHNIQUES[self.technique][0], " and ".join(self.lead_names), f"some {self.third_name}", canvas, line)
        return tuple(word for word in named if word)


def draw_traits(draws: Draws) -> Traits:
    """A new style from the stream ``draws``."""
    names, palette = _palette(draws)
    technique = draws.named(TECHNIQUES)
    dark = draws.chance(0.4)
    line = draws.uniform(0.02, 0.034) if technique in _OUTLINED or draws.chance(0.2) else 0.0
    return Traits(
        lead_names=names[:2], third_name=names[2], palette=palette, technique=technique,
        mark=draws.uniform(0.8, 1.3), angle=draws.uniform(-1.4, 1.4), tone=draws.uniform(0.12, 0.4),
        ground=jitter((44, 36, 40) if dark else (240, 230, 208), draws, 10), dark_ground=dark,
        line=line, ink=_LEAD if technique == "glass" else draws.choice((_LEAD, _LEAD, (248, 244, 232))),
        horizon=draws.uniform(0.46, 0.72), tilt=draws.middling(-0.2, 0.2), size=draws.uniform(0.9, 1.2),
        sky=draws.choice(SKIES), sun=(draws.uniform(0.16, 0.84), draws.uniform(0.14, 0.3), draws.uniform(0.07, 0.15)),
        wobble=draws.uniform(0, 0.022), margin=draws.choice((0.0, 0.0, 0.0, 0.05, 0.08)),
    )  # fmt: skip


def _palette(draws: Draws) -> tuple[tuple[str, str, str], tuple[Color, ...]]:
    """The names of the leading three, and six colours by role: sky, land, thing, accent, dark, light."""
    names = draws.shuffled(tuple(PIGMENTS))
    kept: list[str] = []
    for name in names:
        if all(apart(PIGMENTS[name], PIGMENTS[other]) > 125 for other in kept):
            kept.append(name)
    sky, land, thing = (jitter(PIGMENTS[name], draws, 6) for name in kept[:3])
    spare = PIGMENTS[kept[3]] if len(kept) > 3 and draws.chance(0.7) else None
    accent = spare or (lighter(thing, 0.55) if luminance(thing) < 0.5 else darker(thing, 0.5))
    dark = darker(draws.choice((sky, land, thing)), draws.uniform(0.6, 0.85))
    if min(apart(dark, sky), apart(dark, land)) < 60:
        dark = lighter(dark, 0.45)
    light = lighter(mix(accent, sky, 0.3), draws.uniform(0.6, 0.85))
    return (kept[0], kept[1], kept[2]), (sky, land, thing, accent, dark, light)
