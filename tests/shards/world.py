"""A small store of real columns: tiny-world people with masks, captions and CLIP features."""

from __future__ import annotations

from pathlib import Path

from e4t_core.storage import Store
from jobs._recipe import load
from tests.shards.support import build

SETS = ("source.identities=5", "source.images_per_identity=2", "stages.latent=null")


def build_world(folder: Path, samples_per_shard: int = 4) -> Store:
    """Ten samples of five people in three shards."""
    recipe, store = load("tiny", SETS), Store(folder)
    stages = recipe.build_stages()
    manifest, _ = build(store, recipe.build_source(), stages, samples_per_shard=samples_per_shard)
    assert (manifest.head["samples"], manifest.stages) == (10, ["ingest", "mask", "caption", "clip"])
    return store
