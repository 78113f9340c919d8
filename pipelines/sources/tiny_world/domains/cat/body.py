"""The frame of a sitting cat: its pose, outline, ears, body, tail and light.

Coordinates are head units: (0, 0) is the middle of the face, y = 0.8 the chin, y = -0.8 the top of the skull.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipelines.sources.tiny_world.domains.cat import coat
from pipelines.sources.tiny_world.domains.cat.traits import EARS, Traits
from pipelines.sources.tiny_world.draws import Draws
from pipelines.sources.tiny_world.figure import Figure, Stance
from pipelines.sources.tiny_world.pen import Pen, Points, darker, ellipse, mirrored, mix, points, smooth
from pipelines.sources.tiny_world.shade import Shade


@dataclass(frozen=True)
class Pose(Stance):
    """What changes from picture to picture.

    Attributes:
        lids: how far each eye is open, 0 shut; ``mouth``: 0 shut to 1 yawning; ``ears``: radians they lie outwards.
        pupil: 0 a slit to 1 round.
        gaze: of the pupils, -1 to 1 each.
        light: -1 from the left to 1 from the right.
        tail: the side it is on, -1 or 1, and how far it is swung, -1 to 1.
        mood: the word for the expression.
    """

    lids: tuple[float, float]
    mouth: float
    ears: float
    pupil: float
    gaze: tuple[float, float]
    light: float
    tail: tuple[int, float]
    mood: str


_MOODS: dict[str, tuple[tuple[tuple[float, float], float, float, float], float]] = {  # lids, mouth, ears, pupil
    "calm": (((0.9, 0.9), 0, 0.0, 0.45), 2.4), "happy": (((0.95, 0.95), 0.3, 0.0, 0.7), 2),
    "surprised": (((1.18, 1.18), 0.2, -0.08, 1.0), 1.1), "sleeping": (((0, 0), 0, 0.12, 0.5), 0.6),
    "winking": (((0, 1), 0, 0.0, 0.7), 0.7), "yawning": (((0, 0), 1, 0.25, 0.5), 0.6),
    "angry": (((0.75, 0.75), 0, 0.42, 0.1), 0.8),
}  # fmt: skip


def draw_pose(draws: Draws) -> Pose:
    """A new pose from the stream ``draws``."""
    mood = draws.named(_MOODS)
    (lids, mouth, ears, pupil), _ = _MOODS[mood]
    return Pose(
        x=0.5 + draws.middling(-0.06, 0.06), y=0.46 + draws.middling(-0.025, 0.03), scale=draws.middling(0.255, 0.295),
        roll=draws.middling(-0.28, 0.28), yaw=draws.middling(-0.4, 0.4), pitch=draws.middling(-0.06, 0.07),
        lids=lids if draws.chance(0.5) else lids[::-1], mouth=mouth, ears=ears + draws.middling(-0.06, 0.06),
        pupil=min(1.0, pupil * draws.uniform(0.8, 1.2)), gaze=(draws.middling(-1, 1), draws.middling(-0.6, 0.6)),
        light=draws.sign() * draws.uniform(0.5, 1.0), tail=(draws.sign(), draws.uniform(-1, 1)), mood=mood,
    )  # fmt: skip


class Cat(Figure):
    """A cat in a pose: everything that is drawn asks it where to go."""

    def __init__(self, traits: Traits, pose: Pose) -> None:
        super().__init__(pose, radius=1.15, neck=0.7)
        self.traits, self.pose = traits, pose

    def outline(self) -> Points:
        """Of the head without ears."""
        t, drift = self.traits, 0.05 * self.pose.yaw
        half = [(0, -0.8), (t.width * 0.46, -0.76), (t.width * 0.83, -0.48), (t.width * 0.98, t.cheeks - 0.3),
            (t.width, t.cheeks), (t.width * 0.86, t.cheeks + 0.3), (t.chin, 0.7), (0, 0.84)]  # fmt: skip
        curve = smooth(mirrored(half))
        curve[:, 0] += drift * np.clip(curve[:, 1], 0, 1)
        return curve


def draw_ears(pen: Pen, cat: Cat) -> None:
    """Both ears with their pink insides."""
    t = cat.traits
    height, width, where, roundness = EARS[t.ears]
    for side in (-1, 1):
        fur = coat.ear(t, side)
        middle = np.array((side * t.width * (0.34 + 0.62 * where), -0.62 + 0.3 * where * where))
        angle = side * (0.16 + 0.5 * where + cat.pose.ears)
        size = t.ear_size * (1 + 0.12 * side * cat.pose.yaw)
        shape = _ear(width * size, height * t.ear_size, roundness, angle) + middle
        inner = _ear(width * size * 0.6, height * t.ear_size * 0.68, roundness, angle) + middle
        pen.shape(shape, fur)
        pen.shape(inner, mix(darker(fur, 0.25), (238, 150, 150), 0.6), 0.4)


def _ear(width: float, height: float, roundness: float, angle: float) -> Points:
    """Its tip is up at ``angle`` 0; its base lies hidden behind the skull."""
    tip = 0.1 + 0.3 * roundness
    bulge = 0.72 + 0.2 * roundness
    half = [
        (0, -height),
        (width * tip, -height * 0.97),
        (width * bulge, -height * 0.5),
        (width, 0.0),
        (width * 0.8, 0.3),
    ]
    shape = smooth(mirrored(half), steps=3)
    cos, sin = np.cos(angle), np.sin(angle)
    return shape @ np.array([[cos, sin], [-sin, cos]])


def draw_tufts(pen: Pen, cat: Cat) -> None:
    """Tips of long hair at the cheeks; the head covers their roots."""
    t = cat.traits
    if not t.long_hair:
        return
    for side in (-1, 1):
        for y, length in ((0.02, 0.12), (0.24, 0.24), (0.46, 0.22)):
            x = t.width * (0.97 - 0.35 * max(y - t.cheeks, 0))
            tuft = points((x * 0.7, y - 0.24), (x + length, y + 0.2), (x * 0.6, y + 0.26)) * (side, 1)
            pen.shape(tuft, t.fur)


def draw_body(pen: Pen, cat: Cat) -> None:
    """Chest, haunches and front legs, with the coat's markings."""
    t = cat.traits
    wide = 1.12 if t.long_hair else 1.0
    half = [(0, 0.4), (0.5, 0.55), (0.78 * wide, 1.0), (1.0 * wide, 1.55), (1.16 * wide, 2.2), (0, 2.7)]
    torso = smooth(mirrored(half))
    for side in (-1, 1):
        pen.shape(ellipse(side * 0.92 * wide, 2.0, 0.4, 0.52), darker(t.fur, 0.08))
    pen.shape(torso, t.fur, 0)
    with pen.inside(torso) as inside:
        coat.mark_body(inside, t)
    pen.outline(torso, t.fur)
    if t.long_hair:
        _ruff(pen, t)
    _legs(pen, t)


