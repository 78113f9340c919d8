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
def token_splice(embedding: nn.Embedding, placeholder_id: int, vectors_BD: Tensor) -> Iterator[None]:
    """Inside, ``embedding(ids_BT)`` gives ``vectors_BD[b]`` wherever ``ids_BT[b] == placeholder_id``.

    The placeholder may lie beyond the table: such ids are looked up as 0 and then replaced, so every other row is
    what the table holds, bit for bit. Gradients flow into ``vectors_BD``.
    """
    masks: list[Tensor] = []

    def before(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        ids_BT, *rest = args
        masks.append(ids_BT == placeholder_id)
        return (ids_BT.masked_fill(masks[-1], 0), *rest)

    def after(_module: nn.Module, _args: tuple[Any, ...], rows_BTD: Tensor) -> Tensor:
        return torch.where(masks.pop()[..., None], vectors_BD[:, None].to(rows_BTD.dtype), rows_BTD)

    hooks = (embedding.register_forward_pre_hook(before), embedding.register_forward_hook(after))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
