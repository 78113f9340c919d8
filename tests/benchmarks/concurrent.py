"""Identities tuned at once on one frozen model against one by one: LiDB weights on the tiny stack, one sample a step.

Both sides have the same threads, steps, samples and start, and with the engine at K = 1 the same noise and the same
last loss. The other one-by-one is a plain loop with hooks and torch's own optimizer, as one would write it for one
identity: the faster of the two is what K at once are measured against.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from e4t_core.adapters.concurrent import Subject, TuneConfig, Tuned, tune
from e4t_core.adapters.lidb import LiDBConfig, Space, lidb_projections
from e4t_core.adapters.tunable import LiDBWeights
from e4t_core.backbones import load_backbone
from e4t_core.backbones.base import Backbone
from e4t_core.backbones.config import BackboneConfig
from e4t_core.losses import diffusion_loss
from tests.benchmarks.measure import Figure, interleaved, ratio

AT_ONCE = (1, 4, 8, 16)
THREADS = 2
STEPS_OF_USE = 300
"""Of one identity, for figures per hour."""
IDENTITIES_OF_USE = 15_000
PLAIN = "plain loop"
PAPERS_HOURS = IDENTITIES_OF_USE * 5 / 60
"""5 minutes of one GPU for each (HyperDreamBooth section 5)."""


def run(quick: bool) -> list[Figure]:
    """Identities per hour for every K, and the best K against one by one."""
    torch.set_num_threads(THREADS)
    backbone = load_backbone(BackboneConfig(path="bundled:tiny", resolution=64))
    weights = LiDBWeights(backbone, Space.of(backbone, LiDBConfig()))
    subjects = [subject_of_noise(backbone, number) for number in range(max(AT_ONCE))]
    steps, rounds = (4, 1) if quick else (12, 3)
    found: dict[int, dict[str, Tuned]] = {}

    def tuned(at_once: int, count: int) -> None:
        config = TuneConfig(steps=count, lr=1e-3, identities=at_once, probe=1)
        found[at_once] = {one.id: one for one in tune(backbone, weights, subjects, config)}

    def plain(count: int) -> None:
        for subject in subjects:
            plain_loop(backbone, weights.space, subject, count)

    for at_once in AT_ONCE:  # kernels choose their plans, caches fill
        tuned(at_once, 1)
    plain(1)
    calls: dict[str, Callable[[], object]] = {str(k): lambda k=k: tuned(k, steps) for k in AT_ONCE}  # type: ignore[misc]
    times = interleaved(calls | {PLAIN: lambda: plain(steps)}, rounds)
    each = {name: seconds / (len(subjects) * steps) for name, seconds in times.items()}
    return _figures({k: each[str(k)] for k in AT_ONCE}, each[PLAIN], steps, _apart(found))


def _figures(step: dict[int, float], plain: float, steps: int, apart: float) -> list[Figure]:
    """From seconds of an identity's step for each K, and in the plain loop."""
    best = min(step, key=lambda k: step[k])
    alone = min(step[1], plain)
    note = f"{THREADS} threads, {steps} steps measured; final losses differ by {apart:.1e} at most"
    sides = {PLAIN: plain} | {f"{k} at once": step[k] for k in AT_ONCE}
    per_hour = [
        Figure(
            f"identities per hour, {name}", 3600 / (taken * STEPS_OF_USE), "1/h",
            note=f"{STEPS_OF_USE} steps each, {taken * 1e3:.1f} ms an identity's step",
        )
        for name, taken in sides.items()
    ]  # fmt: skip
    hours = IDENTITIES_OF_USE * STEPS_OF_USE * step[best] / 3600
    return [
        *per_hour,
        ratio(f"identities tuned at once: {best} / one by one", alone / step[best], ">= 1.6", note),
        Figure(
            f"{IDENTITIES_OF_USE:,} identities of {STEPS_OF_USE} steps, tiny stack on this machine", hours, "h",
            note=f"{best} at once; the paper's way at full size: {PAPERS_HOURS:,.0f} GPU-hours",
        ),
    ]  # fmt: skip


def plain_loop(
    backbone: Backbone, space: Space, subject: Subject, steps: int, dtype: torch.dtype = torch.float32
) -> None:
    """One identity tuned as one would write it for one: a parameter for each factor, a hook for each layer.

    Args:
        dtype: what autocast computes in.
    """
    device = backbone.device
    rng = torch.Generator(device).manual_seed(subject.seed)
    leaves = {name: t[0].to(device, copy=True).requires_grad_() for name, t in space.initial(1).items()}
    optimizer = torch.optim.AdamW(leaves.values(), lr=1e-3, weight_decay=0.0)
    schedule = backbone.schedule
    moments_12Chw = subject.moments_N2Chw.to(device)
    x0_BChw = backbone.to_latent(moments_12Chw, torch.zeros(1, *backbone.latent_shape, device=device))

    def added(name: str) -> Callable[[Any, tuple[Tensor], Tensor], Tensor]:
        a_aux, b_aux = (basis.to(device) for basis in space.bases[name])
        a_train, b_train = leaves[f"{name}.A_train"], leaves[f"{name}.B_train"]

        def hook(layer: Any, inputs: tuple[Tensor], out: Tensor) -> Tensor:
            return out + (inputs[0] @ (b_train @ b_aux)).unsqueeze(-1) * (a_aux @ a_train)

        return hook

    handles = [p.module.register_forward_hook(added(name)) for name, p in lidb_projections(backbone).items()]
    for _ in range(steps):
        eps = torch.randn(x0_BChw.shape, generator=rng, device=device)
        t_B = torch.randint(schedule.steps, (1,), generator=rng, device=device)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            text = backbone.encode_text(subject.ids_PT)
            said = backbone.denoise(schedule.add_noise(x0_BChw, eps, t_B), t_B, text)
        optimizer.zero_grad()
        diffusion_loss(said, schedule.target(x0_BChw, eps, t_B), None).mean().backward()
        optimizer.step()
    for handle in handles:
        handle.remove()


def _apart(found: dict[int, dict[str, Tuned]]) -> float:
    """The largest relative difference of an identity's last loss between one by one and any K."""
    alone = found[1]
    return max(
        abs(one.loss_after - alone[name].loss_after) / alone[name].loss_after
        for among in found.values()
        for name, one in among.items()
    )


def subject_of_noise(backbone: Backbone, number: int) -> Subject:
    """Noise for an image: what it shows costs nothing."""
    channels, h, w = backbone.latent_shape
    moments = torch.randn(1, 2 * channels, h, w, generator=torch.Generator().manual_seed(number))
    return Subject(str(number), number, moments, backbone.tokenize(["a photo of a face"]))
