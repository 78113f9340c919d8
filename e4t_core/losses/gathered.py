"""Losses over samples that several workers hold: everybody sees all rows, and gradients find their way home."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def gathered(rows_BD: Tensor) -> Tensor:
    """(W * B, ...) the rows of all W workers, in order of rank; differentiable. Alone: ``rows_BD`` itself.

    A worker's rows get the gradients of every worker's loss, summed. So where each worker's loss is the mean over its
    own samples and gradients are averaged over workers, as data-parallel training does, loss and gradient are those of
    the whole batch, however many share it.

    Every worker must call it as often and with as many rows.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return rows_BD
    out: Tensor = _Gather.apply(rows_BD)
    return out


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows_BD: Tensor) -> Tensor:
        ctx.count = len(rows_BD)
        parts = [torch.empty_like(rows_BD, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows_BD.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        summed = grads[0].contiguous().clone()
        dist.all_reduce(summed)
        start = dist.get_rank() * ctx.count
        return summed[start : start + ctx.count]
