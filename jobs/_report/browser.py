"""What the page's script works on: names, codes of scores and where the pictures are, as compact JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from jobs._report import words
from jobs._report.grid import Grid
from jobs._report.inputs import Entry
from jobs._report.pictures import FOLDER, Pictures

PAGES = (12, 24, 60)
"""Identities on a page of the gallery, to choose from."""


def context(entries: Sequence[Entry], grid: Grid, pictures: Pictures, most: int, place: str) -> dict[str, Any]:
    """What the template needs for the gallery's controls and data.

    Args:
        most: identities that are shown first: the best and the worst.
        place: URL of the folder beside the page.
    """
    kinds: dict[str, list[tuple[int, str]]] = {}
    for at, (name, kind) in enumerate(zip(grid.prompts["prompt"], grid.prompts["kind"], strict=True)):
        kinds.setdefault(words.spaced(kind), []).append((at, words.spaced(name)))
    return {
        "kinds": kinds,
        "prompts": len(grid.prompts),
        "scores": [score["title"] for score in grid.scores.values()],
        "ranked": list(grid.scores).index(grid.ranked_by),
        "sizes": PAGES,
        "pictured": len(pictures.names),
        "identities": len(grid.identities),
        "repeated": max(int(e.rows["index"].max()) for e in entries) > 0,
        "beside": not pictures.inside,
        "folder": FOLDER,
        "place": place,
        "size": pictures.size,
        "data": _json(_data(entries, grid, pictures, most)),
        "inside": _json({name: base64.b64encode(data).decode() for name, data in pictures.inside.items()}),
    }


def _data(entries: Sequence[Entry], grid: Grid, pictures: Pictures, most: int) -> dict[str, Any]:
    columns, codes = grid.packed()
    numbers = range(len(grid.identities))
    return {
        "identities": [words.spaced(name) for name in grid.identities],
        "methods": [
            {"label": e.label, "series": e.series % 8, "near": _near(e, grid), "codes": code}
            for e, code in zip(entries, codes, strict=True)
        ],
        "prompts": [
            {"name": words.spaced(name), "text": words.prompt(text)}
            for name, text in zip(grid.prompts["prompt"], grid.prompts["prompt_text"], strict=True)
        ],
        "scores": columns,
        "ranked": list(grid.scores).index(grid.ranked_by),
        "ends": most,
        "contacts": [pictures.names.get(n, "") for n in numbers],
        "photos": [pictures.photos.get(n, 0) for n in numbers],
        "side": pictures.side,
        "columns": pictures.columns,
        "rows": pictures.rows,
        "folder": FOLDER,
    }


def _near(entry: Entry, grid: Grid) -> list[str] | None:
    """Per identity the words that the method says its concept is near; None if it says none of any."""
    if "near" not in entry.rows or not (known := entry.first.dropna(subset=["near"])).shape[0]:
        return None
    found = known.drop_duplicates("identity").set_index("identity")["near"].astype(str).to_dict()
    return [found.get(name, "") for name in grid.identities]


def _json(value: Any) -> Markup:
    """JSON for a script element, which ends at the first ``</script``, whatever it is inside of."""
    return Markup(json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"))
