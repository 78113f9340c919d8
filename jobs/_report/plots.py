"""Inline SVG. Colours and type come from the page's stylesheet, so plots follow it in print and in the dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

_WIDTH, _HEIGHT = 480, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 14, 26, 40


@dataclass(frozen=True)
class Point:
    """A point with an interval in both directions; intervals may be unknown.

    Attributes:
        label: shown beside it; empty for none.
        series: colour.
        x, y: (mean, low, high).
        kind: ``method``, ``part`` (hollow) or ``one`` (a faint dot).
        tip: what is said of it when it is pointed at or focused; empty for none.
        identity: of a faint dot, its number in the page's data.
    """

    label: str
    series: int
    x: tuple[float, float | None, float | None]
    y: tuple[float, float | None, float | None]
    kind: str = "method"
    tip: str = ""
    identity: int | None = None

    def values(self, axis: str) -> list[float]:
        """All numbers that the axis must show."""
        return [v for v in getattr(self, axis) if v is not None]


@dataclass(frozen=True)
class _Axis:
    """A linear scale from data to pixels, with round ticks."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float) -> _Axis:
        low, high = min(values), max(values)
        pad = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
        return cls(low - pad, high + pad, start, end)

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        found = MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(self.low, self.high)
        return [float(t) for t in found if self.low <= t <= self.high]


def _text(value: float, ticks: Sequence[float]) -> str:
    step = min(np.diff(ticks)) if len(ticks) > 1 else 1.0
    digits = max(0, int(np.ceil(-np.log10(step) - 1e-9)))
    if not np.isclose(step * 10**digits, round(step * 10**digits)):
        digits += 1
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _frame(x: _Axis, y: _Axis, x_label: str, y_label: str) -> list[Markup]:
    """Grid, tick labels and axis names; the y name stands above the axis, where it reads without turning the head."""
    out = []
    for tick in (ticks := y.ticks(6)):
        out.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{y:.1f}" y2="{y:.1f}"/>').format(
                _LEFT, _WIDTH - _RIGHT, y=y(tick)
            )
        )
        out.append(
            Markup('<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(
                _LEFT - 7, y(tick) + 4, _text(tick, ticks)
            )
        )
    for tick in (ticks := x.ticks(6)):
        out.append(
            Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                x(tick), _HEIGHT - _BOTTOM + 17, _text(tick, ticks)
            )
        )
        out.append(
            Markup('<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{}" y2="{}"/>').format(
                _HEIGHT - _BOTTOM, _HEIGHT - _BOTTOM + 4, x=x(tick)
            )
        )
    base = _HEIGHT - _BOTTOM
    out.append(
        Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(_LEFT, _WIDTH - _RIGHT, base, base)
    )
    out.append(
        Markup('<text class="name" x="{}" y="{}" text-anchor="end">{}</text>').format(
            _WIDTH - _RIGHT, _HEIGHT - 5, x_label
        )
    )
    out.append(Markup('<text class="name" x="0" y="12">{}</text>').format(y_label))
    return out


def _svg(parts: Sequence[Markup], title: str, role: str = "img") -> Markup:
    """``role`` is ``group`` for a plot with parts that can be focused: what is inside an image is not read out."""
    head = Markup('<svg class="plot" viewBox="0 0 {} {}" role="{}" aria-label="{}">').format(
        _WIDTH, _HEIGHT, role, title
    )
    return head + Markup("\n").join(parts) + Markup("</svg>")


def pareto(points: Sequence[Point], x_label: str, y_label: str) -> Markup:
    """Likeness against agreement with the prompt (E4T fig. 4a): up and to the right is better on both.

    With several methods a line joins those that no other beats on both axes.
    """
    x = _Axis.over([v for p in points for v in p.values("x")], _LEFT, _WIDTH - _RIGHT)
    y = _Axis.over([v for p in points for v in p.values("y")], _HEIGHT - _BOTTOM, _TOP)
    out = _frame(x, y, x_label, y_label)
    order = {"one": 0, "part": 1, "method": 2}
    out += _front([p for p in points if p.kind == "method"], x, y)
    for point in sorted(points, key=lambda p: order[p.kind]):
        out.append(_mark(point, x, y))
    out += _labels([p for p in points if p.label and p.kind != "one"], x, y)
    return _svg(out, f"{y_label} against {x_label}", "group")


