"""What a preprocessing run tells: progress while it works, a summary at its end, an estimate before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from e4t_core.storage import Store
from pipelines.shards import layout
from pipelines.shards import plan as plans
from pipelines.shards.commit import Commit, load_commit
from pipelines.shards.survey import survey
from pipelines.sources.base import Source
from pipelines.stages.base import Stage

_COMMITS_READ = 64
"""Newest commits of a stage that an estimate rests on."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes:
        done, total: units of one shard of one stage.
        samples: samples made so far, all stages together.
        text: shards done per stage and the rate, for a progress bar.
    """

    done: int
    total: int
    samples: int
    text: str


@dataclass(frozen=True)
class StageReport:
    """What one stage did in this run.

    Attributes:
        shards_done, shards_cached: made now, there already.
        samples: samples made now.
        seconds: wall-clock seconds from its first worker's start, models loaded, to its last shard's end.
        samples_per_s: ``samples / seconds``.
    """

    shards_done: int = 0
    shards_cached: int = 0
    samples: int = 0
    seconds: float = 0.0
    samples_per_s: float = 0.0


@dataclass(frozen=True)
class Summary:
    """The result of ``preprocess``.

    Attributes:
        version: the manifest's number.
        planned: samples the source lists; ``samples`` of them are whole, ``quarantined`` are not.
        shards_done, shards_cached: units of one shard of one stage, made now or there already.
        bytes: of all tars of the version.
        seconds: this run took.
        reasons: why samples are quarantined -> how many.
        stages: name -> what it did.
    """

    version: int
    samples: int
    quarantined: int
    planned: int
    shards_done: int
    shards_cached: int
    bytes: int
    seconds: float
    reasons: dict[str, int]
    stages: dict[str, StageReport] = field(default_factory=dict)


@dataclass(frozen=True)
class StageEstimate:
    """What one stage would do.

    Attributes:
        stage: its name.
        to_do, cached: shards. A shard downstream of one to be made counts as to do; it may turn out to be cached.
        samples: in the shards to do.
        bytes: expected of them, from committed shards of the stage; None if there are none.
        seconds: expected wall-clock seconds with the recipe's workers, likewise.
        gpu_hours: expected seconds of all its GPUs together, in hours.
    """

    stage: str
    to_do: int
    cached: int
    samples: int
    bytes: int | None
    seconds: float | None
    gpu_hours: float | None


def dry_run(
    store: Store, source: Source, stages: Sequence[Stage], *, samples_per_shard: int, limit: int | None = None
) -> list[StageEstimate]:
    """What ``preprocess`` would do. Lists the source and the store; opens no sample and writes nothing.

    Raises:
        DataError: an empty source or duplicate ids.
        UsageError: stages out of order.
    """
    plan = plans.derive(plans.latest(store), plans.listing(source, limit), samples_per_shard)
    found = survey(store, plan, stages)
    planned = {shard.number: shard.samples for shard in plan.shards()}
    estimates = []
    for stage in stages:
        left = [task.shard for task in found.tasks if stage.name not in task.done]
        estimates.append(_estimate(store, stage, [planned[shard] for shard in left], found.done(stage.name)))
    return estimates


def _estimate(store: Store, stage: Stage, left: Sequence[int], cached: int) -> StageEstimate:
    """``left``: samples of each shard to do."""
    samples = sum(left)
    size, work = _per_sample(store, stage.name)
    resources = stage.config.resources
    seconds = None if work is None else work * samples
    return StageEstimate(
        stage=stage.name,
        to_do=len(left),
        cached=cached,
        samples=samples,
        bytes=None if size is None else round(size * samples),
        seconds=None if seconds is None else seconds / resources.actors,
        gpu_hours=None if seconds is None else seconds * resources.gpus / 3600,
    )


def _per_sample(store: Store, stage: str) -> tuple[float | None, float | None]:
    """Bytes and worker seconds of one sample, from the newest commits of the stage, whatever its settings were."""
    entries = sorted(store.list(f"{layout.COMMITS}/{stage}"), key=lambda e: e.modified)[-_COMMITS_READ:]
    with ThreadPoolExecutor(16) as pool:
        commits = [c for c in pool.map(lambda e: load_commit(store, e.key), entries) if c]
    inputs = sum(c.ref.n_ok + c.ref.n_bad for c in commits)
    if not inputs:
        return None, None
    return sum(c.ref.bytes for c in commits) / inputs, sum(map(_worked, commits)) / inputs


def _worked(commit: Commit) -> float:
    return commit.finished - commit.started
