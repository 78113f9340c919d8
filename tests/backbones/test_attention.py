"""The attention kernel: which one computes, and that it makes no difference to the result."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor

from e4t_core.backbones.attention import FastestAttention
from e4t_core.backbones.base import Backbone


@pytest.fixture
def layer() -> Attention:
    torch.manual_seed(0)
    return Attention(32, cross_attention_dim=24, heads=2, dim_head=16)


def tokens(count: int = 20) -> tuple[Tensor, Tensor]:
    return torch.randn(2, count, 32, requires_grad=True), torch.randn(2, 7, 24)


class Spy(FastestAttention):
    """Says which kernel ran."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[str] = []
        for name in ("_fused", "_plain"):
            setattr(self, name, self._watched(name, getattr(self, name)))

    def _watched(self, name: str, kernel: object) -> object:
        def call(*args: object, **kwargs: object) -> object:
            self.ran.append(name)
            return kernel(*args, **kwargs)  # type: ignore[operator]

        return call


def test_plain_matrices_only_where_cpus_train_in_bfloat16(layer: Attention) -> None:
    spy = Spy()
    x, text = tokens()
    spy(layer, x, text)
    with torch.autocast("cpu", torch.bfloat16):
        spy(layer, x, text)
        spy(layer, torch.randn(2, 1025, 32), text)  # too many pairs to keep
        with torch.no_grad():
            spy(layer, x, text)
    with torch.autocast("cpu", torch.float16):
        spy(layer, x, text)
    spy(layer.to(torch.bfloat16), x.bfloat16(), text.bfloat16())
    assert spy.ran == ["_fused", "_plain", "_fused", "_fused", "_fused", "_plain"]


def test_results_and_gradients_are_the_fused_kernels(layer: Attention) -> None:
    x, text = tokens()
    found = []
    for kernel in (FastestAttention(), AttnProcessor2_0()):
        with torch.autocast("cpu", torch.bfloat16):
            out = kernel(layer, x, text)
        (grad,) = torch.autograd.grad(out.float().square().sum(), x)
        found.append((out.detach().float(), grad))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=0.02, rtol=0.05)


def test_the_backbone_uses_it(backbone: Backbone) -> None:
    unet = backbone.unet  # type: ignore[attr-defined]
    assert {type(p) for p in unet.attn_processors.values()} == {FastestAttention}
