"""The page's plots: what of the entries goes into them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jobs._aggregates import norm_curves
from jobs._report import plots, words
from jobs._report.grid import Grid
from jobs._report.inputs import Entry, likeness_of

_MOST_DOTS, _MOST_CURVES = 300, 40
"""Identities that are drawn of each entry, evenly spread over all of them."""


def triple(score: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Mean and interval."""
    return score["mean"], score["low"], score["high"]


def pareto(entries: Sequence[Entry], grid: Grid) -> dict[str, Any] | None:
    """Likeness over prompt agreement (E4T fig. 4a, 4b); None if the evaluation scores neither of a pair."""
    y = likeness_of(entries)
    scored = [
        e
        for e in entries
        if y and "clip_t" in e.scores and None not in (e.scores["clip_t"]["mean"], e.scores[y]["mean"])
    ]
    if y is None or not scored:
        return None
    points = []
    for entry in scored:
        points += _dots(entry, y, grid)
        if len(entries) == 1:
            points += _kind_points(entry, y)
        points.append(_method_point(entry, y))
    titles = [entries[0].scores[column]["title"] for column in ("clip_t", y)]
    svg = plots.pareto(points, f"{titles[0]}: agreement with the prompt →", f"↑ {titles[1]}: likeness to the identity")
    return {"svg": svg, "single": len(entries) == 1, "dots": min(_MOST_DOTS, len(grid.identities))}


def _dots(entry: Entry, y: str, grid: Grid) -> list[plots.Point]:
    across, up = entry.means("clip_t"), entry.means(y)
    number = {name: n for n, name in enumerate(grid.identities)}
    return [
        plots.Point("", entry.series, (across[who], None, None), (up[who], None, None), "one", identity=number[who])
        for who in _spread(sorted(across.keys() & up.keys()), _MOST_DOTS)
    ]


def _spread(names: Sequence[str], most: int) -> list[str]:
    """At most ``most``, evenly spread; always the same."""
    return [names[i] for i in np.unique(np.linspace(0, len(names) - 1, min(len(names), most)).round().astype(int))]


def _method_point(entry: Entry, y: str) -> plots.Point:
    told = [
        f"{score['title']} {words.number(score['mean'])} ({words.between(score['low'], score['high'])})"
        for score in (entry.scores["clip_t"], entry.scores[y])
    ]
    tip = "\n".join([entry.label, *told, words.plural(entry.figures["identities"], "identity", "identities")])
    return plots.Point(entry.label, entry.series, triple(entry.scores["clip_t"]), triple(entry.scores[y]), tip=tip)


def _kind_points(entry: Entry, y: str) -> list[plots.Point]:
    kinds = entry.kinds
    means = {kind: (scores["clip_t"]["mean"], scores[y]["mean"]) for kind, scores in kinds.items()}
    return [
        plots.Point(words.spaced(kind), entry.series, (at_x, None, None), (at_y, None, None), "part")
        for kind, (at_x, at_y) in means.items()
        if len(kinds) > 1 and at_x is not None and at_y is not None
    ]


def norms(entries: Sequence[Entry]) -> dict[str, Any] | None:
    """The norm of the predicted embedding by denoising step (E4T fig. 7); None if no method records it."""
    having = [e for e in entries if e.figures["norms"]]
    if not having:
        return None
    bands = []
    for entry in having:
        band = {k: entry.figures["norms"][k] for k in ("median", "low", "high")}
        found = norm_curves(entry.rows)
        singles = [found[name] for name in _spread(sorted(found), _MOST_CURVES)]
        bands.append((entry.series, entry.label, band, singles))
    return {"svg": plots.curves(bands, "denoising step, from noise to image →", "↑ norm of the predicted embedding")}
