"""Evaluations of any size whose scores are drawn, not measured: what pages of thousands of identities are tried on."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from e4t_core.record import content_hash
from e4t_core.storage import Store
from jobs import _aggregates, _scores
from jobs._lineage import environment, public
from jobs._recipe import load
from jobs._rows import columns
from jobs._units import ImageSet
from jobs.evaluate import SCHEMA
from tests.jobs import people

_FACES = 24
"""Different people: pictures repeat, scores do not."""
_HEAD = ("method", "identity", "prompt", "prompt_text", "concept_less", "kind", "index", "seed", "seconds_generate",
         "steps", "seconds_personalize", "seconds_setup", "peak_memory_bytes", "bytes_adapter", "embedding_norm_json",
         "near", "input_key")  # fmt: skip
FIRST = (
    "Ada",
    "Alan",
    "Barbara",
    "Claude",
    "Donald",
    "Edith",
    "Grace",
    "John",
    "Katherine",
    "Leslie",
    "Maurice",
    "Tim",
)
LAST = ("Dijkstra", "Hamilton", "Hopper", "Johnson", "Kay", "Lamport", "Liskov", "Lovelace", "Perlis", "Turing")


def names(count: int) -> list[str]:
    """As LFW names its people."""
    pairs = [f"{first}_{last}" for last in LAST for first in FIRST]
    return [pairs[i % len(pairs)] + (f"_{i // len(pairs)}" if i >= len(pairs) else "") for i in range(count)]


def write(folder: Path, identities: Sequence[str], methods: Mapping[str, float], side: int = 64) -> list[str]:
    """Shards, and per method images and an evaluation of all ``identities``; returns the evaluations' folders.

    Args:
        methods: name -> mean of its ID scores.
        side: pixels of the pictures.
    """
    faces = [people.face(seed, side) for seed in range(_FACES)]
    encoded = [people.png(face) for face in faces]
    photos = {who: [encoded[zlib.crc32(who.encode()) % _FACES]] for who in identities}
    people.shards(str(folder / "shards"), photos, side=side, samples_per_shard=256)
    drawn = {(encoded[i], prompt): people.png(draw(faces[i])) for i in range(_FACES) for prompt, draw in _drawers()}
    for method in methods:
        uri = str(folder / f"images-{method}")
        people.images(uri, photos, method, per_unit=64, draw=lambda prompt, photo, _: drawn[photo, prompt], norms=50)  # type: ignore[index]
    return [_evaluation(folder, method, mean) for method, mean in methods.items()]


def _drawers() -> list[tuple[str, Any]]:
    return list(people.FILTERS.items())


def _evaluation(folder: Path, method: str, mean: float) -> str:
    store, images = Store(folder / f"scored-{method}"), ImageSet.open(str(folder / f"images-{method}"))
    recipe = load("tiny", ["evaluate.bootstrap_samples=200"])
    scores = columns(_scores.per_image(_scores.build(recipe.metrics, recipe.models, "cpu")))
    table = _scored(images.table, list(scores), mean, zlib.crc32(method.encode()))
    data = _scores.to_parquet(table)
    rows = f"rows/{content_hash(data, 16)}.parquet"
    store.put(rows, data)
    inputs = {"images": "i" * 16, "references": "r" * 16}
    result = {
        "schema": SCHEMA,
        "name": recipe.name,
        "recipe_hash": recipe.hash,
        "created": time.time(),
        "methods": _aggregates.aggregate([table.to_pandas()], scores, recipe.evaluate, recipe.seed),
        "untrained": [],
        "rows": rows,
        "images": {"uri": str(folder / f"images-{method}"), "version": 1, "inputs": {"method": method}, "failed": {},
                   "command": f"python -m jobs generate --out {method}"},
        "shards": {"uri": str(folder / "shards"), "version": 1},
        "record": {"recipe": public(recipe.dump()), "inputs": inputs},
        "environment": environment(),
        "command": f"python -m jobs evaluate --out {method}",
        "mlflow": {"uri": f"sqlite:///{folder}/none.db", "experiment": "e4t", "parent": "0", "runs": {method: "1"}},
    }  # fmt: skip
    store.put("evaluation.json", json.dumps(result).encode())
    return str(folder / f"scored-{method}")


def _scored(images: pa.Table, columns: Sequence[str], mean: float, seed: int) -> pa.Table:
    """The index's rows with drawn scores; one picture in a hundred could not be scored by the face network."""
    rng = np.random.default_rng(seed)
    _, person = np.unique(images["identity"].to_numpy(zero_copy_only=False), return_inverse=True)
    likeness = mean + 0.15 * rng.standard_normal(person.max() + 1)[person] + 0.05 * rng.standard_normal(len(person))
    lost = rng.random(len(person)) < 0.01
    table = images.select(_HEAD).append_column("heldout", pa.array(np.full(len(person), 2)))
    for column in columns:
        values = likeness if column.startswith("identity") else 0.55 + 0.04 * rng.standard_normal(len(person))
        hidden = lost if column.startswith("identity") else np.zeros_like(lost)
        table = table.append_column(f"{_scores.SCORE}{column}", pa.array(values, pa.float64(), mask=hidden))
    return table
