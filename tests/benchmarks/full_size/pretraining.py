"""Seconds of a pre-training step and its memory, method by method, with the recipes for one GPU at batch 16."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch

from e4t_core.memory import out_of_memory
from e4t_core.training import train
from tests.benchmarks.full_size.rig import Rig
from tests.benchmarks.measure import Figure, ratio
from tests.e4t.conftest import Fixed

METHODS = ("hyperdreambooth", "e4t", "domain_agnostic", "taming_encoder")
STEPS, WARM = 6, 3


def run(rig: Rig) -> Iterator[Figure]:
    """With checkpointing and without; E4T's also with CLIP and VAE in the step, as it is without shards."""
    for name in filter(rig.wants, METHODS):
        for checkpointing in (False, True):
            try:
                stored = _measured(rig, name, checkpointing)
                yield stored
                if name == "e4t" and not checkpointing:
                    online = _measured(rig, name, checkpointing, online=True)
                    yield online
                    yield ratio("E4T step: online / from shards", online.value / stored.value, ">= 1.5")
            except Exception as error:
                if not out_of_memory(error):
                    raise
                print(f"  {_name(name, checkpointing)}: does not fit into memory", flush=True)
            rig.without_checkpointing()


class _Online(Fixed):
    """The same batches, whose CLIP features and latents are computed from their images in the step."""

    def __init__(self, rig: Rig, batch: dict[str, Any], count: int) -> None:
        super().__init__([batch])
        self.clip, self.backbone = rig.clip, rig.backbone  # loaded now, before the clock runs
        self.images, self.device = rig.pixels(count), rig.device

    def __next__(self) -> dict[str, Any]:
        images = self.images.to(self.device)
        with torch.no_grad():
            cls, _ = self.clip.image_features(images)
            moments = self.backbone.to_moments(images)
        return {**super().__next__(), "clip_cls": cls, "latent_moments": moments}


def _measured(rig: Rig, name: str, checkpointing: bool, online: bool = False) -> Figure:
    sets = [
        f"train.gradient_checkpointing={str(checkpointing).lower()}", "train.precision=bf16", "train.log_every=1",
        f"train.steps={WARM + rig.few(STEPS)}", "train.checkpoint_every=1000000", "train.shard_optimizer=false",
    ]  # fmt: skip
    if rig.small:
        sets.append("train.batch_size=2")
    recipe, paper = rig.recipe(name, *sets), rig.recipe(name).train.steps
    method = recipe.build_method()
    cls_1LD, _ = rig.features
    module = method.build(rig.backbone, cls_1LD.shape[1:])
    batch, marks = rig.batch(method, recipe), []
    batches = _Online(rig, batch, recipe.train.batch_size) if online else Fixed([batch])
    rig.fresh()
    train(
        method, module, rig.backbone, batches, recipe.train, seed=0,
        on_log=lambda step, facts: marks.append(time.perf_counter()),
    )  # fmt: skip
    each = (marks[-1] - marks[WARM - 1]) / (len(marks) - WARM)
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    return Figure(
        f"{_name(name, checkpointing)}{', CLIP and VAE in it' * online}", each, "s",
        note=f"batch {recipe.train.batch_size}, {trained / 1e6:.1f} M trained, peak {rig.peak_gb():.1f} GB, "
        f"{paper:,} steps: {paper * each / 3600:.1f} h",
    )  # fmt: skip


def _name(method: str, checkpointing: bool) -> str:
    return f"pretrain step {method}{', checkpointing' * checkpointing}"
