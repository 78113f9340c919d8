"""Batches are read and prepared while the one before is computed."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from e4t_core.schema import Sample
from e4t_core.storage import Store
from pipelines.shards.isolation import IsolatedStage
from pipelines.shards.reading import Batch, ahead
from tests.shards.fakes import Read, Result, folder_source, make, people, write_texts
from tests.shards.support import build

PATIENCE = 20.0


def batches(count: int) -> Iterator[Batch]:
    for n in range(count):
        yield Batch([str(n)], [{"n": n}])


def test_the_next_one_is_prepared_while_this_one_is_in_use() -> None:
    prepared = [threading.Event() for _ in range(3)]
    for n, batch in enumerate(ahead(batches(3), lambda samples: prepared[samples[0]["n"]].set())):
        assert batch.samples[0]["n"] == n
        if n < 2:
            assert prepared[n + 1].wait(PATIENCE)
    assert n == 2
    assert list(ahead(batches(0), print)) == []


def test_what_reading_raises_comes_where_the_batch_would_have_come() -> None:
    def broken() -> Iterator[Batch]:
        yield from batches(1)
        raise ValueError("the second cannot be read")

    taken = ahead(broken(), lambda _: None)
    assert next(taken).ids == ["0"]
    with pytest.raises(ValueError, match="the second cannot be read"):
        next(taken)


class Broken(Read):
    """Cannot prepare one of its samples, nor read it when it is called."""

    def prepare(self, batch: Sequence[Sample]) -> None:
        for sample in batch:
            self.one(sample)


def test_what_preparing_raises_is_told_by_the_stage_with_the_samples_name(tmp_path: Path) -> None:
    write_texts(tmp_path / "src", {"a.txt": "fine", "b.txt": "bug", "c.txt": "fine"})
    with pytest.raises(RuntimeError, match=r"stage 'read', shard 0, sample 'b.txt': ZeroDivisionError: a bug"):
        build(Store(tmp_path / "store"), folder_source(tmp_path / "src"), [make(Broken)])


class Prepared(Read):
    """Says where each sample was prepared."""

    def prepare(self, batch: Sequence[Sample]) -> None:
        for sample in batch:
            sample["__thread__"] = threading.current_thread().name

    def one(self, sample: Sample) -> Result:
        result = super().one(sample)
        assert isinstance(result, dict)
        return {**result, "note.json": sample.get("__thread__", "unprepared").encode()}


def test_every_sample_of_a_shard_is_prepared_in_the_readers_thread(tmp_path: Path) -> None:
    people(tmp_path / "src", 5)
    store = Store(tmp_path / "store")
    build(store, folder_source(tmp_path / "src"), [make(Prepared)], samples_per_shard=5)
    tar = store.read(next(store.list("data")).key)
    assert tar.count(b"shard-reader") == 5


def test_a_stage_that_is_isolated_since_it_died_is_not_prepared_here(tmp_path: Path) -> None:
    people(tmp_path / "src", 2)
    source = folder_source(tmp_path / "src")
    samples: list[Sample] = [{"__key__": i.id, "__item__": i, "__source__": source} for i in source.items()]
    with IsolatedStage(make(Prepared)) as call:
        assert [r["note.json"] for r in call(samples)] == [b"unprepared"] * 2  # type: ignore[index]
