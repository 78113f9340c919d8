"""Identities tuned at once on one frozen model against one by one: LiDB weights on the tiny stack, one sample a step.

Both sides are the same code with the same threads, steps, noise and start, and end at the same loss. A step of one
identity leaves most of a machine unused; what K at once gain is that, and the bound is what the frozen model alone
gains from a batch of K.
"""

from __future__ import annotations

import torch

from e4t_core.adapters.concurrent import Subject, TuneConfig, Tuned, tune
from e4t_core.adapters.lidb import LiDBConfig, Space
from e4t_core.adapters.tunable import LiDBWeights
from e4t_core.backbones import load_backbone
from e4t_core.backbones.base import Backbone
from e4t_core.backbones.config import BackboneConfig
from tests.benchmarks.measure import Figure, interleaved, ratio

AT_ONCE = (1, 4, 8, 16)
THREADS = 2
STEPS_OF_USE = 300
"""Of one identity, for figures per hour."""
IDENTITIES_OF_USE = 15_000
PAPERS_HOURS = IDENTITIES_OF_USE * 5 / 60
"""5 minutes of one GPU for each (HyperDreamBooth section 5)."""


def run(quick: bool) -> list[Figure]:
    """Identities per hour for every K, and the best K against one by one."""
    torch.set_num_threads(THREADS)
    backbone = load_backbone(BackboneConfig(path="bundled:tiny", resolution=64))
    weights = LiDBWeights(backbone, Space.of(backbone, LiDBConfig()))
    subjects = [_subject(backbone, number) for number in range(max(AT_ONCE))]
    steps, rounds = (4, 1) if quick else (12, 3)
    found: dict[int, dict[str, Tuned]] = {}

    def tuned(at_once: int, count: int) -> None:
        config = TuneConfig(steps=count, lr=1e-3, identities=at_once, probe=1)
        found[at_once] = {one.id: one for one in tune(backbone, weights, subjects, config)}

    for at_once in AT_ONCE:  # kernels choose their plans, caches fill
        tuned(at_once, 1)
    times = interleaved({str(k): lambda k=k: tuned(k, steps) for k in AT_ONCE}, rounds)  # type: ignore[misc]
    return _figures({int(k): t / (len(subjects) * steps) for k, t in times.items()}, steps, _apart(found))


def _figures(step: dict[int, float], steps: int, apart: float) -> list[Figure]:
    """From seconds of an identity's step for each K."""
    best = min(step, key=lambda k: step[k])
    note = f"{THREADS} threads, {steps} steps measured; final losses differ by {apart:.1e} at most"
    per_hour = [
        Figure(
            f"identities per hour, {k} at once", 3600 / (step[k] * STEPS_OF_USE), "1/h",
            note=f"{STEPS_OF_USE} steps each, {step[k] * 1e3:.1f} ms an identity's step",
        )
        for k in AT_ONCE
    ]  # fmt: skip
    hours = IDENTITIES_OF_USE * STEPS_OF_USE * step[best] / 3600
    return [
        *per_hour,
        ratio(f"identities tuned at once: {best} / one by one", step[1] / step[best], ">= 1.6", note),
        Figure(
            f"{IDENTITIES_OF_USE:,} identities of {STEPS_OF_USE} steps, tiny stack on this machine", hours, "h",
            note=f"{best} at once; the paper's way at full size: {PAPERS_HOURS:,.0f} GPU-hours",
        ),
    ]  # fmt: skip


def _apart(found: dict[int, dict[str, Tuned]]) -> float:
    """The largest relative difference of an identity's last loss between one by one and any K."""
    alone = found[1]
    return max(
        abs(one.loss_after - alone[name].loss_after) / alone[name].loss_after
        for among in found.values()
        for name, one in among.items()
    )


def _subject(backbone: Backbone, number: int) -> Subject:
    """Noise for an image: what it shows costs nothing."""
    channels, h, w = backbone.latent_shape
    moments = torch.randn(1, 2 * channels, h, w, generator=torch.Generator().manual_seed(number))
    return Subject(str(number), number, moments, backbone.tokenize(["a photo of a face"]))
