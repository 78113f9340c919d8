"""A small tiny-world shard store for the training benchmarks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from e4t_core.storage import Store
from jobs._recipe import Recipe, load
from pipelines import executor
from pipelines.loader import ShardLoader

TINY = ("source.identities=32", "source.images_per_identity=4")


def tiny_recipe(*more: str) -> Recipe:
    """The tiny recipe, cut down; ``more`` are ``a.b=c`` overrides."""
    return load("tiny", [*TINY, *more])


def tiny_shards(folder: Path, recipe: Recipe) -> Store:
    """The recipe's shards; Ray must be running."""
    store = Store(folder / "shards")
    executor.preprocess(
        store, recipe.build_source(), recipe.build_stages(),
        samples_per_shard=recipe.shards.samples_per_shard, recipe=recipe.dump(),
    )  # fmt: skip
    return store


class Stream:
    """A loader as the training loop takes it."""

    def __init__(self, loader: ShardLoader) -> None:
        self.loader, self.batches = loader, iter(loader)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        return next(self.batches)

    def state_dict(self) -> dict[str, Any]:
        return self.loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loader.load_state_dict(state)
        self.batches = iter(self.loader)
