"""ZeRO stage 1: the same weights to the bit, a share of the state on each rank, and checkpoints for any number."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from e4t_core.storage import Store
from e4t_core.training import TrainState, load_state
from e4t_core.training import loop as loop_file
from e4t_core.training.config import TrainConfig
from e4t_core.training.sharded import owners
from tests.conftest import ROOT
from tests.e4t.conftest import assert_same
from tests.training.conv import RECORD, fit


def assert_equal(one: TrainState, other: TrainState) -> None:
    """Weights, averages and moments."""
    assert_same(one.module, other.module)
    assert_same(one.ema or {}, other.ema or {})
    assert_same(one.optimizer, other.optimizer)
    assert (one.step, one.loader) == (other.step, other.loader)


def together(ranks: int, **fields: Any) -> list[TrainState]:
    """The ends of as many ranks, as threads that wait for each other."""
    barrier, seen, ends = threading.Barrier(ranks, timeout=60), dict[int, Tensor](), dict[int, TrainState]()

    def run(rank: int) -> None:
        def all_reduce(tensor: Tensor) -> None:
            seen[rank] = tensor.clone()
            barrier.wait()
            tensor.copy_(sum(seen[r] for r in range(ranks)))  # type: ignore[arg-type]
            barrier.wait()

        def broadcast(tensor: Tensor, owner: int) -> None:
            seen[rank] = tensor.clone()
            barrier.wait()
            tensor.copy_(seen[owner])
            barrier.wait()

        ends[rank] = fit(rank, ranks, all_reduce=all_reduce, broadcast=broadcast, **fields)[0]

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return [ends[rank] for rank in range(ranks)]


def test_real_processes_end_where_the_unsharded_run_ends(tmp_path: Path) -> None:
    """Two processes over gloo, and what one process makes of their checkpoint."""
    words = [sys.executable, "-m", "tests.training.conv", str(tmp_path)]
    runs = [subprocess.Popen([*words, str(rank), "2"], cwd=ROOT) for rank in (0, 1)]
    assert [run.wait(120) for run in runs] == [0, 0]
    states = {
        f"{kind}-{rank}/{step}": load_state(Store(tmp_path), f"{kind}-{rank}/{step}", RECORD)[0]
        for kind in ("whole", "sharded")
        for rank in (0, 1)
        for step in (3, 6)
    }
    for step in (3, 6):
        assert_equal(states[f"whole-0/{step}"], states[f"sharded-0/{step}"])
        assert_equal(states[f"sharded-0/{step}"], states[f"sharded-1/{step}"])
    alone, _ = fit(start=states["sharded-0/3"])
    for name, tensor in states["whole-0/6"].module.items():  # sums over ranks round differently
        torch.testing.assert_close(alone.module[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ranks", [2, 3])
def test_a_checkpoint_goes_on_with_other_workers(ranks: int) -> None:
    whole = fit()[1][0]  # at step 3, of one process
    sharded = together(ranks, start=whole, shard_optimizer=True)
    plain = together(ranks, start=whole)
    for one, other in zip(plain, sharded, strict=True):
        assert_equal(one, other)
    back = together(2, start=sharded[0], steps=8, shard_optimizer=True)
    assert_equal(together(2, start=plain[0], steps=8)[0], back[0])


def test_each_rank_keeps_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[int, set[str]] = {}
    real = loop_file._Run.step

    def step(self: Any, batches: Any) -> dict[str, float]:
        facts = real(self, batches)
        names = {p: name for name, p in self.named.items()}
        kept[self.rank] = {names[p] for p in self.optimizer.state}
        assert set(self.ema) == set(self.mine)
        return facts

    monkeypatch.setattr(loop_file._Run, "step", step)
    together(2, shard_optimizer=True)
    assert not kept[0] & kept[1]
    assert kept[0] | kept[1] == {"conv.weight", "conv.bias", "linear.weight", "linear.bias"}
    assert min(map(len, kept.values())) > 0


def test_shares_are_even() -> None:
    assert owners({"a": 5, "b": 4, "c": 3, "d": 2}, 2) == {"a": 0, "b": 1, "c": 1, "d": 0}
    assert owners({"a": 5}, 3) == {"a": 0}
    sizes = {f"layer{i}": 1 + i % 7 for i in range(100)}
    load = [sum(sizes[n] for n, r in owners(sizes, 8).items() if r == rank) for rank in range(8)]
    assert max(load) - min(load) <= max(sizes.values())


def test_resuming_keeps_the_memory_layout(tmp_path: Path) -> None:
    """Files are contiguous and the weights are not: a fused optimizer that walked both side by side would mix them."""
    from e4t_core.training import save_state

    whole, kept = fit()
    save_state(Store(tmp_path), "half", kept[0], RECORD)
    assert_equal(whole, fit(start=load_state(Store(tmp_path), "half", RECORD)[0])[0])


def test_gradients_summed_over_ranks_keep_it_too() -> None:
    """A rank that is alone sums with nobody, and must do as without the sum."""
    assert_equal(fit()[0], fit(all_reduce=lambda tensor: None)[0])


def test_the_switch_enters_a_dump_only_if_it_is_on() -> None:
    """Checkpoints from before it was there stay good."""
    assert "shard_optimizer" not in TrainConfig(steps=1).dump()
    assert TrainConfig(steps=1, shard_optimizer=True).dump()["shard_optimizer"]
    with pytest.raises(ValueError, match="needs a broadcast"):
        fit(0, 2, shard_optimizer=True)
