"""The executor's loop without Ray, and ways to compare stores."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from e4t_core.storage import Store
from pipelines.shards import plan as plans
from pipelines.shards.manifest import Manifest, load_index, load_manifest, publish
from pipelines.shards.survey import survey, whole
from pipelines.shards.work import Job, ShardWorker
from pipelines.sources.base import Source
from pipelines.stages.base import Stage


def build(
    store: Store,
    source: Source,
    stages: Sequence[Stage],
    samples_per_shard: int = 4,
    run: str = "run",
    keep: Sequence[Stage] = (),
    **survey_args: Any,
) -> tuple[Manifest, list[tuple[str, int]]]:
    """Bring the store up to date in this process; also says which (stage, shard) were made."""
    plan = plans.resolve(store, source, samples_per_shard)
    found = survey(store, plan, stages, **survey_args)
    finished, made = [], []
    for task in found.tasks:
        for stage, identity in found.stages:
            if stage.name not in task.done:
                done = ShardWorker(Job(store, source, stage, identity, plan.items_key, run)).process(task)
                task = replace(task, done={**task.done, stage.name: done.ref})
                if done.made:
                    made.append((stage.name, task.shard))
        finished.append(task)
    refs = {stage.name: {task.shard: task.done[stage.name] for task in finished} for stage in stages}
    kept = whole(store, finished, keep)
    columns = [*found.stages, *((stage, identity) for stage, identity, _ in kept)]
    refs |= {stage.name: commits for stage, _, commits in kept}
    return publish(store, plan, columns, refs, {"name": "test"}), made


def content(store: Store) -> dict[str, bytes]:
    """Every byte that the newest version names: stage/shard -> tar."""
    manifest = load_manifest(store)
    return {f"{s}/{n}": store.read(ref.key) for s in manifest.stages for n, ref in manifest.refs(s).items()}


def statuses(store: Store) -> dict[str, str]:
    """id -> ``ok`` or the reason."""
    index = load_index(store, load_manifest(store)).to_pylist()
    return {row["id"]: row["reason"] or "ok" for row in index}


def assert_exactly_once(store: Store, ids: set[str]) -> None:
    """Every id is planned once, and is once in each column or quarantined."""
    manifest = load_manifest(store)
    rows = load_index(store, manifest).to_pylist()
    assert sorted(r["id"] for r in rows) == sorted(ids)
    assert manifest.head["samples"] + manifest.head["quarantined"] == manifest.head["planned"] == len(ids)
    good = {r["key"] for r in rows if r["status"] == "ok"}
    for stage in manifest.stages:
        keys: list[str] = []
        for ref in manifest.refs(stage).values():
            with tarfile.open(fileobj=io.BytesIO(store.read(ref.key))) as tar:
                keys += {name.split(".", 1)[0] for name in tar.getnames()}
        assert len(keys) == len(set(keys))
        assert good <= set(keys)
