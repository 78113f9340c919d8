"""Where everything lies below a store's URI.

=====================================================  ==============================================================
``plans/000001.json``, ``plans/items-<hash>.parquet``   which ids are in which shard; one row group per shard
``commits/<stage>/<shard>-<fingerprint>.json``          a finished shard of one column; created exclusively
``data/<stage>/<shard>-<content hash>.tar``             its samples, as a WebDataset tar with deterministic bytes
``attempts/<stage>/<shard>-<fingerprint>.json``         work on it has begun; removed by its commit
``indexes/<hash>.parquet``                              a manifest's samples: status, and where each column has them
``manifests/000001.json``                               a version of the dataset: the only thing that readers open
=====================================================  ==============================================================
"""

from __future__ import annotations

from collections.abc import Iterator

from e4t_core.storage import Store

COMMITS, DATA, ATTEMPTS, INDEXES, MANIFESTS, PLANS = "commits", "data", "attempts", "indexes", "manifests", "plans"


def commit_key(stage: str, shard: int, fingerprint: str) -> str:
    """Key of a shard's commit."""
    return f"{COMMITS}/{stage}/{shard:06d}-{fingerprint}.json"


def attempt_key(stage: str, shard: int, fingerprint: str) -> str:
    """Key of the mark that work on a shard has begun."""
    return f"{ATTEMPTS}/{stage}/{shard:06d}-{fingerprint}.json"


def data_key(stage: str, shard: int, sha256: str) -> str:
    """Key of a shard's tar."""
    return f"{DATA}/{stage}/{shard:06d}-{sha256[:16]}.tar"


def numbered_key(folder: str, number: int) -> str:
    """Key of a plan or manifest."""
    return f"{folder}/{number:06d}.json"


def numbers(store: Store, folder: str) -> list[int]:
    """Numbers of the plans or manifests that exist, ascending."""
    return sorted(_numbered(store, folder))


def _numbered(store: Store, folder: str) -> Iterator[int]:
    for entry in store.list(folder):
        name = entry.key.rsplit("/", 1)[-1]
        if name.endswith(".json") and name[:-5].isdigit():
            yield int(name[:-5])
