"""What a run would do, why, and what that would cost; nothing is opened and nothing written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from e4t_core.storage import Store
from pipelines.shards import plan as plans
from pipelines.shards.changes import identity_changes, reasons, sentences
from pipelines.shards.commit import Inputs, ShardRef
from pipelines.shards.cost import recent_cost
from pipelines.shards.manifest import Manifest, latest
from pipelines.shards.survey import survey
from pipelines.shards.work import ShardTask
from pipelines.sources.base import Source
from pipelines.stages.base import Stage


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
        changes: what differs from the newest version's stage, as sentences.
        why: reason -> shards to do for it.
    """

    stage: str
    to_do: int
    cached: int
    samples: int
    bytes: int | None
    seconds: float | None
    gpu_hours: float | None
    changes: list[str]
    why: dict[str, int]


def dry_run(
    store: Store, source: Source, stages: Sequence[Stage], *, samples_per_shard: int, limit: int | None = None
) -> list[StageEstimate]:
    """What ``preprocess`` would do.

    Raises:
        DataError: an empty source or duplicate ids.
        UsageError: stages out of order.
    """
    plan = plans.draft(store, plans.listing(source, limit), samples_per_shard)
    found, newest = survey(store, plan, stages), latest(store)
    planned = {shard.number: shard.samples for shard in plan.shards()}
    estimates = []
    for stage, identity in found.stages:
        left = [task for task in found.tasks if stage.name not in task.done]
        changes = _changes(newest, stage.name, identity)
        refs = newest.refs(stage.name) if newest else {}
        why = Counter(_why(refs.get(task.shard), task, stage, bool(changes)) for task in left)
        size, seconds, gpu_hours = _cost(store, stage, sum(planned[task.shard] for task in left))
        estimates.append(
            StageEstimate(
                stage=stage.name,
                to_do=len(left),
                cached=found.done(stage.name),
                samples=sum(planned[task.shard] for task in left),
                bytes=size,
                seconds=seconds,
                gpu_hours=gpu_hours,
                changes=changes,
                why=dict(why),
            )
        )
    return estimates


def _changes(newest: Manifest | None, stage: str, identity: Mapping[str, Any]) -> list[str]:
    before = newest.head["stages"].get(stage) if newest else None
    return sentences(identity_changes(before, identity)) if before else []


def _why(old: ShardRef | None, task: ShardTask, stage: Stage, stage_changed: bool) -> str:
    """Why a shard is to be made, in words."""
    if old is None:
        return "not made yet"
    pending = [name for name in stage.reads if name not in task.done]
    known = [name for name in stage.reads if name in task.done]
    was = Inputs(old.inputs.items, {name: old.inputs.upstream.get(name, "") for name in known}, old.inputs.retry)
    now = Inputs(
        items="" if stage.reads else task.items,
        upstream={name: task.done[name].sha256 for name in known},
        retry=task.retry.get(stage.name, 0),
    )
    found = reasons(was, now, stage_changed)
    found += [f"upstream {', '.join(pending)} to be made"] if pending else []
    return "; ".join(found) or "its tar is missing"


def _cost(store: Store, stage: Stage, samples: int) -> tuple[int | None, float | None, float | None]:
    """Bytes, wall-clock seconds and GPU-hours of so many samples, from the newest commits of the stage."""
    recent = recent_cost(store, stage.name)
    if recent is None:
        return None, None, None
    share, resources = samples / recent.samples, stage.config.resources
    seconds = recent.seconds * share
    return round(recent.bytes * share), seconds / resources.actors, seconds * resources.gpus / 3600
