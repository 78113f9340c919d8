"""A small tiny-world shard store for the training benchmarks."""

from __future__ import annotations

from pathlib import Path

from e4t_core.storage import Store
from jobs._recipe import Recipe, load
from pipelines import executor


def tiny_recipe(*more: str) -> Recipe:
    """The tiny recipe, cut down; ``more`` are ``a.b=c`` overrides."""
    return load("tiny", ["source.identities=32", "source.images_per_identity=4", *more])


def tiny_shards(folder: Path, recipe: Recipe) -> Store:
    """The recipe's shards; Ray must be running."""
    store = Store(folder / "shards")
    executor.preprocess(
        store, recipe.build_source(), recipe.build_stages(),
        samples_per_shard=recipe.shards.samples_per_shard, recipe=recipe.dump(),
    )  # fmt: skip
    return store
