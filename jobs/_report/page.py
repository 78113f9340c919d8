"""The page: view models for the template, and the template's rendering."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import yaml

from e4t_core.metrics._statistics import bootstrap_difference
from jobs._aggregates import identity_means, norm_curves
from jobs._report import gallery, plots, published, words
from jobs._report.html import template
from jobs._report.inputs import Entry, Shards

PAPER = (
    ("Textual Inversion", "5,000", "1,517"),
    ("DreamBooth", "800 – 1,200", "601 – 897"),
    ("E4T", "5 – 15", "11 – 30"),
)
"""E4T table 2: tuning steps and seconds on an A100 at batch size 16, set-up apart."""
_MOST_DOTS, _MOST_CURVES = 300, 40
_COSTS = {
    "steps": ("tuning steps", words.count),
    "seconds_personalize": ("to learn one", words.seconds),
    "seconds_setup": ("set-up", words.seconds),
    "seconds_generate": ("to draw one", words.seconds),
    "peak_memory_bytes": ("peak memory", words.size),
    "bytes_adapter": ("stored per identity", words.size),
}


def render(entries: Sequence[Entry], shards: Shards, most: int, command: str) -> str:
    """The whole report as one HTML document.

    Args:
        entries: what is compared; the first leads.
        most: identities in the gallery.
        command: the command that makes this report.
    """
    lead, first = entries[0], entries[0].result
    ranked_by, people = gallery.people(entries, shards, most)
    context = {
        "name": first["name"],
        "created": first["created"],
        "title": words.title(lead.figures, _inputs(lead)),
        "cover": gallery.cover(people[0]),
        "labels": [entry.label for entry in entries],
        "notice": words.untrained_notice(list(dict.fromkeys(p for e in entries for p in e.result["untrained"]))),
        "summary": words.summary(lead.figures, lead.label, _confidence(lead)),
        "confidence": _confidence(lead),
        "tiles": _tiles(lead),
        "pareto": _pareto(entries),
        "scores": _score_table(entries),
        "differences": _differences(entries),
        "kinds": _kinds(entries),
        "costs": _cost_table(entries),
        "ranked_by": ranked_by,
        "people": people,
        "identities": lead.figures["identities"],
        "norms": _norms(entries),
        "failed": {e.label: dict(e.result["images"]["failed"]) for e in entries if e.result["images"]["failed"]},
        "data": _data(shards),
        "lineage": _lineage(entries, shards),
        "command": command,
        "recipe": yaml.safe_dump(first["record"]["recipe"], sort_keys=False, allow_unicode=True, width=100),
        "device": first["record"]["recipe"]["personalize"]["device"],
        "environment": first["environment"],
    }
    return template("report.html").render(context)


def _confidence(entry: Entry) -> float:
    return float(entry.result["record"]["recipe"]["evaluate"]["confidence"])


def _inputs(entry: Entry) -> int:
    return int(entry.rows.groupby("identity")["input_key"].nunique().max())


def _triple(score: dict[str, Any]) -> tuple[Any, Any, Any]:
    return score["mean"], score["low"], score["high"]


def _tiles(entry: Entry) -> list[dict[str, str]]:
    """The figures that one looks for first."""
    tiles = [
        {
            "name": score["title"],
            "value": words.number(score["mean"]),
            "more": words.between(score["low"], score["high"]),
        }
        for score in entry.scores.values()
    ]
    for cost in ("seconds_personalize", "bytes_adapter"):
        if cost in entry.figures["costs"]:
            name, form = _COSTS[cost]
            tiles.append({"name": name, "value": form(entry.figures["costs"][cost]["mean"]), "more": ""})
    return tiles


def _pareto(entries: Sequence[Entry]) -> dict[str, Any] | None:
    """Likeness over prompt agreement; None if the evaluation scores neither of a pair."""
    y = next((c for c in ("identity", "clip_i") if all(c in e.scores for e in entries)), None)
    scored = [
        e
        for e in entries
        if y and "clip_t" in e.scores and None not in (e.scores["clip_t"]["mean"], e.scores[y]["mean"])
    ]
    if y is None or not scored:
        return None
    points = []
    for entry in scored:
        across, up = identity_means(entry.rows, "clip_t"), identity_means(entry.rows, y)
        points += [
            plots.Point("", entry.series, (across[who], None, None), (up[who], None, None), "one")
            for who in sorted(across.keys() & up.keys())[:_MOST_DOTS]
        ]
        if len(entries) == 1:
            points += _kind_points(entry, y)
        points.append(plots.Point(entry.label, entry.series, _triple(entry.scores["clip_t"]), _triple(entry.scores[y])))
    titles = [entries[0].scores[column]["title"] for column in ("clip_t", y)]
    svg = plots.pareto(points, f"{titles[0]}: agreement with the prompt →", f"↑ {titles[1]}: likeness to the identity")
    return {"svg": svg, "single": len(entries) == 1}


def _kind_points(entry: Entry, y: str) -> list[plots.Point]:
    kinds = entry.kinds
    means = {kind: (scores["clip_t"]["mean"], scores[y]["mean"]) for kind, scores in kinds.items()}
    return [
        plots.Point(_words(kind), entry.series, (at_x, None, None), (at_y, None, None), "part")
        for kind, (at_x, at_y) in means.items()
        if len(kinds) > 1 and at_x is not None and at_y is not None
    ]


def _scale(scores: Sequence[dict[str, Any]]) -> tuple[float, float]:
    values = [v for score in scores for v in _triple(score) if v is not None]
    return (min(values), max(values)) if values else (0.0, 0.0)


def _columns(entries: Sequence[Entry]) -> dict[str, dict[str, Any]]:
    """Score column -> its figures in the first entry that has it."""
    return {column: score for entry in reversed(entries) for column, score in entry.scores.items()}


def _cells(parts: Sequence[tuple[int, dict[str, Any]]], columns: Sequence[str]) -> list[list[dict[str, Any] | None]]:
    """Rows of cells; several rows get whiskers, on one scale per column."""
    scales = {c: _scale([scores[c] for _, scores in parts if c in scores]) for c in columns}

    def whisker(score: dict[str, Any], column: str, series: int) -> str:
        return plots.whisker(_triple(score), scales[column], series) if len(parts) > 1 else ""

    return [
        [{**scores[c], "whisker": whisker(scores[c], c, series)} if c in scores else None for c in columns]
        for series, scores in parts
    ]


def _score_table(entries: Sequence[Entry]) -> dict[str, Any]:
    columns = _columns(entries)
    cells = _cells([(e.series, e.scores) for e in entries], list(columns))
    rows = [
        {"label": e.label, "series": e.series, "cells": row, "figures": e.figures}
        for e, row in zip(entries, cells, strict=True)
    ]
    theirs = published.beside((e.figures["method"] for e in entries), list(columns))
    return {"columns": list(columns.values()), "rows": rows, "published": theirs}


def _differences(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Paired differences to the first entry, over the identities that both have."""
    return [
        {
            "label": entry.label,
            "series": entry.series,
            "cells": [_difference(entry, entries[0], column) for column in _columns(entries)],
        }
        for entry in entries[1:]
    ]


