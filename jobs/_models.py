"""Shards opened and models loaded for a job, with the checks that they belong together."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from e4t_core.backbones import load_backbone
from e4t_core.backbones.base import Backbone
from e4t_core.bundled import SCHEME
from e4t_core.errors import UsageError
from e4t_core.methods.base import Method
from e4t_core.record import fingerprint
from e4t_core.storage import Store
from e4t_core.training import load_module
from jobs._recipe import Recipe
from jobs._run_folder import MODULE, Data
from jobs._sections import ActorsConfig
from pipelines.collate import collate
from pipelines.loader import ShardDataset
from pipelines.shards.manifest import load_manifest
from pipelines.stages import STAGES

_MODEL_COLUMNS = ("clip", "latent", "lidb")
"""Columns whose content depends on a frozen model that training and sampling use too."""


def absolute(uri: str) -> str:
    """``uri`` as a worker in another working directory must be given it."""
    store = Store(uri)
    return store.root if store.local and not uri.startswith(SCHEME) else store.uri


def open_shards(recipe: Recipe, uri: str, columns: Sequence[str], version: int | None = None) -> ShardDataset:
    """Open shards that the recipe's models can work with.

    Raises:
        DataError: nothing is committed there.
        UsageError: a column is missing, or was made with another model than the recipe names.
    """
    dataset = ShardDataset.open(absolute(uri), version)
    dataset.check_columns(columns)
    made = load_manifest(dataset.store, dataset.version).head["stages"]
    for stage in recipe.build_stages():
        if stage.name not in columns or stage.name not in _MODEL_COLUMNS:
            continue
        there = {"weights": made[stage.name]["weights"], **made[stage.name]["settings"]}
        here = {"weights": stage.weights(), **stage.settings()}
        lines = [
            f"{k} is {there.get(k)!r} there and {here.get(k)!r} here"
            for k in {**here, **there}
            if there.get(k) != here.get(k)
        ]
        if lines:
            raise UsageError(
                f"column '{stage.name}' of {uri} version {dataset.version} was made with another model: "
                f"{'; '.join(lines)}. Give the recipe it was made with, or run preprocess with this one"
            )
    _check_agreement(recipe, dataset, columns, made)
    return dataset


def _check_agreement(
    recipe: Recipe, dataset: ShardDataset, columns: Sequence[str], made: Mapping[str, Mapping[str, Any]]
) -> None:
    """A column that another recipe made must mean what this one's method takes it for."""
    for column in columns:
        for name in STAGES.get(column).agrees:
            there, here = made[column]["settings"].get(name), recipe.method.dump().get(name)
            if there != here:
                raise UsageError(
                    f"column '{column}' of {dataset.store.uri} version {dataset.version} was made with {name} "
                    f"{there!r}, and method.{name} is {here!r}; give the method the same, or make the column anew"
                )


def describe(dataset: ShardDataset, columns: Sequence[str]) -> Data:
    """Where the shards are, and a hash of all that ``columns`` hold."""
    manifest = load_manifest(dataset.store, dataset.version)
    content = {c: {str(n): ref.sha256 for n, ref in manifest.refs(c).items()} for c in sorted(columns)}
    facts = {"index": manifest.head["index"]["sha256"], "columns": content}
    return Data(dataset.store.uri, dataset.version, fingerprint(facts))


def clip_dims(dataset: ShardDataset) -> tuple[int, int]:
    """(levels, width) of the stored CLIP features."""
    _, levels, width = collate(dataset.samples([0], ["clip"]), ["clip"])["clip_cls"].shape
    return levels, width


@dataclass
class Loaded:
    """Models in a worker, and the seconds that loading took."""

    method: Method
    backbone: Backbone
    module: nn.Module
    seconds: float


def load_models(recipe: Recipe, config: ActorsConfig, dims: tuple[int, int], checkpoint: str | None) -> Loaded:
    """Load backbone and trained module; ``checkpoint`` is None for methods that need no pre-training.

    Raises:
        CheckpointMismatch: the module belongs to another method, backbone or size.
    """
    began = time.perf_counter()
    torch.set_num_threads(config.threads)
    backbone = load_backbone(recipe.backbone, config.device)
    method = recipe.build_method()
    module = method.build(backbone, dims)
    if checkpoint is not None:
        load_module(Store(checkpoint), MODULE, module)
    return Loaded(method, backbone, module.eval(), time.perf_counter() - began)


def reset_peak_memory(device: torch.device) -> None:
    """Begin a new peak (on a GPU; a process's own cannot be reset)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """Most bytes in use: allocated on the GPU since the last reset, or resident in this process ever."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) * (1 if sys.platform == "darwin" else 1024)
