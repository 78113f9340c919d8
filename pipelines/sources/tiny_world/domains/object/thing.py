"""A thing in a pose: where it is, and the surfaces that carry its pattern.

Coordinates are local: x and y from about -1 to 1, y down, and what stands has its foot at y = 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from pipelines.sources.tiny_world.domains.object.traits import Traits
from pipelines.sources.tiny_world.draws import Draws
from pipelines.sources.tiny_world.pen import Color, Pen, Points, darker, lighter, luminance, points

T = TypeVar("T")


@dataclass(frozen=True)
class Pose:
    """What changes from picture to picture.

    Attributes:
        x, y: where the middle of its foot is in the frame (of what flies: its middle).
        scale: frame units per local unit.
        roll: radians.
        mirror: -1 or 1.
        light: -1 from the left to 1 from the right.
        moment: 0 to 1, for what moves (the hands of a clock, a gaze).
        stands: on the ground.
    """

    x: float
    y: float
    scale: float
    roll: float
    mirror: int
    light: float
    moment: float
    stands: bool


def draw_pose(draws: Draws, stands: bool) -> Pose:
    """A new pose from the stream ``draws``."""
    lean = 0.09 if stands else 0.22
    return Pose(
        x=0.5 + draws.middling(-0.08, 0.08), y=draws.middling(0.85, 0.94) if stands else draws.middling(0.42, 0.54),
        scale=draws.middling(0.33, 0.42), roll=draws.middling(-lean, lean), mirror=draws.sign(),
        light=draws.sign() * draws.uniform(0.5, 1.0), moment=draws.unit(), stands=stands,
    )  # fmt: skip


class Thing:
    """What a class's painter draws."""

    def __init__(self, traits: Traits, pose: Pose) -> None:
        self.traits, self.pose = traits, pose
        self.color, self.second, self.accent = traits.color, traits.second, traits.accent
        cos, sin = np.cos(pose.roll), np.sin(pose.roll)
        grow = 1.16**traits.stretch
        self._turned = np.array([[pose.mirror / grow, 0.0], [0.0, grow]]) @ np.array([[cos, sin], [-sin, cos]])
        self._turned *= pose.scale * min(1.0, grow**-0.7)  # what is tall is narrow, or its top would leave the picture
        self._foot = np.array((0.0, 1.0 if pose.stands else 0.0))
        self._at = np.array((pose.x, pose.y))

    def place(self, xy: Points) -> Points:
        """Local coordinates -> frame units; it leans about its foot."""
        return (xy - self._foot) @ self._turned + self._at

    def between(self, which: int, low: float, high: float) -> float:
        """Number ``which`` of the identity's form, in [low, high)."""
        return low + (high - low) * self.traits.form[which]

    def pick(self, which: int, options: Sequence[T]) -> T:
        """One of ``options`` by number ``which`` of the identity's form."""
        return options[int(self.traits.form[which] * len(options))]

    def width(self, local: float) -> float:
        """A length in local units -> frame units, as strokes take it."""
        return local * self.pose.scale

    @property
    def deep(self) -> Color:
        """The main colour in shadow."""
        return darker(self.color, 0.32)

    @property
    def pale(self) -> Color:
        """The main colour in light."""
        return lighter(self.color, 0.35)

    @property
    def dark(self) -> Color:
        """For lines on the main colour: they must be seen on black, too."""
        return darker(self.color, 0.6) if luminance(self.color) > 0.25 else lighter(self.color, 0.35)

    def body(self, pen: Pen, outline: Points, edge: float = 1.0) -> None:
        """A surface in the thing's colour, with its pattern."""
        if self.traits.pattern == "solid":
            pen.shape(outline, self.color, edge)
            return
        pen.shape(outline, self.color, 0)
        with pen.inside(outline) as inner:
            _PATTERNS[self.traits.pattern](inner, self, outline)
        pen.outline(outline, self.color, edge)

    def gloss(self, pen: Pen, *line: tuple[float, float], width: float = 0.08) -> None:
        """A reflection along a line, on the main colour."""
        pen.stroke(points(*line), lighter(self.color, 0.55), self.width(width), bold=False)


def _grid(outline: Points, step: float, turn: float) -> tuple[Points, Points, float]:
    """For a pattern over ``outline``: its middle, the matrix that turns the pattern, half of its extent."""
    low, high = outline.min(0), outline.max(0)
    cos, sin = np.cos(turn), np.sin(turn)
    half = float(np.hypot(*(high - low))) / 2
    return (low + high) / 2, np.array([[cos, sin], [-sin, cos]]), half + step


def _striped(pen: Pen, thing: Thing, outline: Points) -> None:
    step = 0.42 * thing.traits.fine
    middle, turn, half = _grid(outline, step, thing.traits.turn)
    for y in np.arange(-half, half, step):
        band = points((-half, y), (half, y), (half, y + step * 0.5), (-half, y + step * 0.5))
        pen.shape(band @ turn + middle, thing.second, 0.5)


def _dotted(pen: Pen, thing: Thing, outline: Points) -> None:
    step = 0.4 * thing.traits.fine
    middle, turn, half = _grid(outline, step, thing.traits.turn / 2)
    row, column = np.mgrid[-half:half:step, -half:half:step]
    column[::2] += step / 2
    centres = np.stack([column.ravel(), row.ravel()], 1) @ turn + middle
    inside = ((centres > outline.min(0) - step) & (centres < outline.max(0) + step)).all(1)
    if pen.ink.width:
        pen.dots(centres[inside], thing.width(step * 0.3) + 0.4 * pen.ink.width, darker(thing.second, pen.ink.black))
    pen.dots(centres[inside], thing.width(step * 0.3), thing.second)


def _checkered(pen: Pen, thing: Thing, outline: Points) -> None:
    step = 0.3 * thing.traits.fine
    middle, turn, half = _grid(outline, step, thing.traits.turn if abs(thing.traits.turn) < 1 else 0.0)
    for i, y in enumerate(np.arange(-half, half, step)):
        for x in np.arange(-half + step * (i % 2), half, 2 * step):
            square = points((x, y), (x + step, y), (x + step, y + step), (x, y + step))
            pen.shape(square @ turn + middle, thing.second, 0.4)


_PATTERNS: dict[str, Callable[[Pen, Thing, Points], None]] = {
    "striped": _striped,
    "dotted": _dotted,
    "checkered": _checkered,
}
