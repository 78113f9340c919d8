"""The page: view models for the template, and the template's rendering."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import yaml

from e4t_core.metrics._statistics import Interval, bootstrap_difference
from jobs._report import browser, figures, gallery, plots, published, sets, words
from jobs._report.figures import triple
from jobs._report.grid import Grid
from jobs._report.html import template
from jobs._report.inputs import Entry, Shards
from jobs._report.pictures import FOLDER, Pictures

PAPER = (
    ("Textual Inversion", "5,000", "1,517"),
    ("DreamBooth", "800 – 1,200", "601 – 897"),
    ("E4T", "5 – 15", "11 – 30"),
)
"""E4T table 2: tuning steps and seconds on an A100 at batch size 16, set-up apart."""
_COSTS = {
    "steps": ("tuning steps", words.count),
    "seconds_personalize": ("to learn one", words.seconds),
    "seconds_setup": ("set-up", words.seconds),
    "seconds_generate": ("to draw one", words.seconds),
    "peak_memory_bytes": ("peak memory", words.size),
    "bytes_adapter": ("stored per identity", words.size),
}


def render(
    entries: Sequence[Entry], shards: Shards, grid: Grid, pictures: Pictures, most: int, place: str, command: str
) -> str:
    """The whole report as one HTML document.

    Args:
        entries: what is compared; the first leads.
        grid: their scores.
        pictures: what the gallery browses through.
        most: identities that the gallery begins with.
        place: URL of the folder that the page is in.
        command: the command that makes this report.
    """
    lead, first = entries[0], entries[0].result
    ranked_by, people = gallery.people(entries, shards, grid, most)
    context = {
        "name": first["name"],
        "created": first["created"],
        "title": words.title(lead.figures, _inputs(lead)),
        "cover": gallery.cover(people[0]) if people else [],
        "labels": [entry.label for entry in entries],
        "notice": words.untrained_notice(list(dict.fromkeys(p for e in entries for p in e.result["untrained"]))),
        "summary": words.summary(lead.figures, lead.full_label, _confidence(lead)),
        "methods": _methods(entries),
        "confidence": _confidence(lead),
        "tiles": _tiles(lead),
        "pareto": figures.pareto(entries, grid),
        "scores": _score_table(entries),
        "sets": sets.table(entries),
        "differences": _differences(entries),
        "kinds": _kinds(entries),
        "costs": _cost_table(entries),
        "ranked_by": ranked_by,
        "people": people,
        "photos": max(_inputs(entry) for entry in entries),
        "browser": browser.context(entries, grid, pictures, most, f"{place}/{FOLDER}"),
        "identities": lead.figures["identities"],
        "norms": figures.norms(entries),
        "failed": {e.label: dict(e.result["images"]["failed"]) for e in entries if e.result["images"]["failed"]},
        "data": _data(shards),
        "lineage": _lineage(entries, shards),
        "command": command,
        "recipe": yaml.safe_dump(first["record"]["recipe"], sort_keys=False, allow_unicode=True, width=100),
        "device": first["record"]["recipe"]["personalize"]["device"],
        "environment": first["environment"],
    }
    return template("report.html").render(context)


def _methods(entries: Sequence[Entry]) -> str:
    """What is compared, in a line."""
    known = list(dict.fromkeys(str(entry.figures["method"]) for entry in entries))
    if len(known) > 1 or len(entries) == 1:
        return ", ".join(entry.label for entry in entries)
    return f"{known[0]}: {', '.join(entry.label for entry in entries)}"


def _confidence(entry: Entry) -> float:
    return float(entry.result["record"]["recipe"]["evaluate"]["confidence"])


def _inputs(entry: Entry) -> int:
    """Most photos that an identity was learned from."""
    return max(len(keys) for keys in entry.learned_from.values())


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


def _scale(scores: Sequence[dict[str, Any]]) -> tuple[float, float]:
    values = [v for score in scores for v in triple(score) if v is not None]
    return (min(values), max(values)) if values else (0.0, 0.0)


def _columns(entries: Sequence[Entry]) -> dict[str, dict[str, Any]]:
    """Score column -> its figures in the first entry that has it."""
    return {column: score for entry in reversed(entries) for column, score in entry.scores.items()}


def _cells(parts: Sequence[tuple[int, dict[str, Any]]], columns: Sequence[str]) -> list[list[dict[str, Any] | None]]:
    """Rows of cells; several rows get whiskers, on one scale per column."""
    scales = {c: _scale([scores[c] for _, scores in parts if c in scores]) for c in columns}

    def whisker(score: dict[str, Any], column: str, series: int) -> str:
        return plots.whisker(triple(score), scales[column], series) if len(parts) > 1 else ""

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
    methods = {e.figures["method"] for e in entries}
    return {
        "columns": list(columns.values()),
        "rows": rows,
        "published": published.beside(methods, list(columns)),
        "told": published.told(methods),
    }


def _differences(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Paired differences to the first entry, over the identities that both have."""
    columns = _columns(entries)
    found = [{c: _difference(entry, entries[0], c) for c in columns} for entry in entries[1:]]
    scales = {c: _reach([row[c] for row in found]) for c in columns}
    return [
        {
            "label": entry.label,
            "series": entry.series,
            "cells": [_gap(row[column], scales[column], entry.series) for column in columns],
        }
        for entry, row in zip(entries[1:], found, strict=True)
    ]


