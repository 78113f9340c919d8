"""The trade-off between likeness and prompt as one picture, for places that show pictures and no pages."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from jobs._report.inputs import Entry

_INCHES, _DPI = (6.4, 4.8), 120


def trade_off(entries: Sequence[Entry]) -> bytes:
    """PNG: a point for each entry, its first score over its prompt score (E4T fig. 4a), with both intervals.

    Entries that were not scored are left out; with a single kind of score there is one axis alone.
    """
    figure = Figure(figsize=_INCHES, dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    for entry in entries:
        x, y = _axes(entry)
        if x["mean"] is None or y["mean"] is None:
            continue
        axes.errorbar(x["mean"], y["mean"], xerr=_reach(x), yerr=_reach(y), fmt="o", capsize=3, label=entry.label)
        axes.set_xlabel(x["title"])
        axes.set_ylabel(y["title"])
    if axes.has_data():
        axes.legend(loc="best", fontsize="small")
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()


def _axes(entry: Entry) -> tuple[dict[str, Any], dict[str, Any]]:
    """The prompt's score, and the first of likeness."""
    scores = entry.scores
    likeness = next(iter(scores.values()))
    return scores.get("clip_t", likeness), likeness


def _reach(score: dict[str, Any]) -> list[list[float]] | None:
    if score["low"] is None:
        return None
    return [[score["mean"] - score["low"]], [score["high"] - score["mean"]]]
