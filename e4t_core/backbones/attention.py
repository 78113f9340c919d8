"""Which attention kernel a UNet computes with."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from torch import Tensor

_MOST_TOKENS = 1024
"""The most that the bench has measured: plain matrices keep all pairs of tokens for the backward pass."""


class FastestAttention:
    """A diffusers attention processor: the fused kernel, but plain matrices where CPUs train in bfloat16.

    There the fused kernel takes 1.0 to 2.7 times as long (`python -m tests.benchmarks attention`). Both compute the
    same, to rounding. ``hidden_states`` are (B, N, D), or (B, D, h, w) with N = hw; so is what comes out.
    """

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