def _ruff(pen: Pen, t: Traits) -> None:
    """A bib of long hair."""
    rim = [(-0.72, 0.6), (-0.6, 1.0), (-0.52, 0.98), (-0.4, 1.28), (-0.3, 1.2), (0, 1.52), (0.3, 1.2), (0.4, 1.28),
        (0.52, 0.98), (0.6, 1.0), (0.72, 0.6)]  # fmt: skip
    pen.shape(points(*rim), coat.ruff(t), 0.5)


def _legs(pen: Pen, t: Traits) -> None:
    line = darker(t.fur, 0.4)
    for side in (-1, 1):
        pen.shape(ellipse(side * 0.27, 2.05, 0.27, 0.2, 16), coat.paw(t), 0.8)
        pen.stroke(smooth([(side * 0.62, 1.3), (side * 0.56, 1.7), (side * 0.54, 2.1)], closed=False), line, 0.009)
    pen.stroke(points((0, 1.6), (0, 2.3)), line, 0.011)


_CURVES: dict[str, tuple[list[tuple[float, float]], float]] = {  # the tail's middle line and half its width
    "thin": ([(0.9, 2.1), (1.28, 1.7), (1.32, 1.0), (1.22, 0.4), (1.36, -0.1)], 0.1),
    "fluffy": ([(0.9, 2.1), (1.3, 1.6), (1.34, 0.9), (1.3, 0.2)], 0.25),
    "curly": ([(0.9, 2.1), (1.26, 1.7), (1.3, 0.9), (1.2, 0.35), (1.38, 0.02), (1.56, 0.26), (1.42, 0.44)], 0.11),
    "short": ([(0.9, 1.9), (1.22, 1.5), (1.3, 1.2)], 0.17),
}  # fmt: skip


def draw_tail(pen: Pen, cat: Cat) -> None:
    """It stands up beside the body."""
    t, (side, swing) = cat.traits, cat.pose.tail
    control, half = _CURVES[t.tail]
    middle = smooth(control, closed=False, steps=6)
    middle = (middle + np.outer(np.clip(1.6 - middle[:, 1], 0, None) * 0.05 * swing, (1, 0))) * (side, 1)
    along = np.gradient(middle, axis=0)
    across = along[:, ::-1] * (-1, 1) / np.maximum(np.hypot(along[:, :1], along[:, 1:]), 1e-6)
    u = np.linspace(0, 1, len(middle))[:, None]
    bush = np.sin(np.pi * u**0.8) ** 0.7 if t.tail == "fluffy" else np.ones_like(u)
    thick = half * np.maximum(bush, 0.5) * np.minimum(1, ((1.02 - u) / 0.12)) ** 0.5
    outline = np.concatenate([middle + across * thick, (middle - across * thick)[::-1]])
    fur = coat.tail(t)
    pen.shape(outline, fur, 0)
    with pen.inside(outline) as inside:
        coat.mark_tail(inside, t, middle, across, half)
    pen.outline(outline, fur)


def draw_shade(cat: Cat, side: int) -> Image.Image:
    """Light from one side, shadows below the head and beside the nose."""
    t, far = cat.traits, -cat.pose.light
    shade = Shade(side)

    def spot(outline: Points, level: int) -> None:
        shade.spot(cat.place(outline), level)

    shade.spot(cat.place_body(ellipse(far * 1.0, 1.9, 0.55, 1.0)), 96)
    shade.spot(cat.place_body(ellipse(-far * 0.45, 1.6, 0.2, 0.5)), 146)
    shade.spot(cat.place_body(ellipse(0.1 * far, 0.86, t.width * 0.66, 0.24)), 70)
    spot(cat.outline(), 128)
    spot(ellipse(far * (t.width + 0.16), 0.15, 0.36, 1.0), 96)
    spot(ellipse(far * (t.width + 0.22), 0.1, 0.28, 0.9), 76)
    spot(ellipse(-far * t.width * 0.45, -0.5, 0.3, 0.14), 152)
    spot(cat.turn(ellipse(-far * 0.62, 0.3, 0.16, 0.1)), 146)
    spot(cat.turn(ellipse(far * 0.2, 0.2, 0.07, 0.16), 0.2), 106)
    return shade.soft()