def _mark(point: Point, x: _Axis, y: _Axis) -> Markup:
    at_x, at_y = x(point.x[0]), y(point.y[0])
    lines = []
    if point.kind != "one":
        for low, high, turned in ((point.x[1], point.x[2], False), (point.y[1], point.y[2], True)):
            if low is not None and high is not None:
                ends = (at_x, at_x, y(low), y(high)) if turned else (x(low), x(high), at_y, at_y)
                lines.append(Markup('<line x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>').format(*ends))
    radius = {"one": 2.4, "part": 3.6, "method": 5.5}[point.kind]
    circle = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{}"/>').format(at_x, at_y, radius)
    told = Markup(' tabindex="0" role="img" aria-label="{}"').format(point.tip) if point.tip else Markup("")
    if point.identity is not None:
        told = Markup(' data-identity="{}" data-method="{}"').format(point.identity, point.series)
    return Markup('<g class="{} s{}"{}>{}{}</g>').format(
        point.kind, point.series % 8, told, Markup("").join(lines), circle
    )


def _front(points: Sequence[Point], x: _Axis, y: _Axis) -> list[Markup]:
    best = [p for p in points if not any(q.x[0] > p.x[0] and q.y[0] > p.y[0] for q in points)]
    if len(points) < 2 or len(best) < 2:
        return []
    path = " ".join(f"{x(p.x[0]):.1f},{y(p.y[0]):.1f}" for p in sorted(best, key=lambda p: p.x[0]))
    return [Markup('<polyline class="front" points="{}"/>').format(path)]


def _labels(points: Sequence[Point], x: _Axis, y: _Axis) -> list[Markup]:
    """Each beside its point, on the first side where it covers no other label or mark."""
    taken = [box for point in points for box in _marks(point, x, y)]
    out = []
    for point in sorted(points, key=lambda p: p.kind != "method"):
        at_x, at_y, width = x(point.x[0]), y(point.y[0]), 6.8 * len(point.label)
        right, left = (at_x + 9, at_x + 9 + width), (at_x - 9 - width, at_x - 9)
        sides = [(*span, at_y + down) for down in (-7, 16, -22, 31, -37, 46) for span in (right, left)]
        inside = [side for side in sides if side[0] >= 0 and side[1] <= _WIDTH]
        free = [side for side in inside if not any(_overlap(_box(side), box) for box in taken)]
        start, end, base = (free or inside or sides)[0]
        taken.append(_box((start, end, base)))
        anchor, edge = ("start", start) if start > at_x else ("end", end)
        out.append(
            Markup('<text class="label {} s{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
                point.kind, point.series % 8, edge, base, anchor, point.label
            )
        )
    return out


_Box = tuple[float, float, float, float]
"""Left, right, top, bottom."""


def _box(label: tuple[float, float, float]) -> _Box:
    start, end, base = label
    return start, end, base - 11, base + 3


def _marks(point: Point, x: _Axis, y: _Axis) -> list[_Box]:
    """The boxes that a point and its cross cover."""
    at_x, at_y = x(point.x[0]), y(point.y[0])
    boxes = [(at_x - 5, at_x + 5, at_y - 5, at_y + 5)]
    if point.x[1] is not None and point.x[2] is not None:
        boxes.append((x(point.x[1]), x(point.x[2]), at_y - 1, at_y + 1))
    if point.y[1] is not None and point.y[2] is not None:
        boxes.append((at_x - 1, at_x + 1, y(point.y[2]), y(point.y[1])))
    return boxes


def _overlap(a: _Box, b: _Box) -> bool:
    return a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]


