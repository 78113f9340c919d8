"""Which attention kernel a UNet computes with."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from torch import Tensor

_MOST_TOKENS = 1024
"""Above it the matrix of all pairs costs more memory than the kernel costs time."""


class FastestAttention:
    """The fused kernel, but plain matrices where CPUs train in bfloat16: there the fused kernel takes 1.3 to 2.7 times
    as long up to 256 tokens, as long at 1,024 (`python -m tests.benchmarks attention`). Both compute the same."""

    def __init__(self) -> None:
        self._fused, self._plain = AttnProcessor2_0(), AttnProcessor()

    def __call__(self, attn: Attention, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        chosen = self._plain if _plain_is_faster(hidden_states) else self._fused
        out: Tensor = chosen(attn, hidden_states, *args, **kwargs)
        return out


def _plain_is_faster(x: Tensor) -> bool:
    if x.device.type != "cpu" or not torch.is_grad_enabled():
        return False
    half = x.dtype == torch.bfloat16
    if torch.is_autocast_enabled("cpu"):
        half = torch.get_autocast_dtype("cpu") == torch.bfloat16
    tokens = x.shape[1] if x.ndim == 3 else x.shape[-2] * x.shape[-1]
    return half and tokens <= _MOST_TOKENS
