"""Hair: one function behind the head and one in front of it for each style."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipelines.sources.tiny_world.domains.face.head import Head
from pipelines.sources.tiny_world.pen import (
    Color,
    Pen,
    Points,
    columns,
    darker,
    ellipse,
    evenly,
    lighter,
    luminance,
    mirrored,
    mix,
    points,
    smooth,
)

HairPainter = Callable[[Pen, Head], None]


def _strand(color: Color) -> Color:
    """The tone of single strands: lighter on dark hair, darker on light hair."""
    return lighter(color, 0.22) if luminance(color) < 0.3 else darker(color, 0.3)


def _over(head: Head, side: float, top: float, down: float, n: int = 11) -> Points:
    """An arc over the skull from right to left, ``side`` and ``top`` outside of it, ending at height ``down``."""
    angle = evenly(0, np.pi, n)
    x = (head.traits.width + side) * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** 0.82
    y = -(1 + top) * np.sin(angle) ** 0.9
    ends = points((head.traits.width + side * 0.8, down)), points((-(head.traits.width + side * 0.8), down))
    return np.concatenate([ends[0], columns(x, y), ends[1]])


def _cap(pen: Pen, head: Head, side: float, top: float, down: float, hairline: list[tuple[float, float]]) -> None:
    """Hair on the skull, down to ``hairline`` (left to right), which turns with the face."""
    line = head.turn(np.array(hairline)) - (0, head.pose.pitch * 0.4)
    pen.shape(smooth(np.concatenate([_over(head, side, top, down), line]), steps=4), head.traits.hair_color)


def _lines(pen: Pen, head: Head, *curves: list[tuple[float, float]]) -> None:
    for curve in curves:
        pen.stroke(smooth(curve, closed=False, steps=4), _strand(head.traits.hair_color), 0.0075, bold=False)


def _swept(head: Head, low: float = -0.42) -> list[tuple[float, float]]:
    """A hairline parted at one side, left to right."""
    w, s = head.traits.width, head.traits.parting
    line = [(-0.97, 0.0), (-0.86, -0.3), (-0.62, low - 0.02), (-0.2, low - 0.1), (0.25, low - 0.2),
        (0.5, low - 0.3), (0.72, low - 0.12), (0.9, -0.26), (0.97, 0.0)]  # fmt: skip
    return [(x * w, y) for x, y in (line if s > 0 else [(-x, y) for x, y in reversed(line)])]


def _straight(head: Head, y: float, corner: float = 0.82) -> list[tuple[float, float]]:
    """A level hairline at height ``y``."""
    w = head.traits.width
    return [(-0.97 * w, 0.02), (-corner * w, y + 0.12), (-0.5 * w, y), (0, y - 0.03), (0.5 * w, y),
        (corner * w, y + 0.12), (0.97 * w, 0.02)]  # fmt: skip


def _middle_part(head: Head) -> list[tuple[float, float]]:
    w = head.traits.width
    return [(-1.0 * w, 0.25), (-0.93 * w, -0.1), (-0.68 * w, -0.42), (-0.3 * w, -0.66), (0, -0.84),
        (0.3 * w, -0.66), (0.68 * w, -0.42), (0.93 * w, -0.1), (1.0 * w, 0.25)]  # fmt: skip


# --- behind the head


def _fall(pen: Pen, head: Head, low: float, flare: float, tip: float) -> None:
    """Hair hanging behind the face to height ``low``."""
    w = head.traits.width + 0.16 * head.traits.volume
    half = [(0, -1.1), (w * 0.7, -0.95), (w, -0.4), (w + flare * 0.4, 0.3), (w + flare, low - 0.25),
        (w + flare - tip, low), (w * 0.4, low - 0.04), (0, low - 0.1)]  # fmt: skip
    pen.shape(smooth(mirrored(half)), darker(head.traits.hair_color, 0.2))


def _back_bob(pen: Pen, head: Head) -> None:
    _fall(pen, head, 0.92, 0.12, 0.1)


def _back_long(pen: Pen, head: Head) -> None:
    _fall(pen, head, 1.75, 0.12, 0.08)


def _back_wavy(pen: Pen, head: Head) -> None:
    w = head.traits.width + 0.18 * head.traits.volume
    half = [(0, -1.1), (w * 0.75, -0.95), (w + 0.02, -0.4), (w + 0.16, 0.05), (w + 0.04, 0.38),
        (w + 0.26, 0.74), (w + 0.1, 1.08), (w + 0.32, 1.42), (w + 0.12, 1.8), (w * 0.4, 1.7), (0, 1.6)]  # fmt: skip
    pen.shape(smooth(mirrored(half)), darker(head.traits.hair_color, 0.2))


def _back_afro(pen: Pen, head: Head) -> None:
    t = head.traits
    r = 1.06 + 0.14 * t.volume
    angles = evenly(np.deg2rad(150), np.deg2rad(390), 15)
    centres = columns(np.cos(angles) * r * t.width * 0.98, np.sin(angles) * r * 0.82 - 0.3)
    for x, y in centres:
        pen.shape(ellipse(x, y, 0.32, 0.32, 14), t.hair_color)
    for x, y in centres:  # again without outlines, so that only the outermost are left
        pen.shape(ellipse(x, y, 0.27, 0.27, 12), t.hair_color, 0)
    pen.shape(ellipse(0, -0.34, r * t.width * 1.02, r * 0.86), t.hair_color, 0)
    pen.dots(centres * 0.9 + (0.05, -0.08), 0.012, _strand(t.hair_color))


def _back_bun(pen: Pen, head: Head) -> None:
    t = head.traits
    pen.shape(ellipse(0.06 * t.parting, -1.26, 0.36 * t.volume, 0.32 * t.volume), t.hair_color)
    pen.stroke(
        smooth([(-0.16, -1.3), (0, -1.42), (0.18, -1.3)], closed=False), _strand(t.hair_color), 0.008, bold=False
    )


def _back_ponytail(pen: Pen, head: Head) -> None:
    t = head.traits
    s = t.parting
    tail = [(s * 0.5, -0.9), (s * (t.width + 0.28), -0.72), (s * (t.width + 0.44), 0.1),
        (s * (t.width + 0.22), 0.95), (s * (t.width + 0.12), 0.3), (s * 0.7, -0.2)]  # fmt: skip
    pen.shape(smooth(tail), t.hair_color)
    _lines(pen, head, [(s * (t.width + 0.2), -0.4), (s * (t.width + 0.3), 0.1), (s * (t.width + 0.2), 0.6)])


def _back_pigtails(pen: Pen, head: Head) -> None:
    t = head.traits
    for s in (-1, 1):
        for k in range(4):
            x, y = s * (t.width + 0.16 + 0.05 * np.sin(k * 2.0)), 0.1 + 0.3 * k
            pen.shape(ellipse(x, y, 0.2 - 0.02 * k, 0.2, 14), darker(t.hair_color, 0.06 * (k % 2)))
        pen.shape(ellipse(s * (t.width + 0.14), 1.2, 0.09, 0.07, 10), (230, 70, 110), 0.6)


def _back_locs(pen: Pen, head: Head) -> None:
    t = head.traits
    for x in evenly(-1.12, 1.12, 9):
        end = 1.45 - 0.3 * abs(x)
        lock = smooth(
            [(x * 0.72 * t.width, -0.8), (x * (t.width + 0.12), -0.1), (x * (t.width + 0.2), end)], closed=False
        )
        pen.rope(lock, darker(t.hair_color, 0.15), 0.056)


def _back_curly(pen: Pen, head: Head) -> None:
    w = head.traits.width
    for side in (-1, 1):
        for x, y in ((w + 0.06, -0.5), (w + 0.12, -0.2), (w + 0.1, 0.1), (w + 0.04, 0.34)):
            pen.shape(ellipse(side * x, y, 0.19, 0.19, 12), darker(head.traits.hair_color, 0.15))


# --- in front of it


def _buzz(pen: Pen, head: Head) -> None:
    t = head.traits
    line = head.turn(np.array(_straight(head, -0.52, 0.86)))
    outline = np.concatenate([_over(head, 0.015, 0.02, -0.05), line])
    pen.shape(smooth(outline, steps=4), mix(t.hair_color, t.skin, 0.25), 0.8)


def _short(pen: Pen, head: Head) -> None:
    t, s = head.traits, head.traits.parting
    _cap(pen, head, 0.06, 0.16 * t.volume, 0.02, _swept(head))
    _lines(pen, head, [(s * 0.4, -0.98), (-s * 0.1, -0.84), (-s * 0.5, -0.6)], [(s * 0.1, -1.06),
        (-s * 0.35, -0.92), (-s * 0.66, -0.6)])  # fmt: skip


def _quiff(pen: Pen, head: Head) -> None:
    t, s = head.traits, head.traits.parting
    _cap(pen, head, 0.03, 0.06, 0.0, _straight(head, -0.6))
    v = 0.3 * t.volume
    top = [(-0.66 * s, -0.66), (-0.8 * s, -1.0 - v * 0.5), (-0.3 * s, -1.28 - v), (0.35 * s, -1.2 - v),
        (0.72 * s, -0.95), (0.64 * s, -0.68), (0, -0.6)]  # fmt: skip
    pen.shape(smooth([(x * t.width / 0.78, y) for x, y in top]), t.hair_color)
    _lines(pen, head, [(-0.5 * s, -0.8), (-0.3 * s, -1.1 - v * 0.5), (0.2 * s, -1.15 - v * 0.7)],
        [(-0.1 * s, -0.75), (0.1 * s, -1.0), (0.5 * s, -1.0)])  # fmt: skip


def _spiky(pen: Pen, head: Head) -> None:
    t = head.traits
    x = evenly(0.98, -0.98, 13) * (t.width + 0.04)
    base = -np.sqrt(np.clip(1 - (x / (t.width + 0.08)) ** 2, 0, 1))
    spikes = np.where(np.arange(13) % 2 == 1, 0.34 * t.volume, 0.04)
    lean = np.where(np.arange(13) % 2 == 1, 0.08 * t.parting, 0)
    top = columns(x + lean, base - spikes)
    line = head.turn(points((-0.97 * t.width, 0.0), (-0.8 * t.width, -0.4), (-0.5, -0.5), (-0.34, -0.4),
        (-0.16, -0.54), (0.02, -0.4), (0.2, -0.54), (0.4, -0.42), (0.8 * t.width, -0.42),
        (0.97 * t.width, 0.0)))  # fmt: skip
    pen.shape(np.concatenate([top, line]), t.hair_color)


def _curls(pen: Pen, head: Head, low: float) -> None:
    """Rings of curls along the skull and over the forehead."""
    t = head.traits
    angles = evenly(-0.12, np.pi + 0.12, 10)
    rim = columns(np.cos(angles) * (t.width + 0.02), -np.sin(angles) * 0.98 - 0.06)
    front = head.turn(columns(evenly(-0.8, 0.8, 6) * t.width, low + 0.12 * evenly(-1, 1, 6) ** 2))
    r = 0.17 + 0.05 * t.volume
    pen.shape(np.concatenate([rim, front]), t.hair_color, 0)
    for x, y in np.concatenate([rim, front]):
        pen.shape(ellipse(x, y, r, r, 12), t.hair_color, 0.8)
    pen.shape(np.concatenate([rim * 0.98, front]), t.hair_color, 0)
    for x, y in np.concatenate([rim[1:-1] * 0.95, front - (0, 0.12)]):
        curl = ellipse(x, y, r * 0.55, r * 0.55, 12)[3:11]
        pen.stroke(curl, _strand(t.hair_color), 0.0075, bold=False)


def _curly(pen: Pen, head: Head) -> None:
    _curls(pen, head, -0.62)


def _afro(pen: Pen, head: Head) -> None:
    _cap(pen, head, 0.04, 0.05, -0.05, _straight(head, -0.58))


def _bob(pen: Pen, head: Head) -> None:
    t, s = head.traits, head.traits.parting
    _cap(pen, head, 0.16 * t.volume, 0.17 * t.volume, 0.55, [(-0.98 * t.width, 0.5), *_swept(head, -0.36),
        (0.98 * t.width, 0.5)])  # fmt: skip
    _lines(pen, head, [(s * 0.42, -1.0), (-s * 0.3, -0.8), (-s * 0.74, -0.3)], [(s * 0.5, -1.0),
        (s * 0.86, -0.5), (s * 0.92, 0.2)])  # fmt: skip


def _long(pen: Pen, head: Head) -> None:
    t = head.traits
    _cap(pen, head, 0.14 * t.volume, 0.14 * t.volume, 0.5, _middle_part(head))
    for s in (-1, 1):
        w = t.width
        lock = [(s * w * 0.9, -0.2), (s * (w + 0.16), 0.2), (s * (w + 0.2), 0.9), (s * (w + 0.08), 1.6),
            (s * (w - 0.14), 1.5), (s * (w - 0.06), 0.8), (s * (w - 0.02), 0.3)]  # fmt: skip
        pen.shape(smooth(lock), t.hair_color)
        _lines(pen, head, [(s * 0.1, -1.0), (s * 0.62, -0.62), (s * (w + 0.04), 0.1), (s * (w + 0.06), 1.2)])


def _wavy(pen: Pen, head: Head) -> None:
    t, s0 = head.traits, head.traits.parting
    _cap(pen, head, 0.17 * t.volume, 0.18 * t.volume, 0.4, _swept(head, -0.4))
    w = t.width
    for s in (-1, 1):
        lock = [(s * w * 0.92, -0.1), (s * (w + 0.2), 0.1), (s * (w + 0.06), 0.45), (s * (w + 0.24),
            0.8), (s * (w + 0.08), 1.15), (s * (w + 0.22), 1.5), (s * (w - 0.1), 1.42), (s * (w - 0.14),
            1.1), (s * (w - 0.02), 0.78), (s * (w - 0.12), 0.45)]  # fmt: skip
        pen.shape(smooth(lock), t.hair_color)
        _lines(pen, head, [(s * (w + 0.05), 0.15), (s * (w - 0.01), 0.5), (s * (w + 0.1), 0.85), (s * w, 1.2)])
    _lines(pen, head, [(s0 * 0.4, -1.02), (-s0 * 0.2, -0.88), (-s0 * 0.7, -0.5)])


def _fringe(pen: Pen, head: Head) -> None:
    t = head.traits
    _long(pen, head)
    w = t.width
    edge = head.turn(points((-0.86 * w, -0.16), (-0.4 * w, -0.2), (0, -0.19), (0.4 * w, -0.2), (0.86 * w, -0.16)))
    bangs = np.concatenate(
        [points((0.98 * w, -0.4), (0.6 * w, -0.92), (0, -1.05), (-0.6 * w, -0.92), (-0.98 * w, -0.4)), edge]
    )
    pen.shape(smooth(bangs, steps=4), t.hair_color, 0.7)
    _lines(pen, head, *[[(x * 0.8, -0.9), (x * 1.05, -0.55), (x * 1.1, -0.28)] for x in (-0.5, -0.16, 0.18, 0.5)])


def _pulled_back(pen: Pen, head: Head) -> None:
    t = head.traits
    _cap(pen, head, 0.03, 0.08, 0.02, _straight(head, -0.62))
    _lines(pen, head, *[[(x * 0.9, -0.62), (x * 0.5, -0.88), (x * 0.12, -1.04)] for x in (-0.6, -0.25, 0.25, 0.6)])
    if t.hair == "pigtails":
        pen.stroke(points((0, -1.05), (0, -0.66)), darker(t.skin, 0.1), 0.008, bold=False)


def _mohawk(pen: Pen, head: Head) -> None:
    t = head.traits
    shadow = np.concatenate([_over(head, 0.0, 0.0, -0.1), head.turn(np.array(_straight(head, -0.55)))])
    pen.shape(smooth(shadow, steps=4), mix(t.skin, t.hair_color, 0.25), 0)
    v = 0.42 * t.volume
    crest = [(-0.2, -0.56), (-0.3, -0.95), (-0.3, -1.05 - v), (-0.12, -0.98 - v * 0.6),
        (0, -1.12 - v * 1.1), (0.12, -0.98 - v * 0.6), (0.3, -1.05 - v), (0.3, -0.95), (0.2, -0.56),
        (0, -0.48)]  # fmt: skip
    pen.shape(points(*crest), t.hair_color)


def _receding(pen: Pen, head: Head) -> None:
    t = head.traits
    w = t.width
    for s in (-1, 1):
        tuft = [(s * w * 0.92, -0.62), (s * (w + 0.13), -0.4), (s * (w + 0.15), 0.0), (s * (w + 0.02), 0.2),
            (s * w * 0.93, 0.02), (s * w * 0.86, -0.3)]  # fmt: skip
        pen.shape(smooth(tuft), t.hair_color)
    _lines(pen, head, [(-0.4, -0.86), (0, -0.95), (0.4, -0.84)], [(-0.3, -0.78), (0.05, -0.86), (0.36, -0.76)])


def _locs(pen: Pen, head: Head) -> None:
    t = head.traits
    _cap(pen, head, 0.08, 0.16, 0.0, _middle_part(head)[1:-1])
    for s in (-1, 1):
        for k, reach in ((0.0, 1.15), (0.16, 1.35)):
            lock = [(s * 0.2, -1.0), (s * (0.66 + k * 0.6), -0.66), (s * (t.width + 0.02 + k), 0.1),
                (s * (t.width + 0.04 + k), reach)]  # fmt: skip
            pen.rope(smooth(lock, closed=False), t.hair_color, 0.05)
            _lines(pen, head, lock)


def _nothing(pen: Pen, head: Head) -> None:
    """Bald, or nothing behind the head."""


BACK: dict[str, HairPainter] = {"bob": _back_bob, "long": _back_long, "fringe": _back_long,
    "wavy": _back_wavy, "afro": _back_afro, "bun": _back_bun, "ponytail": _back_ponytail,
    "pigtails": _back_pigtails, "locs": _back_locs, "curly": _back_curly}  # fmt: skip
FRONT: dict[str, HairPainter] = {"bald": _nothing, "buzz": _buzz, "short": _short, "quiff": _quiff,
    "spiky": _spiky, "curly": _curly, "afro": _afro, "bob": _bob, "long": _long, "wavy": _wavy,
    "fringe": _fringe, "bun": _pulled_back, "ponytail": _pulled_back, "pigtails": _pulled_back,
    "mohawk": _mohawk, "receding": _receding, "locs": _locs}  # fmt: skip
