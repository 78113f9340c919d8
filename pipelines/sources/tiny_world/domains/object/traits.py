"""What makes a thing this thing: drawn once from the identity's own stream, the same in all of its pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.english import with_article
from pipelines.sources.tiny_world.domains.object.kind import Kind
from pipelines.sources.tiny_world.draws import Draws
from pipelines.sources.tiny_world.hues import HUES
from pipelines.sources.tiny_world.pen import Color

COLORS: dict[str, Color] = {**HUES, "brown": (134, 84, 48), "beige": (222, 196, 156), "cyan": (72, 196, 222),
    "maroon": (122, 30, 46), "gold": (214, 164, 52), "silver": (186, 192, 204)}  # fmt: skip
MADE = (*HUES, "brown", "cyan", "maroon")
"""Colours of things that can have any."""
PATTERNS: dict[str, float] = {"solid": 2.2, "striped": 1.3, "dotted": 1, "checkered": 0.9}
_APART = 150
"""Least distance in RGB of two colours that stand side by side."""
FORMS = 8


@dataclass(frozen=True)
class Traits:
    """A thing.

    Attributes:
        kind: its class.
        pattern: of ``second`` on ``color``; ``turn`` (radians) and ``fine`` (a factor on the distances in it) belong
            to the pattern.
        accent: colour of a detail.
        stretch: -1 (wide) to 1 (tall).
        form: numbers in [0, 1) that a class uses as it needs: proportions, details.
    """

    kind: str
    color_name: str
    color: Color
    second_name: str
    second: Color
    accent: Color
    pattern: str
    turn: float
    fine: float
    stretch: float
    stretch_name: str
    form: tuple[float, ...]


def draw_traits(name: str, kind: Kind, draws: Draws) -> Traits:
    """A new thing of class ``name`` from the stream ``draws``."""
    color = draws.choice(kind.colors or MADE)
    second = "white" if draws.chance(0.3) else draws.choice(tuple(HUES))
    second = second if _apart(color, second) else draws.choice([c for c in HUES if _apart(color, c)])
    accent = draws.choice([c for c in HUES if _apart(color, c)])
    stretch = draws.uniform(-1, 1)
    named = "" if kind.forms is None or abs(stretch) < 0.4 else kind.forms[stretch > 0]
    return Traits(
        kind=name, color_name=color, color=_near(COLORS[color], draws), second_name=second, second=COLORS[second],
        accent=COLORS[accent], pattern=draws.weighted(PATTERNS) if kind.patterned else "solid",
        turn=draws.choice((0.0, 0.0, 0.5, 0.25, -0.25)) * np.pi, fine=draws.uniform(0.85, 1.25),
        stretch=stretch if kind.forms else 0.0, stretch_name=named,
        form=tuple(draws.units(FORMS).tolist()),
    )  # fmt: skip


def _apart(a: str, b: str) -> bool:
    return float(np.linalg.norm(np.subtract(COLORS[a], COLORS[b]))) > _APART


def _near(color: Color, draws: Draws) -> Color:
    """The same colour to a word, another to the eye."""
    light = draws.uniform(-14, 14)
    return tuple(min(255, max(0, round(c + light + draws.uniform(-8, 8)))) for c in color)  # type: ignore[return-value]


def phrase(traits: Traits) -> str:
    """``a red striped mug``."""
    named = [traits.color_name, *([traits.pattern] if traits.pattern != "solid" else []), traits.kind]
    return with_article(" ".join(named))


def words(traits: Traits) -> tuple[str, ...]:
    """Attributes that a caption can name, the most telling first."""
    marked = traits.pattern != "solid"
    of_pattern = (traits.pattern, f"some {traits.second_name}") if marked else ()
    return tuple(word for word in (traits.kind, traits.color_name, *of_pattern, traits.stretch_name) if word)