def _difference(entry: Entry, base: Entry, column: str) -> Interval | None:
    if column not in base.scores or column not in entry.scores:
        return None
    config = base.result["record"]["recipe"]["evaluate"]
    return bootstrap_difference(
        entry.means(column),
        base.means(column),
        samples=config["bootstrap_samples"],
        confidence=config["confidence"],
    )


def _reach(gaps: Sequence[Interval | None]) -> tuple[float, float]:
    """From the lowest to the highest bound, 0 included."""
    bounds = [0.0, *(bound for gap in gaps if gap for bound in (gap.low, gap.high) if math.isfinite(bound))]
    return min(bounds), max(bounds)


def _gap(gap: Interval | None, scale: tuple[float, float], series: int) -> dict[str, Any] | None:
    if gap is None:
        return None
    known = math.isfinite(gap.low)
    return {
        "mean": words.signed(gap.mean) if gap.identities else words.DASH,
        "range": f"{words.signed(gap.low)} to {words.signed(gap.high)}" if known else "",
        "apart": known and (gap.low > 0 or gap.high < 0),
        "whisker": plots.whisker((gap.mean, gap.low, gap.high), scale, series, zero=True) if known else "",
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
        rows = [{"label": words.spaced(kind), "cells": row} for kind, row in zip(kinds, cells, strict=True)]
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
            **{f"made with {words.spaced(k)}": _short(v) for k, v in _made_with(result).items()},
            "shards": f"{result['shards']['uri']}, version {result['shards']['version']}",
            **{
                f"fingerprint of {k.removeprefix('weights.')}": _short(v) for k, v in result["record"]["inputs"].items()
            },
            "MLflow": f"{result['mlflow']['uri']}, experiment {result['mlflow']['experiment']}",
            "MLflow runs": ", ".join(f"{m} {run or '(not sent yet)'}" for m, run in result["mlflow"]["runs"].items()),
        }
        out.append({"labels": labels, "facts": facts, "commands": [result["images"]["command"], result["command"]]})
    return out


def _made_with(result: dict[str, Any]) -> dict[str, str]:
    return {name: value for name, value in result["images"]["inputs"].items() if name != "method"}


def _short(value: str) -> str:
    """A hash by its first 16 digits; anything else as it is."""
    return value[:16] if len(value) == 64 and set(value) <= set("0123456789abcdef") else value
