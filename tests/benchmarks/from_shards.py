"""An E4T pre-training step from shards against the same step that encodes its images online.

On the quarter-width stack, where the encoders' share of a step is what it is with Stable Diffusion 1.5 and ViT-H/14.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from e4t_core.backbones import load_backbone, load_clip
from e4t_core.training import train
from jobs import _ray
from jobs._recipe import Recipe
from jobs._sections import RayConfig
from pipelines.loader import ShardDataset, ShardLoader
from tests.benchmarks.measure import Figure, interleaved, peak_memory, ratio
from tests.benchmarks.quarter_stack import quarter_stack
from tests.benchmarks.tiny_data import Stream, tiny_recipe, tiny_shards

THREADS, BATCHES = 2, (4, 8, 16)
PRECISIONS = {
    "fp32": ("train.precision=fp32",),
    "bf16": ("train.precision=bf16", "backbone.dtype=bfloat16", "clip.dtype=bfloat16"),
}


class Online(Stream):
    """The same batches, but CLIP features and latents are computed from the images in the step."""

    def __init__(self, loader: ShardLoader, recipe: Recipe) -> None:
        super().__init__(loader)
        self.clip, self.backbone = load_clip(recipe.clip), load_backbone(recipe.backbone)

    def __next__(self) -> dict[str, Any]:
        batch = super().__next__()
        with torch.no_grad():
            cls, _ = self.clip.image_features(batch["images"])
            moments = self.backbone.to_moments(batch["images"])
        return {**batch, "clip_cls": cls, "latent_moments": moments}


def run(quick: bool) -> list[Figure]:
    """Every batch size in both precisions: float32, and bfloat16 as the sd15 recipes train."""
    torch.set_num_threads(THREADS)
    return [figure for batch in BATCHES for sets in PRECISIONS.values() for figure in _compared(quick, batch, sets)]


def _compared(quick: bool, batch: int, sets: tuple[str, ...]) -> list[Figure]:
    """Both ways in turns, the same number of steps."""
    steps, rounds = (2, 1) if quick else (4, 3)
    with tempfile.TemporaryDirectory() as temp:
        recipe = tiny_recipe(
            *quarter_stack(Path(temp)), *sets, "source.images_per_identity=1", f"train.batch_size={batch}",
            f"train.steps={steps}", f"train.log_every={steps}", f"train.checkpoint_every={steps}",
        )  # fmt: skip
        with _ray.session(RayConfig(address="local", num_cpus=2)):
            dataset = ShardDataset.open(tiny_shards(Path(temp), recipe).uri)
        backbone, method = load_backbone(recipe.backbone), recipe.build_method()
        module = method.build(backbone, load_clip(recipe.clip).dims)
        columns = tuple(c for c in method.columns if c not in ("clip", "latent"))
        stored = Stream(ShardLoader(dataset, method.columns, batch, seed=0))
        online = Online(ShardLoader(dataset, ("ingest", *columns), batch, seed=0), recipe)

        def go(batches: Any) -> None:
            train(method, module, backbone, batches, recipe.train, seed=0)

        go(stored)
        go(online)
        with peak_memory() as peak:
            taken = interleaved({"stored": lambda: go(stored), "online": lambda: go(online)}, rounds)
    precision = recipe.train.precision
    note = f"batch {batch}, SD1.5 and ViT-H at quarter width, {recipe.backbone.resolution} px, {precision}"
    name = f"E4T step: online / from shards, {precision}, batch {batch}"
    return [
        Figure("E4T step from shards", taken["stored"] / steps, "s", note=f"{note}, peak {peak[0]:.0f} MB"),
        Figure("E4T step, CLIP and VAE online", taken["online"] / steps, "s", note=note),
        ratio(name, taken["online"] / taken["stored"], ">= 1.5"),
    ]
