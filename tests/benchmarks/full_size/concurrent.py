"""Identities tuned at once against one by one at full size: LiDB weights, one sample a step."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.flop_counter import FlopCounterMode

from e4t_core.adapters.concurrent import TuneConfig, tune
from e4t_core.adapters.lidb import LiDBConfig, Space
from e4t_core.adapters.tunable import LiDBWeights
from tests.benchmarks.concurrent import IDENTITIES_OF_USE, PAPERS_HOURS, plain_loop, subject_of_noise
from tests.benchmarks.full_size.rig import Rig
from tests.benchmarks.measure import Figure, ratio

AT_ONCE = (1, 4, 8, 16, 32, 64)
STEPS = 10
STEPS_OF_USE = 400
"""Of the targets of ``hyperdreambooth_sd15``."""


def run(rig: Rig) -> Iterator[Figure]:
    """An identity's step for every K, memory beside it, and the share of the matrix units' peak."""
    backbone, steps = rig.backbone, rig.few(STEPS)
    weights = LiDBWeights(backbone, Space.of(backbone, LiDBConfig()))
    subjects = [subject_of_noise(backbone, n) for n in range(rig.few(max(AT_ONCE)))]
    peak = matrix_peak(rig)
    yield Figure("matrix product, bf16", peak / 1e12, "TFLOP/s", note="8192 x 8192 x 8192, or 512 if small")

    def tuned(count: int, taken: int) -> None:
        config = TuneConfig(steps=taken, lr=1e-3, identities=count, probe=1, precision="bf16")
        list(tune(backbone, weights, subjects[:count], config))

    plain_loop(backbone, weights.space, subjects[0], 2, torch.bfloat16)
    alone = rig.seconds(lambda: plain_loop(backbone, weights.space, subjects[0], steps, torch.bfloat16)) / steps
    yield Figure("LiDB tuning, plain loop, batch 1", 3600 / alone / STEPS_OF_USE, "1/h", note=_note(alone))
    tuned(1, 1)
    with FlopCounterMode(display=False) as counted:
        tuned(1, 1)
    # a step, and a probe's forward pass before and after
    flops = counted.get_total_flops() * _STEP / (_STEP + 2)
    best: tuple[float, int] | None = None
    for count in sorted({rig.few(k) for k in AT_ONCE}):
        tuned(count, 1)
        rig.fresh()
        probes = rig.seconds(lambda k=count: tuned(k, 1))  # type: ignore[misc]
        both = rig.seconds(lambda k=count: tuned(k, 1 + steps))  # type: ignore[misc]
        each = (both - probes) / (steps * count)
        best = min(best or (each, count), (each, count))
        share = flops / each / peak
        yield Figure(
            f"LiDB tuning, {count} at once", 3600 / each / STEPS_OF_USE, "1/h",
            note=f"{_note(each)}, {share:.0%} of the matrix peak, peak {rig.peak_gb():.1f} GB",
        )  # fmt: skip
        if count == 1:
            alone = min(alone, each)
    assert best is not None
    each, count = best
    yield ratio(f"LiDB tuning: {count} at once / one by one at batch 1", alone / each, ">= 5", "the faster one-by-one")
    hours = IDENTITIES_OF_USE * STEPS_OF_USE * each / 3600
    yield Figure(
        f"{IDENTITIES_OF_USE:,} identities of {STEPS_OF_USE} steps", hours, "h",
        note=f"{count} at once; the paper's way: {PAPERS_HOURS:,.0f} GPU-hours",
    )  # fmt: skip


_STEP = 2
"""Passes of a step in units of one forward pass: backward computes gradients of activations, and hardly any of weights,
because the network is frozen."""


def matrix_peak(rig: Rig) -> float:
    """FLOP/s of a large product of random bfloat16 matrices."""
    side = 512 if rig.small else 8192
    a, b = (torch.randn(side, side, device=rig.device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    times = 2 if rig.small else 20
    taken = rig.seconds(lambda: [a @ b for _ in range(times)])
    return 2 * side**3 * times / taken


def _note(each: float) -> str:
    return f"{STEPS_OF_USE} steps each, {each * 1e3:.1f} ms an identity's step"
