"""What work on shards costs: as committed, and as estimated from that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from e4t_core.storage import Store
from pipelines.shards import layout
from pipelines.shards.commit import Commit, ShardRef, all_committed, load_commit

_READERS = 16
_NEWEST = 64
"""Commits of a stage that an estimate rests on."""


@dataclass(frozen=True)
class Cost:
    """What some shards of one stage took.

    Attributes:
        shards, samples: how many; quarantined samples count, since they were worked on.
        bytes: of their tars.
        seconds: worker seconds from a shard's start to its commit, added up.
        gpu_hours: the same for the GPUs that the workers held, in hours.
    """

    shards: int
    samples: int
    bytes: int
    seconds: float
    gpu_hours: float

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        return amounts(self.bytes, self.seconds, self.gpu_hours)


def amounts(size: float, seconds: float, gpu_hours: float) -> str:
    """``12.5 MB, 30 s of workers, 0.25 GPU-hours`` (none are not named)."""
    return f"{size / 1e6:.1f} MB, {seconds:.1f} s of workers" + (f", {gpu_hours:.2f} GPU-hours" if gpu_hours else "")


def cost_of(store: Store, stage: str, refs: Mapping[int, ShardRef]) -> Cost | None:
    """What these shards took, by their commits; None if there are none.

    Raises:
        DataError: a commit is gone.
    """
    return _sum(all_committed(store, stage, refs)) if refs else None


def recent_cost(store: Store, stage: str) -> Cost | None:
    """What the newest commits of the stage took, whatever its settings were; None if it has none."""
    entries = sorted(store.list(f"{layout.COMMITS}/{stage}"), key=lambda e: e.modified)[-_NEWEST:]
    with ThreadPoolExecutor(_READERS) as pool:
        commits = list(pool.map(lambda entry: load_commit(store, entry.key), entries))
    cost = _sum(commit for commit in commits if commit)
    return cost if cost.samples else None


def _sum(commits: Iterable[Commit]) -> Cost:
    """One at a time: a commit lists every sample of its shard."""
    shards, samples, size, seconds, gpu_seconds = 0, 0, 0, 0.0, 0.0
    for commit in commits:
        took = commit.finished - commit.started
        shards += 1
        samples += commit.ref.n_ok + commit.ref.n_bad
        size += commit.ref.bytes
        seconds += took
        gpu_seconds += took * commit.resources["gpus"]
    return Cost(shards, samples, size, seconds, gpu_seconds / 3600)
