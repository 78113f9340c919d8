"""The trade-off between likeness and prompt as one picture, for places that show pictures and no pages."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from jobs._report.inputs import Entry, likeness_of

_INCHES, _DPI = (6.4, 4.8), 120


def trade_off(entries: Sequence[Entry]) -> bytes:
    """PNG: a point for each entry, its likeness over its prompt score (E4T fig. 4a), with both intervals.

    Entries that were not scored are left out; with a single kind of score there is one axis alone.
    """
    out = io.BytesIO()
    drawn(entries).savefig(out, format="png")
    return out.getvalue()


def drawn(entries: Sequence[Entry]) -> Figure:
    """The picture itself."""
    figure = Figure(figsize=_INCHES, dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    likeness = likeness_of(entries)
    for entry in entries:
        y = entry.scores[likeness] if likeness else next(iter(entry.scores.values()))
        x = entry.scores.get("clip_t", y)
        if x["mean"] is None or y["mean"] is None:
            continue
        axes.errorbar(x["mean"], y["mean"], xerr=_reach(x), yerr=_reach(y), fmt="o", capsize=3, label=entry.label)
        axes.set_xlabel(x["title"])
        axes.set_ylabel(y["title"])
    if axes.has_data():
        axes.legend(loc="best", fontsize="small")
    return figure


def _reach(score: dict[str, Any]) -> list[list[float]] | None:
    if score["low"] is None:
        return None
    return [[score["mean"] - score["low"]], [score["high"] - score["mean"]]]
