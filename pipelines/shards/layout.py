"""Where everything lies below a store's URI.

=====================================================  ==============================================================
``plans/000001.json``, ``plans/items-<hash>.parquet``   which ids are in which shard; one row group per shard
``commits/<stage>/<shard>-<fingerprint>.json``          a finished shard of one column; created exclusively
``data/<stage>/<shard>-<content hash>.tar``             its samples, as a WebDataset tar with deterministic bytes
``attempts/<stage>/<shard>-<fingerprint>.json``         work on it has begun; removed by its commit
``indexes/<hash>.parquet``                              a manifest's samples: status, and where each column has them
``manifests/000001.json``                               a version of the dataset: the only thing that readers open
``forgotten/000001.json``                               digests of ids that no plan may take again
``withdrawn/000001.json``                               that version may not be read any more, and which to read instead
=====================================================  ==============================================================
"""

from __future__ import annotations

from collections.abc import Iterator

from e4t_core.storage import Store

COMMITS, DATA, ATTEMPTS, INDEXES, MANIFESTS, PLANS = "commits", "data", "attempts", "indexes", "manifests", "plans"
FORGOTTEN, WITHDRAWN = "forgotten", "withdrawn"


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
    """Key of a plan, manifest or another numbered object."""
    return f"{folder}/{number:06d}.json"


def numbers(store: Store, folder: str) -> list[int]:
    """Numbers of the objects of that kind, ascending."""
    return sorted(_numbered(store, folder))


def _numbered(store: Store, folder: str) -> Iterator[int]:
    for entry in store.list(folder):
        name = entry.key.rsplit("/", 1)[-1]
        if name.endswith(".json") and name[:-5].isdecimal():
            yield int(name[:-5])