def curves(
    bands: Sequence[tuple[int, str, dict[str, list[float]], list[list[float]]]], x_label: str, y_label: str
) -> Markup:
    """Median curves with their quartile bands over thin single ones (E4T fig. 7).

    Args:
        bands: (series, label, ``median``/``low``/``high`` per step, single curves).
    """
    every = [v for _, _, band, lines in bands for c in (*band.values(), *lines) for v in c]
    steps = max(len(band["median"]) for _, _, band, _ in bands)
    x = _Axis(1, max(steps, 2), _LEFT, _WIDTH - _RIGHT)
    y = _Axis.over(every, _HEIGHT - _BOTTOM, _TOP)
    out = _frame(x, y, x_label, y_label)
    for series, label, band, lines in bands:
        inner = [_path(line, x, y, "single") for line in lines]
        ribbon = _points(band["high"], x, y) + _points(band["low"], x, y)[::-1]
        inner.append(Markup('<polygon class="band" points="{}"/>').format(" ".join(ribbon)))
        inner.append(_path(band["median"], x, y, "median"))
        if len(bands) > 1:
            at = y(band["median"][-1]) - 8
            inner.append(
                Markup('<text class="label method s{}" x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(
                    series % 8, _WIDTH - _RIGHT, at, label
                )
            )
        out.append(Markup('<g class="curve s{}">{}</g>').format(series % 8, Markup("").join(inner)))
    return _svg(out, f"{y_label} by {x_label}")


def _points(values: Sequence[float], x: _Axis, y: _Axis) -> list[str]:
    return [f"{x(step):.1f},{y(value):.1f}" for step, value in enumerate(values, start=1)]


def _path(values: Sequence[float], x: _Axis, y: _Axis, kind: str) -> Markup:
    return Markup('<polyline class="{}" points="{}"/>').format(kind, " ".join(_points(values, x, y)))


class _Counts(_Axis):
    """An axis of whole numbers."""

    def ticks(self, most: int) -> list[float]:
        return [tick for tick in super().ticks(most) if tick.is_integer()]


def histogram(
    edges: Sequence[float], counts: Sequence[int], x_label: str, y_label: str, whole: bool = False, series: int = 0
) -> Markup:
    """Bars from edge to edge; ``whole`` if the values are whole numbers, which then stand under their bars' middle.

    Args:
        edges: one more than ``counts``, ascending.
    """
    low, high = edges[0], edges[-1]
    pad = (high - low or 1.0) * 0.02
    x = (_Counts if whole else _Axis)(low - pad, high + pad, _LEFT, _WIDTH - _RIGHT)
    y = _Counts(0, max(counts) * 1.05 or 1.0, _HEIGHT - _BOTTOM, _TOP)
    bars = [
        Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>').format(
            x(a) + 0.5, y(n), max(x(b) - x(a) - 1, 0.8), y(0) - y(n), n
        )
        for a, b, n in zip(edges, edges[1:], counts, strict=False)
        if n
    ]
    inner = Markup('<g class="bars s{}">{}</g>').format(series % 8, Markup("").join(bars))
    return _svg([*_frame(x, y, x_label, y_label), inner], f"{y_label} by {x_label}")


def whisker(
    score: tuple[float | None, float | None, float | None], scale: tuple[float, float], series: int, zero: bool = False
) -> Markup:
    """A dot on its interval, small enough for a table cell; ``scale`` is shared by the cells of a column, and ``zero``
    is marked on it."""
    mean, low, high = score
    if mean is None or scale[0] >= scale[1]:
        return Markup("")
    axis = _Axis(scale[0], scale[1], 5, 91)
    line = Markup('<line class="zero" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="12"/>').format(x=axis(0)) if zero else ""
    if low is not None and high is not None:
        line += Markup('<line x1="{:.1f}" x2="{:.1f}" y1="6" y2="6"/>').format(axis(low), axis(high))
    dot = Markup('<circle cx="{:.1f}" cy="6" r="3"/>').format(axis(mean))
    return Markup('<svg class="whisker s{}" viewBox="0 0 96 12" aria-hidden="true">{}{}</svg>').format(
        series % 8, line, dot
    )
