"""Batches that memory does not hold: halved, remembered, told, and never lost."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from e4t_core.memory import out_of_memory
from e4t_core.schema import Sample
from e4t_core.storage import Store
from pipelines.shards.commit import load_commit
from pipelines.shards.isolation import IsolatedStage
from pipelines.shards.memory import Halving
from tests.shards.fakes import Read, Result, folder_source, make, people
from tests.shards.support import build, content


class Hungry(Read):
    """Holds ``fits`` samples at once."""

    fits: ClassVar[int] = 3
    seen: ClassVar[list[int]] = []

    def __call__(self, batch: Sequence[Sample]) -> list[Result]:
        self.seen.append(len(batch))
        if len(batch) > self.fits:
            raise torch.OutOfMemoryError(f"CUDA out of memory: {len(batch)} samples")
        return super().__call__(batch)


class Full(Hungry):
    """Holds none."""

    fits = 0


@pytest.fixture(autouse=True)
def _forget() -> None:
    Hungry.seen.clear()


@pytest.fixture
def src(tmp_path: Path) -> Path:
    people(tmp_path / "src", 16)
    return tmp_path / "src"


def test_a_batch_that_does_not_fit_is_halved_until_it_does_and_larger_ones_are_not_tried_again(src: Path) -> None:
    source, halving = folder_source(src), Halving(make(Hungry))
    batch: list[Sample] = [{"__key__": i.id, "__item__": i, "__source__": source} for i in source.items()][:10]
    assert halving(batch) == make(Read)(batch)
    assert (Hungry.seen, halving.most) == ([10, 5, 3, 2, 3, 2], 3)
    Hungry.seen.clear()
    assert len(halving(batch[:4])) == 4
    assert Hungry.seen == [3, 1]


def test_a_shard_is_made_whole_with_the_same_bytes_and_its_commit_says_how(
    tmp_path: Path, src: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hungry, plain = Store(tmp_path / "hungry"), Store(tmp_path / "plain")
    with caplog.at_level(logging.WARNING):
        build(hungry, folder_source(src), [make(Hungry, batch_size=8)], samples_per_shard=16)
    build(plain, folder_source(src), [make(Read, batch_size=8)], samples_per_shard=16)
    assert Hungry.seen == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2]
    assert content(hungry) == content(plain)
    commits = [load_commit(store, next(store.list("commits")).key) for store in (hungry, plain)]
    assert [c.resources.get("most") for c in commits if c] == [2, None]
    assert "stage 'read': memory ran out at a batch of 8; trying 4" in caplog.text


def test_a_sample_that_does_not_fit_alone_is_named(tmp_path: Path, src: Path) -> None:
    store = Store(tmp_path / "store")
    with pytest.raises(RuntimeError, match=r"shard 0, sample 'p00-000.txt': MemoryError: one sample alone"):
        build(store, folder_source(src), [make(Full, batch_size=4)], samples_per_shard=16)


def test_in_a_process_of_its_own_it_halves_too(src: Path) -> None:
    source = folder_source(src)
    batch: list[Sample] = [{"__key__": i.id, "__item__": i, "__source__": source} for i in source.items()]
    with IsolatedStage(make(Hungry)) as call:
        assert len(call(batch)) == 16


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: 8 GB"), True),
        (RuntimeError("Non-zero status code: BFCArena::AllocateRawInternal Failed to allocate memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_running_out_of_memory(error: Exception, is_memory: bool) -> None:
    assert out_of_memory(error) is is_memory
    wrapped = RuntimeError("the model failed")
    wrapped.__cause__ = error
    assert out_of_memory(wrapped) is is_memory


def test_torchs_own_allocator_counts() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert out_of_memory(caught.value)
