"""Where a head and its body are: local head units -> frame units, for people and animals alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.sources.tiny_world.pen import Points


@dataclass(frozen=True)
class Stance:
    """The part of a pose that says where the figure is.

    Attributes:
        x, y: middle of the face in the frame.
        scale: frame units per head unit.
        roll, yaw: radians.
        pitch: head units that features move down.
    """

    x: float
    y: float
    scale: float
    roll: float
    yaw: float
    pitch: float


class Figure:
    """A head that leans and turns on a body that does not.

    Args:
        stance: the pose.
        radius: head units of the ball on which the features sit.
        neck: head units from the middle of the face down to the point about which it leans.
    """

    def __init__(self, stance: Stance, radius: float, neck: float) -> None:
        self._stance, self._radius = stance, radius
        cos, sin = np.cos(stance.roll), np.sin(stance.roll)
        self._turned = np.array([[cos, sin], [-sin, cos]]) * stance.scale
        self._at = np.array((stance.x, stance.y))
        pivot = np.array((0.0, neck))
        self._leaned_at = self._at + pivot * stance.scale - pivot @ self._turned
        self._cos_yaw, self._sin_yaw = np.cos(stance.yaw * 0.8), np.sin(stance.yaw * 0.8)
        self._lift = np.sin(stance.yaw)

    def place(self, xy: Points) -> Points:
        """Head units -> frame units; the head leans about the neck."""
        return xy @ self._turned + self._leaned_at

    def place_body(self, xy: Points) -> Points:
        """The same without leaning."""
        return xy * self._stance.scale + self._at

    def turn(self, xy: Points, depth: float = 0.0) -> Points:
        """Move points of the face as on a turned ball; ``depth`` lifts them off it (a nose)."""
        sin = xy[:, 0] / self._radius
        np.maximum(sin, -0.98, out=sin)
        np.minimum(sin, 0.98, out=sin)
        # sin(a + yaw), without an arcsine; in place, because a head has dozens of short curves
        cos = sin * sin
        np.subtract(1, cos, out=cos)
        np.sqrt(cos, out=cos)
        cos *= self._sin_yaw
        sin *= self._cos_yaw
        sin += cos
        sin *= self._radius
        if depth:
            sin += depth * self._lift
        out = np.empty_like(xy)
        out[:, 0] = sin
        out[:, 1] = xy[:, 1] + self._stance.pitch
        return out
