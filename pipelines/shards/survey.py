"""What is done and what is left, told from the store's listing alone: no data is opened, no worker started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from e4t_core.errors import UsageError
from e4t_core.storage import Store
from pipelines.shards import layout
from pipelines.shards.commit import ShardRef, load_commit, shard_fingerprint, stage_identity
from pipelines.shards.manifest import Manifest, latest
from pipelines.shards.plan import Plan, PlannedShard
from pipelines.shards.work import ShardTask
from pipelines.stages.base import Stage

_READERS = 16


@dataclass(frozen=True)
class Survey:
    """The state of a plan.

    Attributes:
        stages: each stage with its identity, in order.
        tasks: every shard with what is committed of it; one whose ``done`` has every stage is finished.
    """

    stages: Sequence[tuple[Stage, Mapping[str, Any]]]
    tasks: Sequence[ShardTask]

    @property
    def open(self) -> list[ShardTask]:
        """Shards with something left to do."""
        return [task for task in self.tasks if len(task.done) < len(self.stages)]

    def done(self, stage: str) -> int:
        """How many shards of one stage are committed."""
        return sum(stage in task.done for task in self.tasks)


def check_order(stages: Sequence[Stage]) -> None:
    """Each stage must come after those it reads.

    Raises:
        UsageError: it does not, or a stage is there twice.
    """
    seen: list[str] = []
    for stage in stages:
        missing = [name for name in stage.reads if name not in seen]
        if missing or stage.name in seen:
            what = f"reads '{missing[0]}', which must come before it" if missing else "is there twice"
            raise UsageError(f"stage '{stage.name}' {what}; the stages are: {', '.join(s.name for s in stages)}")
        seen.append(stage.name)


def survey(store: Store, plan: Plan, stages: Sequence[Stage], retry_quarantined: bool = False) -> Survey:
    """Compare the plan with what is committed.

    Args:
        retry_quarantined: count shards that the newest manifest has quarantined samples in as not done.

    Raises:
        UsageError: see :func:`check_order`.
    """
    check_order(stages)
    identities = [stage_identity(stage) for stage in stages]
    newest = latest(store)
    retry = _retries(newest, stages, retry_quarantined)
    known = [_Known(store, stage, newest) for stage in stages]

    def trace(shard: PlannedShard) -> ShardTask:
        counts = {stage.name: retry.get((stage.name, shard.number), 0) for stage in stages}
        done: dict[str, ShardRef] = {}
        task = ShardTask(shard.number, shard.group, plan.inputs(shard), counts, done)
        for stage, identity, commits in zip(stages, identities, known, strict=True):
            if all(name in done for name in stage.reads):
                ref = commits.find(shard.number, shard_fingerprint(identity, task.inputs(stage)))
                if ref is not None:
                    done[stage.name] = ref
        return task

    with ThreadPoolExecutor(_READERS) as pool:
        tasks = list(pool.map(trace, plan.shards()))
    return Survey(list(zip(stages, identities, strict=True)), tasks)


Whole = tuple[Stage, Mapping[str, Any], dict[int, ShardRef]]
"""A column of which every shard is committed: its stage, identity and commits."""


def whole(store: Store, tasks: Sequence[ShardTask], stages: Sequence[Stage]) -> list[Whole]:
    """Those of ``stages``, which a run does not make, that are whole all the same.

    Args:
        tasks: every shard of the plan, with what the run has made of it.
    """
    found: list[Whole] = []
    for stage in stages:
        if column := _whole(store, tasks, stage):
            found.append(column)
            tasks = [replace(task, done={**task.done, stage.name: column[2][task.shard]}) for task in tasks]
    return found


def _whole(store: Store, tasks: Sequence[ShardTask], stage: Stage) -> Whole | None:
    newest = latest(store)
    known = _Known(store, stage, newest)
    # without any, its weights need not be hashed
    if not known or any(name not in task.done for task in tasks for name in stage.reads):
        return None
    identity, retry = stage_identity(stage), _retries(newest, [stage], again=False)

    def find(task: ShardTask) -> ShardRef | None:
        before = {stage.name: retry.get((stage.name, task.shard), 0)}
        return known.find(task.shard, shard_fingerprint(identity, replace(task, retry=before).inputs(stage)))

    with ThreadPoolExecutor(_READERS) as pool:
        refs = {task.shard: ref for task, ref in zip(tasks, pool.map(find, tasks), strict=True) if ref}
    return (stage, identity, refs) if len(refs) == len(tasks) else None


def _retries(newest: Manifest | None, stages: Sequence[Stage], again: bool) -> dict[tuple[str, int], int]:
    """(stage, shard) -> how often it was or is to be tried again."""
    if newest is None:
        return {}
    return {
        (stage.name, number): ref.inputs.retry + (1 if again and ref.n_bad else 0)
        for stage in stages
        for number, ref in newest.refs(stage.name).items()
    }


class _Known:
    """One stage's commits: from the newest manifest where it has them, else read."""

    def __init__(self, store: Store, stage: Stage, newest: Manifest | None) -> None:
        self._store, self._stage = store, stage.name
        self._commits = {entry.key for entry in store.list(f"{layout.COMMITS}/{stage.name}")}
        self._tars = {entry.key: entry.size for entry in store.list(f"{layout.DATA}/{stage.name}")}
        self._refs = newest.refs(stage.name) if newest else {}

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._commits)

    def find(self, shard: int, fingerprint: str) -> ShardRef | None:
        """The commit with that fingerprint, if it is there and its tar is too."""
        key = layout.commit_key(self._stage, shard, fingerprint)
        if key not in self._commits:
            return None
        ref = self._refs.get(shard)
        if ref is None or ref.fingerprint != fingerprint:
            commit = load_commit(self._store, key)
            ref = commit.ref if commit else None
        return ref if ref is not None and self._tars.get(ref.key) == ref.bytes else None
