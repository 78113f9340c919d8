"""Scores of whole sets, which have no interval over identities: a table of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jobs._report import words
from jobs._report.inputs import Entry


def table(entries: Sequence[Entry]) -> dict[str, Any] | None:
    """Columns and a row a method; None where no method has any such score."""
    found = [entry.figures.get("sets", {}) for entry in entries]
    columns = {name: score for scores in reversed(found) for name, score in scores.items()}
    if not columns:
        return None
    return {
        "columns": list(columns.values()),
        "rows": [
            {"label": entry.label, "series": entry.series, "cells": [_cell(scores.get(name)) for name in columns]}
            for entry, scores in zip(entries, found, strict=True)
        ],
    }


def _cell(score: dict[str, Any] | None) -> dict[str, str]:
    """``mean ± std``, and from how many images; or why there is none."""
    if score is None:
        return {"value": words.DASH, "more": ""}
    if score["mean"] is None:
        return {"value": words.DASH, "more": score["note"]}
    spread = f" ± {words.number(score['std'], 4)}" if score["std"] is not None else ""
    against = f"{words.count(score['images'])} images against {words.count(score['real_images'])} photos"
    return {"value": f"{words.number(score['mean'], 4)}{spread}", "more": against}
