"""Scores of whole sets: all images of a method against real ones, with the spread that the metric itself gives.

``sets/<metric>-<fingerprint>.json`` holds a finished score of each method, so that it is never computed twice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from e4t_core.metrics import SetMetric
from e4t_core.record import fingerprint
from e4t_core.storage import Store
from jobs._people import stable_seed
from jobs._real_sets import RealSet, ranks
from jobs._rows import FEATURES
from jobs._scores import judges, read_unit, vectors_of

SCHEMA = 1
_NAMES = ("identity", "prompt", "index")


@dataclass
class Drawn:
    """At most ``most`` vectors of any number of images: those of lowest rank. Holds at most twice as many.

    Attributes:
        missing: images of which there is no vector.
    """

    most: int
    missing: int = 0
    _ranks: list[NDArray[np.int64]] = field(default_factory=list)
    _vectors: list[NDArray[np.float32]] = field(default_factory=list)
    _held: int = 0

    def add(self, ranks_N: NDArray[np.int64], vectors_NE: NDArray[np.float32]) -> None:
        """Offer some."""
        sound_N = ~np.isnan(vectors_NE).any(1)
        self.missing += int((~sound_N).sum())
        self._ranks.append(ranks_N[sound_N])
        self._vectors.append(vectors_NE[sound_N])
        self._held += int(sound_N.sum())
        if self._held > 2 * self.most:
            self._prune()

    def vectors(self) -> NDArray[np.float32]:
        """(N, E) in order of rank, whatever the order they came in."""
        self._prune()
        return self._vectors[0]

    def _prune(self) -> None:
        ranks_N, vectors_NE = np.concatenate(self._ranks), np.concatenate(self._vectors)
        lowest = np.argsort(ranks_N, kind="stable")[: self.most]
        self._ranks, self._vectors, self._held = [ranks_N[lowest]], [vectors_NE[lowest]], len(lowest)


def score_set(
    store: Store, cache: Store, keys: Sequence[str], name: str, metric: SetMetric, real: RealSet, seed: int
) -> dict[str, Any]:
    """Method -> figures of one metric.

    Args:
        store: of the evaluation.
        cache: of the real images' vectors.
        keys: of the units' scores.
        seed: of the recipe: what is drawn, and nothing else, depends on it.
    """
    made_from = {
        "schema": SCHEMA,
        "units": list(keys),
        "real": [part.key for part in real.parts],
        "metric": judges({name: metric}),
        "seed": seed,
    }
    place = f"sets/{name}-{fingerprint(made_from)}.json"
    try:
        return dict(store.read_json(place))
    except FileNotFoundError:
        pass
    result = dict(_scored(store, cache, keys, name, metric, real, seed))
    store.put(place, (json.dumps(result, indent=1, sort_keys=True) + "\n").encode())
    return result


def _scored(
    store: Store, cache: Store, keys: Sequence[str], name: str, metric: SetMetric, real: RealSet, seed: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    real_ME = torch.from_numpy(real.vectors(cache))
    for method, drawn in sorted(_gathered(store, keys, name, metric, seed).items()):
        generated_NE = torch.from_numpy(drawn.vectors())
        found = metric.compare(generated_NE, real_ME, stable_seed(seed, "set", name))
        yield (
            method,
            {
                "title": metric.title,
                "higher_is_better": metric.higher_is_better,
                "mean": found.mean if math.isfinite(found.mean) else None,
                "std": found.std if math.isfinite(found.std) else None,
                "note": found.note,
                **found.facts,
                "images": len(generated_NE),
                "real_images": len(real_ME),
                "failures": drawn.missing,
            },
        )


def _gathered(store: Store, keys: Iterable[str], name: str, metric: SetMetric, seed: int) -> dict[str, Drawn]:
    """Method -> the images that stand for it, from the units' files, one file at a time."""
    column, out = f"{FEATURES}{name}", dict[str, Drawn]()
    for key in keys:
        for method, rows in _by_method(read_unit(store, key, lambda c: c in (column, "method", *_NAMES))):
            drawn = out.setdefault(method, Drawn(metric.config.max_images))
            who = zip(*(rows[n].to_pylist() for n in _NAMES), strict=True)
            drawn.add(ranks(seed, "drawn", who), vectors_of(rows[column]))
    return out


def _by_method(table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    for method in pc.unique(table["method"]).to_pylist():
        yield method, table.filter(pc.equal(table["method"], method))