def _difference(entry: Entry, base: Entry, column: str) -> dict[str, Any] | None:
    if column not in base.scores or column not in entry.scores:
        return None
    config = base.result["record"]["recipe"]["evaluate"]
    ours, theirs = identity_means(entry.rows, column), identity_means(base.rows, column)
    gap = bootstrap_difference(ours, theirs, samples=config["bootstrap_samples"], confidence=config["confidence"])
    known = math.isfinite(gap.low)
    return {
        "mean": words.signed(gap.mean) if gap.identities else words.DASH,
        "range": f"{words.signed(gap.low)} to {words.signed(gap.high)}" if known else "",
        "apart": known and (gap.low > 0 or gap.high < 0),
    }


def _kinds(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """One table per method: prompt kinds by scores."""
    columns = [c for c in _columns(entries) if not c.endswith("_heldout")]
    out = []
    for entry in entries:
        kinds = entry.kinds
        if len(kinds) < 2:
            continue
        cells = _cells([(entry.series, scores) for scores in kinds.values()], columns)
        rows = [{"label": _words(kind), "cells": row} for kind, row in zip(kinds, cells, strict=True)]
        titles = [_columns(entries)[c]["title"] for c in columns]
        out.append({"label": entry.label, "series": entry.series, "columns": titles, "rows": rows})
    return out


def _cost_table(entries: Sequence[Entry]) -> dict[str, Any]:
    have = [cost for cost in _COSTS if any(cost in e.figures["costs"] for e in entries)]
    rows = []
    for entry in entries:
        means = [entry.figures["costs"].get(cost, {}).get("mean") for cost in have]
        cells = [_COSTS[cost][1](mean) for cost, mean in zip(have, means, strict=True)]
        rows.append({"label": entry.label, "series": entry.series, "cells": cells})
    paper = []
    for name, steps, took in PAPER:
        theirs = {"steps": steps, "seconds_personalize": f"{took}{words.THIN}s"}
        paper.append({"label": name, "cells": [theirs.get(cost, words.DASH).replace(",", words.THIN) for cost in have]})
    return {"columns": [_COSTS[cost][0] for cost in have], "rows": rows, "paper": paper}


def _norms(entries: Sequence[Entry]) -> dict[str, Any] | None:
    having = [e for e in entries if e.figures["norms"]]
    if not having:
        return None
    bands = []
    for entry in having:
        band = {k: entry.figures["norms"][k] for k in ("median", "low", "high")}
        singles = list(norm_curves(entry.rows).values())[:_MOST_CURVES]
        bands.append((entry.series, entry.label, band, singles))
    return {"svg": plots.curves(bands, "denoising step, from noise to image →", "↑ norm of the predicted embedding")}


def _data(shards: Shards) -> dict[str, Any]:
    head = shards.manifest.head
    planned = head["planned"]
    reasons = sorted(head["reasons"].items(), key=lambda item: -item[1])
    return {
        "version": shards.manifest.version,
        "planned": planned,
        "samples": head["samples"],
        "quarantined": head["quarantined"],
        "share": head["quarantined"] / planned if planned else 0.0,
        "reasons": reasons,
        "stages": shards.manifest.stages,
        "examples": shards.quarantined() if head["quarantined"] else [],
    }


def _lineage(entries: Sequence[Entry], shards: Shards) -> list[dict[str, Any]]:
    """Per evaluation: what made it, fingerprint by fingerprint."""
    out = []
    for result in {id(e.result): e.result for e in entries}.values():
        labels = [e.label for e in entries if e.result is result]
        facts = {
            "recipe": f"{result['name']} ({result['recipe_hash']})",
            "seed": str(result["record"]["recipe"]["seed"]),
            "images": f"{result['images']['uri']}, version {result['images']['version']}",
            **{f"made with {_words(k)}": _short(v) for k, v in result["images"]["inputs"].items() if k != "method"},
            "shards": f"{result['shards']['uri']}, version {result['shards']['version']}",
            **{
                f"fingerprint of {k.removeprefix('weights.')}": _short(v) for k, v in result["record"]["inputs"].items()
            },
            "MLflow": f"{result['mlflow']['uri']}, experiment {result['mlflow']['experiment']}",
            "MLflow runs": ", ".join(f"{m} {run or '(not sent yet)'}" for m, run in result["mlflow"]["runs"].items()),
        }
        out.append({"labels": labels, "facts": facts, "commands": [result["images"]["command"], result["command"]]})
    return out


def _words(name: str) -> str:
    return name.replace("_", " ")


def _short(value: str) -> str:
    """A hash by its first 16 digits; anything else as it is."""
    return value[:16] if len(value) == 64 and set(value) <= set("0123456789abcdef") else value
