"""CLIP and latent stages through Ray Data and the commit protocol, against the bare model loop on the same images.

Models of a size where the model is the work, as it is in use: ViT-B/32 and Stable Diffusion 1.5's VAE, random weights.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from e4t_core.schema import Sample
from e4t_core.storage import Store
from jobs import _ray
from jobs._recipe import Recipe, load
from jobs._sections import RayConfig
from pipelines import executor
from pipelines.loader import ShardDataset
from pipelines.stages import STAGES, Stage
from tests.benchmarks.data import photo_folder
from tests.benchmarks.measure import Figure, peak_memory, ratio, seconds

THREADS = 2


def _recipe(folder: Path) -> Recipe:
    one = f"{{actors: 1, threads: {THREADS}, batch_size: 16}}"
    return load(
        "sd15",
        [
            f"source.path={folder}", "stages.ingest.size=64", "stages.ingest.min_size=1",
            "stages.ingest.resources={actors: 2}",
            "clip.path=ViT-B-32", "clip.pretrained=null", "clip.random_seed=0", "clip.dtype=float32",
            "backbone.path=bundled:sd15", "backbone.random_seed=0", "backbone.resolution=64", "backbone.dtype=float32",
            f"stages.clip.resources={one}", f"stages.latent.resources={one}",
        ],
    )  # fmt: skip


def _bare(stage: Stage, samples: Sequence[Sample]) -> float:
    """The same stage object in a plain loop: read, decode, encode, nothing else."""
    stage.setup()
    size = stage.config.resources.batch_size
    stage(samples[:size])
    return seconds(lambda: [stage(samples[i : i + size]) for i in range(0, len(samples), size)])


def _ours(recipe: Recipe, store: Store, names: tuple[str, ...]) -> tuple[float, executor.Summary]:
    stages = [s for s in recipe.build_stages() if s.name in names]
    start = time.perf_counter()
    summary = executor.preprocess(store, recipe.build_source(), stages, samples_per_shard=64, recipe=recipe.dump())
    return time.perf_counter() - start, summary


def run(quick: bool) -> list[Figure]:
    """One stage at a time with all cores, so that ours and the bare loop have the same machine."""
    count = 128 if quick else 768
    torch.set_num_threads(THREADS)
    figures = []
    with tempfile.TemporaryDirectory() as temp, _ray.session(RayConfig(address="local", num_cpus=2)):
        recipe = _recipe(photo_folder(Path(temp) / "photos", count))
        store = Store(Path(temp) / "out")
        _ours(recipe, store, ("ingest",))
        dataset = ShardDataset.open(store.uri)
        samples = dataset.samples(range(count), ["ingest"])
        for name in ("clip", "latent"):
            bare = _bare(STAGES.get(name)(recipe.stages[name], recipe.models), samples)
            with peak_memory() as peak:
                _, summary = _ours(recipe, store, ("ingest", name))
            working = summary.stages[name].seconds
            figures += [
                Figure(f"{name}: bare model loop, {THREADS} threads", count / bare, "images/s"),
                Figure(
                    f"{name}: committed shards", count / working, "images/s", note=f"peak {peak[0]:.0f} MB with Ray"
                ),
                ratio(f"{name}: ours / bare", bare / working, ">= 0.9", note="model loading apart on both sides"),
            ]
    return figures
