"""The frame of a face: where things are on a turned head, its outline, neck, ears and clothes.

Coordinates are head units: (0, 0) is the middle of the face, y = 1 the chin, y = -1 the top of the skull.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipelines.sources.tiny_world.domains.face.traits import Traits
from pipelines.sources.tiny_world.draws import Draws
from pipelines.sources.tiny_world.figure import Figure, Stance
from pipelines.sources.tiny_world.hues import HUES
from pipelines.sources.tiny_world.pen import (
    Color,
    Pen,
    Points,
    columns,
    darker,
    ellipse,
    lighter,
    mirrored,
    points,
    smooth,
)
from pipelines.sources.tiny_world.shade import Shade

_LEVELS = 1 - np.cos(np.linspace(0, np.pi, 25))


@dataclass(frozen=True)
class Pose(Stance):
    """What changes from picture to picture.

    Attributes:
        smile: -0.6 (sad) to 1; ``mouth``: 0 closed to 1 wide open.
        lids: factor on how open the eyes are; ``brows``: head units they are raised.
        gaze: of the iris, -1 to 1 each.
        light: -1 from the left to 1 from the right.
        clothes: kind; ``cloth``, ``trim``: its colours.
        mood: the word for the expression.
    """

    smile: float
    mouth: float
    lids: float
    brows: float
    gaze: tuple[float, float]
    light: float
    clothes: str
    cloth: Color
    trim: Color
    mood: str


_MOODS: dict[str, tuple[float, float, float, float]] = {  # smile, mouth, lids, brows
    "smiling": (0.75, 0.0, 0.95, 0.02), "laughing": (1.0, 0.75, 0.8, 0.06), "grinning": (1.0, 0.4, 0.9, 0.03),
    "calm": (0.3, 0.0, 1.0, 0.0), "serious": (-0.12, 0.0, 0.85, -0.03), "sad": (-0.6, 0.0, 0.9, 0.03),
    "surprised": (0.0, 1.0, 1.22, 0.12),
}  # fmt: skip
_HOW_OFTEN = {
    "smiling": 2.5, "laughing": 1.1, "grinning": 1.4, "calm": 1.7, "serious": 0.7, "sad": 0.5, "surprised": 0.8,
}  # fmt: skip
_CLOTHES = ("tee", "v-neck", "shirt", "hoodie", "turtleneck", "stripes")


def draw_pose(draws: Draws) -> Pose:
    """A new pose from the stream ``draws``."""
    mood = draws.weighted(_HOW_OFTEN)
    smile, mouth, lids, brows = _MOODS[mood]
    cloth = draws.choice(tuple(HUES.values()))
    return Pose(
        x=0.5 + draws.middling(-0.07, 0.07), y=0.5 + draws.middling(-0.035, 0.035), scale=draws.middling(0.255, 0.31),
        roll=draws.middling(-0.2, 0.2), yaw=draws.middling(-0.42, 0.42), pitch=draws.middling(-0.07, 0.07),
        smile=smile, mouth=mouth * draws.uniform(0.8, 1.1), lids=lids * draws.uniform(0.92, 1.06), brows=brows,
        gaze=(draws.middling(-0.8, 0.8), draws.middling(-0.4, 0.4)), light=draws.sign() * draws.uniform(0.5, 1.0),
        clothes=draws.choice(_CLOTHES), cloth=cloth, trim=_trim(cloth, draws), mood=mood,
    )  # fmt: skip


def _trim(cloth: Color, draws: Draws) -> Color:
    return lighter(cloth, 0.6) if draws.chance(0.5) else darker(cloth, 0.4)


class Head(Figure):
    """A person in a pose: everything that is drawn asks it where to go."""

    def __init__(self, traits: Traits, pose: Pose) -> None:
        super().__init__(pose, radius=traits.width * 1.08, neck=0.9)
        self.traits, self.pose = traits, pose

    def half(self, y: Points) -> Points:
        """Half width of the face at height ``y``."""
        n, m = self.traits.jaw
        up = np.clip(1 - np.clip(-y, 0, 1) ** 2.4, 0, 1) ** (1 / 2.4)
        down = np.clip(1 - np.clip(y, 0, 1) ** n, 0, 1) ** (1 / m)
        return self.traits.width * np.where(y < 0, up, down)

    def outline(self) -> Points:
        """Of the face."""
        y = _LEVELS - 1
        x = self.half(y)
        drift = 0.05 * self.pose.yaw * np.clip(y, 0, 1)  # the chin leads when a head turns
        return np.concatenate([columns(x + drift, y), columns(-x + drift, y)[-2:0:-1]])


def draw_ears(pen: Pen, head: Head) -> None:
    """Both ears; the one that turns away is narrower."""
    t = head.traits
    for side in (-1, 1):
        wide = 0.13 * t.ear_size * (1 - 0.8 * side * head.pose.yaw)
        at = side * (t.width * 0.99)
        pen.shape(ellipse(at, 0.12, max(wide, 0.04), 0.2 * t.ear_size), darker(t.skin, 0.06))
        pen.shape(ellipse(at + side * 0.015, 0.12, max(wide * 0.5, 0.02), 0.11 * t.ear_size), darker(t.skin, 0.22), 0)


def draw_earrings(pen: Pen, head: Head) -> None:
    """Studs or hoops below the ears."""
    t = head.traits
    if t.earrings == "none":
        return
    for side in (-1, 1):
        x, y = side * (t.width + 0.05), 0.12 + 0.2 * t.ear_size
        if t.earrings == "studs":
            pen.shape(ellipse(x, y, 0.06, 0.06, 12), (250, 226, 140), 0.5)
        else:
            ring = ellipse(x, y + 0.14, 0.1, 0.13, 18)
            pen.stroke(np.concatenate([ring, ring[:1]]), (240, 190, 64), 0.012)


def draw_body(pen: Pen, head: Head) -> None:
    """Neck, shoulders and clothes."""
    t, p = head.traits, head.pose
    b = t.build
    neck = 0.36 * b
    if p.clothes == "hoodie":
        pen.shape(
            smooth(mirrored([(0, 0.62), (0.7 * b, 0.9), (0.88 * b, 1.35), (0.5, 1.7), (0, 1.8)])), darker(p.cloth, 0.25)
        )
    pen.shape(points((neck, 0.5), (neck * 1.1, 1.6), (-neck * 1.1, 1.6), (-neck, 0.5)), darker(t.skin, 0.1))
    shoulders = mirrored(
        [(0, 1.42), (neck, 1.24), (0.72 * b, 1.36), (1.28 * b, 1.58), (1.52 * b, 2.1), (1.55 * b, 3.4), (0, 3.5)]
    )
    pen.shape(smooth(shoulders), p.cloth)
    _CLOTHING[p.clothes](pen, head, b, neck)


def _tee(pen: Pen, head: Head, b: float, neck: float) -> None:
    pen.shape(ellipse(0, 1.3, neck * 1.42, 0.3), head.pose.trim, 0.7)
    pen.shape(ellipse(0, 1.26, neck * 1.18, 0.25), darker(head.traits.skin, 0.05), 0)


def _v_neck(pen: Pen, head: Head, b: float, neck: float) -> None:
    pen.shape(points((-neck * 1.5, 1.2), (neck * 1.5, 1.2), (0, 1.98)), head.pose.trim, 0.7)
    pen.shape(points((-neck * 1.25, 1.15), (neck * 1.25, 1.15), (0, 1.8)), darker(head.traits.skin, 0.05), 0)


def _shirt(pen: Pen, head: Head, b: float, neck: float) -> None:
    collar = lighter(head.pose.cloth, 0.35)
    pen.shape(points((-neck, 1.2), (neck, 1.2), (0, 1.62)), darker(head.traits.skin, 0.05), 0)
    for side in (-1, 1):
        flap = points((side * neck * 1.1, 1.1), (side * neck * 1.7, 1.32), (side * neck * 0.9, 1.78), (0, 1.56))
        pen.shape(flap, collar)
    pen.stroke(points((0, 1.56), (0, 3)), darker(head.pose.cloth, 0.3), 0.01)


def _hoodie(pen: Pen, head: Head, b: float, neck: float) -> None:
    pen.shape(
        smooth(mirrored([(0, 1.66), (neck * 1.2, 1.25), (0.8 * b, 1.32), (0.7 * b, 1.7), (0, 1.98)])),
        darker(head.pose.cloth, 0.16),
    )
    for side in (-1, 1):
        pen.stroke(points((side * 0.2, 1.74), (side * 0.22, 2.3)), head.pose.trim, 0.016)


def _turtleneck(pen: Pen, head: Head, b: float, neck: float) -> None:
    pen.shape(
        smooth(mirrored([(0, 1.0), (neck * 1.12, 1.02), (neck * 1.2, 1.45), (0, 1.52)])), lighter(head.pose.cloth, 0.12)
    )
    pen.stroke(points((-neck * 1.1, 1.26), (neck * 1.1, 1.26)), darker(head.pose.cloth, 0.25), 0.008)


def _stripes(pen: Pen, head: Head, b: float, neck: float) -> None:
    for y in (1.72, 2.08, 2.44):
        wide = min(1.5, 1.36 + 0.25 * (y - 1.72)) * b
        band = [(-wide, y + 0.06), (0, y + 0.12), (wide, y + 0.06), (wide, y + 0.22), (0, y + 0.29), (-wide, y + 0.22)]
        pen.shape(points(*band), head.pose.trim, 0)
    _tee(pen, head, b, neck)


_CLOTHING = {
    "tee": _tee,
    "v-neck": _v_neck,
    "shirt": _shirt,
    "hoodie": _hoodie,
    "turtleneck": _turtleneck,
    "stripes": _stripes,
}


def draw_shade(head: Head, side: int) -> Image.Image:
    """Light from one side, shadows below fringe, nose, lip and chin."""
    t, p = head.traits, head.pose
    shade = Shade(side)
    far = -p.light

    def spot(outline: Points, level: int) -> None:
        shade.spot(head.place(outline), level)

    shade.spot(head.place_body(ellipse(far * 1.3, 2.2, 0.9, 0.9)), 100)
    shade.spot(head.place_body(ellipse(0.1 * far, 1.1, t.width * 0.62, 0.36)), 62)
    spot(head.outline(), 128)
    spot(ellipse(far * (t.width + 0.2), 0.1, 0.34, 1.2), 94)
    spot(ellipse(far * (t.width + 0.26), 0.0, 0.28, 1.05), 72)
    spot(ellipse(-far * t.width * 0.5, -0.56, 0.24, 0.12), 146)
    spot(head.turn(ellipse(-far * 0.44, 0.28, 0.13, 0.09)), 146)
    spot(ellipse(-far * 0.3, -1.05, 0.34, 0.13), 172)
    spot(head.turn(ellipse(far * 0.12, 0.3, 0.06, 0.11), 0.2), 100)
    return shade.soft()
