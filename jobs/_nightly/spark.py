"""A score over the nights, small enough for a table's cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from jobs._report import words

_WIDTH, _HEIGHT, _PAD = 180.0, 34.0, 4.0


@dataclass(frozen=True)
class Point:
    """One night of one score.

    Attributes:
        date: of the night.
        mean, low, high: with its interval; None where nothing could be scored or the method did not run.
        kind: ``good``, ``drop`` or ``gain``.
        group: nights of one fingerprint; the line joins only those.
    """

    date: str
    mean: float | None
    low: float | None
    high: float | None
    kind: str
    group: str


def spark(points: Sequence[Point], title: str) -> Markup:
    """The score's line with its interval, a dot where something moved and for the last night."""
    known = [(i, point) for i, point in enumerate(points) if point.mean is not None]
    low = min((v for _, p in known for v in (p.mean, p.low) if v is not None), default=0.0)
    high = max((v for _, p in known for v in (p.mean, p.high) if v is not None), default=1.0)
    scale = _Scale(len(points), low, high)
    parts = [part for run in _runs(known) for part in _line(run, scale)]
    parts += [_dot(i, point, scale) for i, point in known if point.kind != "good" or i == len(points) - 1]
    return Markup('<svg class="spark" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        int(_WIDTH), int(_HEIGHT), title, Markup("").join(parts)
    )


@dataclass(frozen=True)
class _Scale:
    nights: int
    low: float
    high: float

    def x(self, i: int) -> float:
        return _PAD + (_WIDTH - 2 * _PAD) * (i / (self.nights - 1) if self.nights > 1 else 1.0)

    def y(self, value: float) -> float:
        span = self.high - self.low
        return _HEIGHT - _PAD - (_HEIGHT - 2 * _PAD) * ((value - self.low) / span if span else 0.5)


def _runs(known: Sequence[tuple[int, Point]]) -> list[list[tuple[int, Point]]]:
    """Neighbours that measured the same."""
    out: list[list[tuple[int, Point]]] = []
    for i, point in known:
        if not out or out[-1][-1][1].group != point.group:
            out.append([])
        out[-1].append((i, point))
    return out


def _line(run: Sequence[tuple[int, Point]], scale: _Scale) -> list[Markup]:
    banded = [(i, p) for i, p in run if p.low is not None and p.high is not None]
    up = [f"{scale.x(i):.1f},{scale.y(p.high):.1f}" for i, p in banded if p.high is not None]
    down = [f"{scale.x(i):.1f},{scale.y(p.low):.1f}" for i, p in reversed(banded) if p.low is not None]
    along = [f"{scale.x(i):.1f},{scale.y(p.mean):.1f}" for i, p in run if p.mean is not None]
    return [
        Markup('<polygon class="band" points="{}"/>').format(" ".join(up + down)),
        Markup('<polyline points="{}"/>').format(" ".join(along)),
    ]


def _dot(i: int, point: Point, scale: _Scale) -> Markup:
    at = f"{point.date}: {words.number(point.mean)} {words.between(point.low, point.high)}".strip()
    return Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{}"><title>{}</title></circle>').format(
        point.kind, scale.x(i), scale.y(point.mean or 0.0), "3.2" if point.kind != "good" else "2.2", at
    )
