"""What the shard protocol itself costs: planning very many ids, and a run that finds everything done."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import psutil

from e4t_core.storage import Store
from pipelines.executor import preprocess
from pipelines.shards import plan as plans
from pipelines.shards.survey import survey
from pipelines.shards.work import Job, ShardWorker
from pipelines.sources.base import RawSample, Source, SourceConfig, SourceItem
from tests.benchmarks.measure import Figure, peak_memory, seconds
from tests.shards.fakes import chain

IDS = 1_000_000
SHARDS = 2_000


class Numbers(Source):
    """``limit`` items as a folder of photographs lists them, generated."""

    name: ClassVar[str] = "numbers"
    Config: ClassVar[type[SourceConfig]] = SourceConfig

    def items(self, limit: int | None = None) -> Iterator[SourceItem]:
        for n in range(limit or 0):
            name = f"person_{n // 20:06d}/photo_{n:08d}.jpg"
            labels = {"identity": f"person_{n // 20:06d}"}
            yield SourceItem(name, f"s3://a-bucket/photographs/{name}", f'"{n * 2654435761 % 2**64:032x}"', labels)

    def read(self, item: SourceItem) -> RawSample:
        return RawSample(item.id.encode())


def run(quick: bool) -> list[Figure]:
    """Bounds: a million ids planned in 20 s and 1 GB; 5 ms a shard of a run that has nothing to do."""
    with tempfile.TemporaryDirectory() as folder:
        return [
            *_planning(Store(f"{folder}/plan"), IDS // (10 if quick else 1)),
            _cached(Store(f"{folder}/cached"), quick),
        ]


def _planning(store: Store, ids: int) -> list[Figure]:
    source, before = Numbers(SourceConfig(name="numbers")), psutil.Process().memory_info().rss / 1e6
    with peak_memory() as peak:
        first = seconds(lambda: plans.resolve(store, source, 1000, ids))
        again = seconds(lambda: plans.resolve(store, source, 1000, ids))
    share = IDS / ids
    note = f"{ids:,} ids in {first:.1f} s; {again:.1f} s to find nothing changed"
    return [
        _below("shards: planning a million ids", first * share, "s", 20, note),
        _below("shards: its memory, over what Python held", (peak[0] - before) * share, "MB", 1000, ""),
    ]


def _cached(store: Store, quick: bool) -> Figure:
    shards = SHARDS // (5 if quick else 1)
    source, stages = Numbers(SourceConfig(name="numbers")), chain()
    plan = plans.resolve(store, source, 1, shards)
    found = survey(store, plan, stages)
    workers = [ShardWorker(Job(store, source, stage, identity, plan.items_key, "")) for stage, identity in found.stages]
    for task in found.tasks:
        for worker in workers:
            task = replace(task, done={**task.done, worker.stage.name: worker.process(task).ref})
    again = lambda: preprocess(store, source, stages, samples_per_shard=1, recipe={}, limit=shards)  # noqa: E731
    again()  # publishes
    taken = min(seconds(again) for _ in range(3))
    note = f"{len(stages)} columns, {shards:,} shards in {taken:.2f} s, plan and manifest included"
    return _below("shards: one shard that is done", taken / shards * 1e3, "ms", 5, note)


def _below(name: str, value: float, unit: str, bound: float, note: str) -> Figure:
    return Figure(name, value, unit, f"< {bound:g}", value < bound, note)
