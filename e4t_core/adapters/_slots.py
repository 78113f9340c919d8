"""Weights and optimizer states of the identities that are being tuned: one row each, and rows never mix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from e4t_core.adapters.subjects import TuneConfig

Rows = slice | Tensor
_TINY = 1e-6
"""Keeps the clip's division away from 0, as torch's own does."""


@dataclass
class Slots:
    """K identities; everything has K rows.

    Attributes:
        seeds_K: see :func:`e4t_core.adapters.streams.as_seeds`.
        steps_K: optimizer steps taken, int64.
        flat_KP: weights.
        start_KP: weights before the first step.
        good_KP: the last weights with which loss and gradient were finite.
        mean_KP, square_KP: AdamW's moments.
        diverged_K: the step at which loss or gradient was not finite, -1 while they are.
        losses_KS: of each step so far.
    """

    seeds_K: Tensor
    steps_K: Tensor
    flat_KP: Tensor
    start_KP: Tensor
    good_KP: Tensor
    mean_KP: Tensor
    square_KP: Tensor
    diverged_K: Tensor
    losses_KS: Tensor

    @classmethod
    def new(cls, seeds_K: Tensor, flat_KP: Tensor, steps: int) -> Slots:
        """Before the first of ``steps`` steps."""
        zeros_K, zeros_KP = torch.zeros_like(seeds_K), torch.zeros_like(flat_KP)
        losses_KS = flat_KP.new_zeros(len(flat_KP), steps)
        starts = (flat_KP.clone(), flat_KP.clone())
        return cls(
            seeds_K, zeros_K, flat_KP, *starts, zeros_KP, zeros_KP.clone(), zeros_K - 1, losses_KS
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.seeds_K)

    def of(self, rows: Rows) -> Slots:
        """Some of them."""
        return Slots(*(getattr(self, f.name)[rows] for f in fields(self)))

    def __add__(self, other: Slots) -> Slots:
        return Slots(*(torch.cat([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)))


class AdamW:
    """AdamW (Loshchilov & Hutter 2019) with a step count, a rate, a clip and a check of its own for every row.

    The arithmetic is that of :class:`torch.optim.AdamW`, a row at a time.
    """

    def __init__(self, config: TuneConfig, device: torch.device) -> None:
        self.config = config
        self.rates_S = torch.tensor(learning_rates(config), device=device)

    @torch.no_grad()
    def step(self, slots: Slots, loss_K: Tensor, grad_KP: Tensor) -> None:
        """One step of every row. A row whose loss or gradient is not finite is marked once and for all; what becomes
        of its weights then is of no interest, its good ones stay."""
        config, (beta1, beta2) = self.config, self.config.betas
        norm_K = torch.linalg.vector_norm(grad_KP, dim=1)
        finite_K = loss_K.isfinite() & norm_K.isfinite()
        running_K = slots.diverged_K < 0
        slots.diverged_K.copy_(torch.where(running_K & ~finite_K, slots.steps_K, slots.diverged_K))
        slots.good_KP.copy_(torch.where((running_K & finite_K)[:, None], slots.flat_KP, slots.good_KP))
        slots.losses_KS.scatter_(1, slots.steps_K[:, None], loss_K[:, None])

        if config.grad_clip is not None:
            grad_KP = grad_KP * (config.grad_clip / (norm_K + _TINY)).clamp(max=1.0)[:, None]
        rate_K1 = self.rates_S[slots.steps_K][:, None]
        slots.steps_K += 1
        count_K1 = slots.steps_K[:, None].double()
        small1_K1, small2_K1 = ((1 - beta**count_K1).float() for beta in (beta1, beta2))
        slots.mean_KP.lerp_(grad_KP, 1 - beta1)
        slots.square_KP.mul_(beta2).addcmul_(grad_KP, grad_KP, value=1 - beta2)
        if config.weight_decay:
            slots.flat_KP.mul_(1 - rate_K1 * config.weight_decay)
        scale_KP = slots.square_KP.sqrt().div_(small2_K1.sqrt()).add_(config.eps)
        slots.flat_KP.sub_((slots.mean_KP * (rate_K1 / small1_K1)).div_(scale_KP))


def learning_rates(config: TuneConfig) -> list[float]:
    """The rate of each 0-based step: a linear warm-up, then the schedule over what is left."""

    def fall(share: float) -> float:
        if config.schedule == "constant":
            return 1.0
        return 1.0 - share if config.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * share))

    warm = config.warmup_steps
    left = max(config.steps - warm, 1)
    return [config.lr * ((s + 1) / warm if s < warm else fall((s - warm) / left)) for s in range(config.steps)]


def rows_of(rows: Sequence[int], device: torch.device) -> Tensor:
    """An index."""
    return torch.tensor(rows, dtype=torch.int64, device=device)
