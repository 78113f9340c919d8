"""Recipes with changes, run through the ordinary commands: what ``ablate`` and ``nightly`` share."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from jobs._recipe import Recipe


def assignments(changes: Mapping[str, Any]) -> list[str]:
    """Changes to a recipe as ``--set`` takes them."""
    return [f"{key}={json.dumps(value)}" for key, value in changes.items()]


def words_of(recipe: str, sets: Iterable[str], *words: str, out: str) -> list[str]:
    """What follows a command's name to run it with a recipe and changes to it."""
    over = [word for text in sets for word in ("--set", text)]
    return ["--recipe", recipe, *over, *words, "--out", out, "--yes"]


def data_of(recipe: Recipe) -> dict[str, Any]:
    """What decides the data that is trained on: ``made``, the content of the shards, and how it is drawn from them."""
    dumped = recipe.dump()
    source = {key: value for key, value in dumped["source"].items() if key != "shares"}
    made = {name: dumped[name] for name in ("seed", "shards", "backbone", "clip", "stages")}
    return {"made": {**made, "source": source}, "shares": dumped["source"].get("shares")}
