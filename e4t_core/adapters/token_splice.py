"""Token splice: embeddings of the caller's in place of a placeholder's, without touching any table.

E4T section 3.1 (``e_c`` takes the place of ``S*``); one batch may carry a different concept in every row.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


@contextlib.contextmanager
def token_splice(embedding: nn.Embedding, placeholder_id: int, vectors: Tensor) -> Iterator[None]:
    """Inside, ``embedding(ids_BT)`` gives ``vectors[b]`` wherever ``ids_BT[b] == placeholder_id``; of several vectors,
    (B, V, D), the first placeholder of a row takes the first, and the one after the last begins anew.

    The placeholder may lie beyond the table: such ids are looked up as 0 and then replaced, so every other row is
    what the table holds, bit for bit. Gradients flow into ``vectors``, (B, D) or (B, V, D).
    """
    masks: list[Tensor] = []

    def before(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        ids_BT, *rest = args
        masks.append(ids_BT == placeholder_id)
        return (ids_BT.masked_fill(masks[-1], 0), *rest)

    def after(_module: nn.Module, _args: tuple[Any, ...], rows_BTD: Tensor) -> Tensor:
        mask_BT = masks.pop()
        return torch.where(mask_BT[..., None], _placed(vectors, mask_BT).to(rows_BTD.dtype), rows_BTD)

    hooks = (embedding.register_forward_pre_hook(before), embedding.register_forward_hook(after))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _placed(vectors: Tensor, mask_BT: Tensor) -> Tensor:
    """(B, 1, D) or (B, T, D): at each placeholder the vector that belongs there; elsewhere it is of no interest."""
    if vectors.ndim == 2:
        return vectors[:, None]
    if len(vectors) != len(mask_BT):
        raise RuntimeError(f"vectors of {len(vectors)} rows for {len(mask_BT)} prompts")
    order_BT = (mask_BT.cumsum(1) - 1).clamp(min=0) % vectors.shape[1]
    return vectors.gather(1, order_BT[..., None].expand(-1, -1, vectors.shape[2]))
