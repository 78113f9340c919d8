"""What the tiny world costs on two cores: drawing a picture, a tuning step, sampling."""

from __future__ import annotations

import statistics
import time

import torch

from e4t_core.backbones import load_backbone, load_clip
from e4t_core.methods import Identity
from e4t_core.sampling import SamplerConfig, TextConditioning, sample
from jobs._recipe import load
from pipelines.sources.tiny_world import TinyWorld, TinyWorldConfig, render
from tests.benchmarks.measure import Figure, seconds

DOMAINS = ("face", "cat", "art", "object")
THREADS = 2


def run(quick: bool) -> list[Figure]:
    """Bounds: under 5 ms an image on one core, 0.8 s a tuning step of 16, 3 s for 8 images in 20 steps."""
    pictures = [_drawing(domain, 100 if quick else 400) for domain in DOMAINS]
    torch.set_num_threads(THREADS)
    return [*pictures, _tuning(4 if quick else 15), _sampling(1 if quick else 3)]


def _drawing(domain: str, count: int) -> Figure:
    config = TinyWorldConfig(name="tiny_world", domain=domain, identities=count, images_per_identity=1)
    labels = [item.labels for item in TinyWorld(config).items()]
    for label in labels[:60]:  # imports, and what is drawn once a process: sheets of brush strokes, a palette
        render(domain, 0, label["style"], label["scene"], 0, split="train", seed=0, size=64)
    times = []
    for number, label in enumerate(labels):
        start = time.perf_counter()
        render(domain, number, label["style"], label["scene"], 0, split="train", seed=0, size=64)
        times.append(time.perf_counter() - start)
    note = f"median {statistics.median(times) * 1e3:.1f}, {count} pictures, one core"
    return _held(f"tiny_world: drawing one {domain}", statistics.mean(times) * 1e3, "ms", 5, note)


def _tuning(steps: int) -> Figure:
    recipe = load("tiny", [f"method.personalize.steps={steps}"])
    backbone, clip, method = load_backbone(recipe.backbone), load_clip(recipe.clip), recipe.build_method()
    module = method.build(backbone, clip.dims)
    images = torch.rand(1, 3, recipe.backbone.resolution, recipe.backbone.resolution) * 2 - 1
    identity = Identity("one", images, clip.image_features(images)[0])
    (adapter,) = method.personalize(module, backbone, [identity])
    note = f"batch {recipe.method.personalize.batch_size}, {THREADS} threads"  # type: ignore[attr-defined]
    return _held("tiny_world: an E4T tuning step", adapter.meta["seconds"] / steps, "s", 0.8, note)


def _sampling(rounds: int) -> Figure:
    backbone = load_backbone(load("tiny").backbone)
    sampler = SamplerConfig(steps=20, guidance=3.0, scheduler="dpmsolver++")
    conditioning = TextConditioning(backbone, ["a photo of a person on the beach"] * 8)
    taken = [seconds(lambda: sample(backbone, conditioning, sampler, list(range(8)))) for _ in range(rounds + 1)]
    note = f"guidance {sampler.guidance:g}, decoding included, {THREADS} threads"
    return _held("tiny_world: 8 images in 20 steps", statistics.median(taken[1:]), "s", 3, note)


def _held(name: str, value: float, unit: str, bound: float, note: str) -> Figure:
    return Figure(name, value, unit, f"< {bound:g}", value < bound, note)
