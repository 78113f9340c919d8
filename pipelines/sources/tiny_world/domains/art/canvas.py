"""The painting as a thing: where it is in the picture, its frame, and the light on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from pipelines.sources.tiny_world.domains.art.contents import INK, MOTIFS, PALE_SKY, SKY, Shape
from pipelines.sources.tiny_world.domains.art.techniques import TECHNIQUES, Roles, wander
from pipelines.sources.tiny_world.domains.art.traits import Traits
from pipelines.sources.tiny_world.draws import Draws
from pipelines.sources.tiny_world.pen import Color, Pen, Points, darker, ellipse, lighter, points
from pipelines.sources.tiny_world.shade import Shade

_FRAMES: tuple[Color, ...] = ((112, 70, 40), (206, 160, 66), (40, 36, 42), (240, 238, 232))


@dataclass(frozen=True)
class Pose:
    """What changes from picture to picture, but for the motif's own draws.

    Attributes:
        motif: what is painted.
        x, y: middle of the canvas in the frame; ``half``: half its width and height, in frame units.
        roll: radians; ``lean``: how far its top is pushed sideways, a share of its height.
        frame: its colour, or None; ``border``: its width in frame units.
        light: -1 from the left to 1 from the right.
    """

    motif: str
    x: float
    y: float
    half: tuple[float, float]
    roll: float
    lean: float
    frame: Color | None
    border: float
    light: float


def draw_pose(draws: Draws) -> Pose:
    """A new pose from the stream ``draws``."""
    return Pose(
        motif=draws.choice(tuple(MOTIFS)), x=0.5 + draws.middling(-0.03, 0.03), y=0.5 + draws.middling(-0.03, 0.03),
        half=(draws.uniform(0.36, 0.395), draws.uniform(0.36, 0.395)), roll=draws.middling(-0.12, 0.12),
        lean=draws.middling(-0.06, 0.06), frame=draws.choice(_FRAMES) if draws.chance(0.6) else None,
        border=draws.uniform(0.022, 0.036), light=draws.sign() * draws.uniform(0.5, 1.0),
    )  # fmt: skip


class Canvas:
    """A painting in a pose. Canvas units: (0, 0) is its upper left corner, (1, 1) its lower right one."""

    def __init__(self, pose: Pose) -> None:
        self.pose = pose
        cos, sin = np.cos(pose.roll), np.sin(pose.roll)
        stretch = np.array([[2 * pose.half[0], 0.0], [pose.lean * 2 * pose.half[0], 2 * pose.half[1]]])
        self._matrix = stretch @ np.array([[cos, sin], [-sin, cos]])

    def place(self, xy: Points) -> Points:
        """Canvas units -> frame units."""
        return (xy - 0.5) @ self._matrix + (self.pose.x, self.pose.y)

    def corners(self, grow: float = 0.0) -> Points:
        """Of the canvas and ``grow`` around it, in canvas units."""
        a, b = -grow, 1 + grow
        return points((a, a), (b, a), (b, b), (a, b))

    def back(self, side: int, n: int) -> tuple[float, ...]:
        """Pillow's affine coefficients: pixels of the layer (``side``) -> pixels of a painting (``n``)."""
        (a, b), (c, d) = self._matrix
        inverse = np.array([[d, -b], [-c, a]]) / (a * d - b * c) * (n / side)
        shift = n / 2 - side * np.array((self.pose.x, self.pose.y)) @ inverse
        return (inverse[0, 0], inverse[1, 0], shift[0], inverse[0, 1], inverse[1, 1], shift[1])


def plan(t: Traits, shapes: list[Shape], n: int, draws: Draws) -> Roles:
    """The motif as roles of colours, (n, n), with the style's outlines and its unsteady hand."""
    sheet = Image.new("L", (n, n), SKY)
    draw = ImageDraw.Draw(sheet)
    for outline, role in shapes:
        xy = (outline * n).ravel().tolist()
        draw.polygon(xy, fill=role)
        if t.line and role != PALE_SKY:
            draw.line([*xy, *xy[:2]], fill=INK, width=max(1, round(t.line * n)))
    return wander(np.asarray(sheet), t, draws)


def paint(t: Traits, roles: Roles, draws: Draws) -> Image.Image:
    """The picture on the canvas, n x n RGB."""
    n = len(roles)
    colors = np.array((*t.palette, lighter(t.palette[0], 0.32), t.ink), dtype=np.float32)
    done = Image.fromarray(np.clip(TECHNIQUES[t.technique](colors[roles], t, draws), 0, 255).astype(np.uint8))
    if not t.margin:
        return done
    bare = round(t.margin * n)
    sheet = Image.new("RGB", (n, n), t.ground)
    sheet.paste(done.crop((bare, bare, n - bare, n - bare)), (bare, bare))
    return sheet


def _edges(roles: Roles, share: float) -> Image.Image:
    """Where one role meets another: a mask that lets ``share`` of an outline through, n x n."""
    flat = np.where(roles == PALE_SKY, SKY, roles)
    edge = np.zeros(flat.shape, dtype=np.bool_)
    edge[1:] |= flat[1:] != flat[:-1]
    edge[:, 1:] |= flat[:, 1:] != flat[:, :-1]
    edge[:-1] |= edge[1:]
    edge[:, :-1] |= edge[:, 1:]
    return Image.fromarray(edge.astype(np.uint8) * np.uint8(255 * share))


def hang(pen: Pen, canvas: Canvas, painting: Image.Image, roles: Roles) -> None:
    """Frame, painting, and the outlines that the picture's own style asks for."""
    p, side = canvas.pose, pen.side
    border = p.border / p.half[0] if p.frame else 0.02
    pen.shape(canvas.place(canvas.corners(border)), p.frame or (226, 214, 190))
    pen.shape(canvas.place(canvas.corners(0.35 * border)), darker(p.frame or (150, 140, 124), 0.35), 0)
    mask = Image.new("L", (side, side))
    ImageDraw.Draw(mask).polygon((canvas.place(canvas.corners()) * side).ravel().tolist(), fill=255)
    back = canvas.back(side, painting.width)

    def turned(sheet: Image.Image) -> Image.Image:
        return sheet.transform((side, side), Image.Transform.AFFINE, back, Image.Resampling.NEAREST)

    pen.image.paste(turned(painting), mask=mask.convert("1"))
    if pen.ink.width:
        pen.image.paste((10, 8, 12), mask=ImageChops.multiply(turned(_edges(roles, pen.ink.black)), mask))
        pen.outline(canvas.place(canvas.corners()), (10, 8, 12))


def draw_shade(canvas: Canvas, side: int) -> Image.Image:
    """Light that falls off across the canvas, with a glint in the near corner."""
    far = -canvas.pose.light
    shade = Shade(side)
    for reach, level in ((0.25, 116), (0.38, 106), (0.5, 96)):
        x = 0.5 + far * (reach + 0.3)
        band = points((x, -0.3), (0.5 + far * 1.2, -0.3), (0.5 + far * 1.2, 1.3), (x + far * 0.1, 1.3))
        shade.spot(canvas.place(band), level)
    shade.spot(canvas.place(ellipse(0.5 - far * 0.34, 0.14, 0.2, 0.12)), 148)
    return shade.soft()
