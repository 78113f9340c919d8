"""One of four workers that share a batch, first all, then two of them, then one:
``python -m tests.domain_agnostic.sharing RANK FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor

from e4t_core.losses.nearest_tokens import contrastive_loss, nearest_tokens

BATCH, K, TAU = 8, 3, 0.1


def share(rank: int, world: int) -> dict[str, Tensor]:
    """Mean loss of this worker's part of a fixed batch, and the gradient of a small encoder's weights."""
    g = torch.Generator().manual_seed(0)
    table, images = torch.randn(40, 6, generator=g), torch.randn(BATCH, 5, generator=g)
    weight = torch.randn(6, 5, generator=g).requires_grad_()
    marks = torch.tensor([0, 1, 2, 3, 0, 5, 6, 3])  # two images come twice, in parts of different workers
    part = slice(rank * BATCH // world, (rank + 1) * BATCH // world)
    v = torch.tanh(images[part] @ weight.mT)
    near = nearest_tokens(v, table, K, excluded=(0, 1))
    loss = contrastive_loss(v, table[near], marks[part], TAU).mean()
    loss.backward()
    assert weight.grad is not None
    return {"loss": loss.detach(), "grad": weight.grad}


def averaged(found: dict[str, Tensor], world: int) -> dict[str, Tensor]:
    """Means over workers, as the training loop takes them of losses and gradients."""
    for tensor in found.values():
        dist.all_reduce(tensor)
        tensor /= world
    return found


def together(rank: int, world: int, folder: Path) -> None:
    """One of ``world`` workers."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet-{world}", rank=rank, world_size=world)
    try:
        found = averaged(share(rank, world), world)
        if rank == 0:
            save_file(found, folder / f"{world}.safetensors")
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    me = int(sys.argv[1])
    for count in (4, 2, 1):
        if me < count:
            together(me, count, Path(sys.argv[2]))
