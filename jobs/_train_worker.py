"""What every Ray Train worker of ``pretrain`` does."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from torch import Tensor, nn

from e4t_core.backbones import load_backbone
from e4t_core.backbones.base import Backbone
from e4t_core.methods.base import Method
from e4t_core.record import Record
from e4t_core.storage import Store
from e4t_core.training import TrainState, load_module, train
from jobs._board import Board
from jobs._lineage import public
from jobs._models import clip_dims, peak_memory
from jobs._recipe import Recipe
from jobs._run_folder import MODULE, Data, RunFolder, init_inputs
from pipelines.loader import ShardDataset, ShardLoader
from pipelines.sources.mix import MixConfig

_TICK_S = 1.0
"""Seconds between two notices of progress."""


@dataclass(frozen=True)
class Task:
    """What a worker is given: values and URIs, nothing of the driver's machine."""

    recipe: Recipe
    data: Data
    out: str
    board: Board


def work(config: dict[str, Any]) -> dict[str, Any]:
    """Train from the newest checkpoint, or from the start; returns the summary's figures on rank 0."""
    task: Task = ray.get(config["task"])
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    torch.set_num_threads(task.recipe.workers.threads)
    logging.getLogger().setLevel(logging.WARNING)  # Ray Train lowers it, and then tells of every report
    return _Worker(task, rank, world).run()


class _Worker:
    """One rank: models, data, and what happens at each log line and checkpoint."""

    def __init__(self, task: Task, rank: int, world: int) -> None:
        recipe = task.recipe
        self.task, self.rank, self.world = task, rank, world
        self.folder = RunFolder(Store(task.out))
        self.backbone: Backbone = load_backbone(recipe.backbone, _device(recipe.workers.device))
        self.method: Method = recipe.build_method()
        dataset = ShardDataset.open(task.data.uri, task.data.version)
        self.module: nn.Module = self.method.build(self.backbone, clip_dims(dataset))
        self.record = _record(task, self.backbone)
        loader = ShardLoader(
            dataset,
            self.method.columns,
            recipe.train.batch_size,
            recipe.seed,
            rank,
            world,
            shares=recipe.source.shares if isinstance(recipe.source, MixConfig) else None,
            references=self.method.references,
        )
        self.batches = _Batches(loader, recipe.train.grad_accum, self._tick)
        self.curve: list[dict[str, Any]] = []
        self.begun, self.begun_at = 0, time.perf_counter()
        self.marked, self.marked_at, self.told_at = 0, self.begun_at, 0.0

    def run(self) -> dict[str, Any]:
        """Train, and write what comes of it."""
        recipe, start = self.task.recipe, self._start()
        if start is None and recipe.train.init_from is not None:
            load_module(Store(recipe.train.init_from), MODULE, self.module)
        self.begun = self.marked = start.step if start else 0
        self._tell("start", step=self.begun, curve=self.curve)
        self.begun_at = self.marked_at = time.perf_counter()
        state = train(
            self.method,
            self.module,
            self.backbone,
            self.batches,
            recipe.train,
            seed=recipe.seed,
            rank=self.rank,
            world_size=self.world,
            all_reduce=_sum_over_ranks if self.world > 1 else None,
            broadcast=_from_rank if self.world > 1 else None,
            start=start,
            on_log=self._log,
            on_checkpoint=self._checkpoint,
        )
        if self.rank == 0:
            self._finish(state)
        return {"steps": state.step}

    def _start(self) -> TrainState | None:
        """The newest complete checkpoint; rank 0 decides which, so that all ranks take the same."""
        steps = self.folder.steps() if self.rank == 0 else []
        newest = torch.tensor([steps[-1] if steps else 0], device=self.backbone.device)
        if self.world > 1:
            dist.broadcast(newest, src=0)
        if not int(newest):
            return None
        state, self.curve = self.folder.load(int(newest), self.record)
        return state

    # --- what happens along the way

    def _tick(self, step: int) -> None:
        now = time.monotonic()
        if now - self.told_at > _TICK_S:
            self.told_at = now
            self._tell("step", step=self.begun + step)

    def _log(self, step: int, facts: dict[str, float]) -> None:
        now = time.perf_counter()
        per_step = (now - self.marked_at) / max(step - self.marked, 1)
        samples = self.task.recipe.train.batch_size * self.task.recipe.train.grad_accum * self.world
        self.marked, self.marked_at = step, now
        row = {"step": step, **facts, "seconds_per_step": per_step, "samples_per_second": samples / per_step}
        self.curve.append(row)
        self._tell("log", row=row)

    def _checkpoint(self, state: TrainState) -> None:
        if self.rank == 0:
            self.folder.save(state, self.record, self.curve)
            self._tell("checkpoint", step=state.step)
        ray.train.report({"step": state.step})  # waits for all ranks: nobody runs ahead of the checkpoint
        self.marked, self.marked_at = state.step, time.perf_counter()  # writing it is no part of a step

    def _finish(self, state: TrainState) -> None:
        facts = {
            "steps": state.step,
            "loss": self.curve[-1]["loss"],
            "parameters": sum(p.numel() for p in self.module.parameters()),
            "workers": self.world,
            "peak_memory_bytes": peak_memory(self.backbone.device),
            "samples_per_second": _mean([row["samples_per_second"] for row in self.curve]),
        }
        self.folder.finish(self.module, state, _with_facts(self.record, facts), self.curve)

    def _tell(self, kind: str, **facts: Any) -> None:
        if self.rank == 0:
            self.task.board.tell({"kind": kind, **facts})


class _Batches:
    """The loader as the training loop wants it, with a call for every step that begins."""

    def __init__(self, loader: ShardLoader, per_step: int, on_step: Any) -> None:
        self.loader, self.per_step, self.on_step = loader, per_step, on_step
        self.stream: Iterator[dict[str, Any]] | None = None
        self.given = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        if self.stream is None:
            self.stream = iter(self.loader)
        self.on_step(self.given // self.per_step)
        self.given += 1
        return next(self.stream)

    def state_dict(self) -> dict[str, Any]:
        return self.loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loader.load_state_dict(state)
        self.stream = None


def _record(task: Task, backbone: Backbone) -> Record:
    recipe = task.recipe
    inputs = {
        "shards": f"{task.data.uri}#{task.data.version}",
        "shards_fingerprint": task.data.fingerprint,
        **{f"backbone.{part}": content for part, content in backbone.identity().items()},
        **init_inputs(recipe.train.init_from),
    }
    return Record("checkpoint", public(recipe.dump()), recipe.hash, inputs)


def _with_facts(record: Record, facts: dict[str, Any]) -> Record:
    return Record(record.kind, record.recipe, record.recipe_hash, record.inputs, facts)


def _sum_over_ranks(tensor: Tensor) -> None:
    dist.all_reduce(tensor)


def _from_rank(tensor: Tensor, rank: int) -> None:
    dist.broadcast(tensor, src=rank)


def _device(configured: str) -> torch.device:
    """``cuda`` means the GPU that Ray Train gave this worker; several may be visible."""
    return ray.train.torch.get_device() if configured == "cuda" else torch.device(configured)


def _mean(values: list[float]) -> float:
    return sum(values) / max(len(values), 1)
