"""The identity network, small enough to be written out by hand as ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ConvNorm(nn.Sequential):
    """Convolution without bias and batch normalisation, which fold into one convolution."""

    def __init__(self, into: int, out: int, size: int, stride: int) -> None:
        conv = nn.Conv2d(into, out, size, stride, size // 2, bias=False)
        norm = nn.BatchNorm2d(out)
        super().__init__(conv, norm)

    @torch.no_grad()
    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the one convolution that does the same in evaluation mode: ``W g / s, b - m g / s``."""
        conv, norm = self._layers()
        gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        return conv.weight * gain.view(-1, 1, 1, 1), norm.bias - norm.running_mean * gain

    def _layers(self) -> tuple[Any, Any]:
        return self[0], self[1]

    @torch.no_grad()
    def unfold(self, weight: Tensor, bias: Tensor) -> None:
        """Take over what :meth:`folded` gave, under statistics of zero mean and unit variance."""
        conv, norm = self._layers()
        conv.weight.copy_(weight)
        norm.weight.fill_(1.0)
        norm.bias.copy_(bias)
        norm.running_mean.zero_()
        norm.running_var.fill_(1.0 - norm.eps)


class Residual(nn.Module):
    """``relu(short(x) + norm(conv(relu(norm(conv(x))))))`` (He et al. 2016)."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = ConvNorm(into, out, 3, stride)
        self.second = ConvNorm(out, out, 3, 1)
        self.short = ConvNorm(into, out, 1, stride) if stride != 1 or into != out else None

    def forward(self, x_BChw: Tensor) -> Tensor:
        short = x_BChw if self.short is None else self.short(x_BChw)
        return F.relu(short + self.second(F.relu(self.first(x_BChw))))


class IdentityNet(nn.Module):
    """(B, 3, S, S) in [-1, 1] -> (B, width), not normalised.

    A strided stem, a residual block a stage (each but the first halves the side), and a linear layer over all that is
    left: a face's parts are told apart by where they are, so nothing is pooled (ArcFace section 3.1).
    """

    def __init__(self, channels: Sequence[int], width: int, size: int) -> None:
        super().__init__()
        self.size, self.width = size, width
        self.stem = ConvNorm(3, channels[0], 3, 2)
        before = [channels[0], *channels[:-1]]
        strides = [1] + [2] * (len(channels) - 1)
        self.blocks = nn.ModuleList(Residual(i, o, s) for i, o, s in zip(before, channels, strides, strict=True))
        side = size // 2 ** len(channels)
        self.linear = nn.Linear(channels[-1] * side * side, width)

    def forward(self, x_B3hw: Tensor) -> Tensor:
        x = F.relu(self.stem(x_B3hw))
        for block in self.blocks:
            x = block(x)
        return self.linear(x.flatten(1))
