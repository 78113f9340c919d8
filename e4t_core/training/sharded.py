"""ZeRO stage 1 (Rajbhandari et al. 2020): every rank keeps the optimizer's state and the weights' average of its own
share of the parameters, updates these, and gives the result to the others.

With AdamW that is 8 bytes of state a parameter divided by the number of ranks. Each update is computed by the one rank
with the same gradient that all have, so the weights are, bit for bit, those of the unsharded run. Checkpoints hold the
whole state, so any number of ranks, sharding or not, goes on from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Broadcast = Callable[[Tensor, int], None]
"""Overwrites a tensor on all ranks, in place, with that of the rank named."""
AllReduce = Callable[[Tensor], None]
"""Sums a tensor over ranks in place."""


def owners(sizes: Mapping[str, int], ranks: int) -> dict[str, int]:
    """Parameter -> the rank that keeps it: largest first, each to the rank that has least, the lowest of equals."""
    load, found = [0] * ranks, {}
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        rank = load.index(min(load))
        load[rank] += sizes[name]
        found[name] = rank
    return found


def share_out(
    tensors: Mapping[str, Tensor], owner: Mapping[str, int], broadcast: Broadcast, device: torch.device
) -> None:
    """Overwrite every tensor, on all ranks, with its owner's: one message for each owner and type of number.

    Args:
        tensors: the same names and shapes on every rank; any device.
        owner: name -> rank.
        broadcast: runs on ``device``.
    """
    groups: dict[tuple[int, torch.dtype], list[str]] = {}
    for name, tensor in tensors.items():
        groups.setdefault((owner[name], tensor.dtype), []).append(name)
    for (rank, _), names in sorted(groups.items(), key=lambda item: (item[0][0], str(item[0][1]))):
        flat = torch.cat([tensors[name].detach().to(device).flatten() for name in names])
        broadcast(flat, rank)
        for name, piece in zip(names, flat.split([tensors[n].numel() for n in names]), strict=True):
            tensors[name].detach().copy_(piece.view(tensors[name].shape))


def moments_of(state: Mapping[str, Tensor], parameter: Tensor) -> dict[str, Tensor]:
    """AdamW's state of a parameter on the CPU: what is there, or room for what its owner will send."""
    if state:
        return {key: torch.empty_like(t, device="cpu").copy_(t.detach()) for key, t in state.items()}
    empty = {key: torch.empty_like(parameter, device="cpu") for key in ("exp_avg", "exp_avg_sq")}
    return {"step": torch.zeros((), dtype=torch.float32), **empty}
