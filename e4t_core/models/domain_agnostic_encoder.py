"""The domain-agnostic tuning encoder: spatial CLIP and UNet features to a word embedding and LoRA weights
(Arar et al. 2023, section 4.1, fig. 2)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from e4t_core.errors import DataError
from e4t_core.models.linear import seeded_linear

Device = torch.device | str
_GROUPS = 8


class DomainAgnosticEncoder(nn.Module):
    """``E(I_c, x_t, t)``: one convolutional trunk, a token embedder and a hypernetwork.

    Args:
        clip_width: D of the CLIP patch tokens.
        mid_width: channels of the UNet's mid block.
        token_width: of a word embedding.
        layers: LoRA tensors that the hypernetwork predicts, ``<layer>.up`` (M, r) and ``<layer>.down`` (r, N), in the
            order of its output; empty: there is no hypernetwork (ablation).
        width: channels of the trunk, a multiple of 8.
        blocks: stride-2 convolutions in it.
        hyper_width: inner width of the hypernetwork.
        rng: where the initial weights come from. The token embedder starts at 0, and so does the layer that predicts
            ``up`` (the paper's B), so that at step 0 nothing is changed.
        device: ``cpu`` or ``meta``.
    """

    def __init__(
        self,
        clip_width: int,
        mid_width: int,
        token_width: int,
        layers: Mapping[str, tuple[int, ...]],
        *,
        width: int,
        blocks: int,
        hyper_width: int,
        rng: torch.Generator,
        device: Device = "cpu",
    ) -> None:
        super().__init__()
        self.trunk = Trunk(clip_width, mid_width, width, blocks, rng, device)
        self.token = seeded_linear(width, token_width, rng, zero=True, device=device)
        self.hypernetwork = HyperHead(width, layers, hyper_width, rng, device) if layers else None

    def forward(self, tokens_BTD: Tensor, mid_BFhw: Tensor) -> tuple[Tensor, Tensor | None]:
        """Predict from one image and one noise level.

        Args:
            tokens_BTD: CLIP patch tokens of the last layer, row by row of their square grid.
            mid_BFhw: UNet mid block features under the empty prompt.

        Returns:
            (B, token_width) what is added to the start embedding, before its scale; and (B, P) LoRA tensors in flat
            form, or None without a hypernetwork. Both float32.
        """
        pooled_BW = self.trunk(tokens_BTD, mid_BFhw)
        lora_BP = None if self.hypernetwork is None else self.hypernetwork(pooled_BW).float()
        return self.token(pooled_BW).float(), lora_BP


class Trunk(nn.Module):
    """Both feature maps on CLIP's grid, summed after a linear each, then stride-2 convolutions and a mean over space.

    Features are normalized over channels at each place, because CLIP's and the UNet's scales have nothing in common.
    """

    def __init__(
        self, clip_width: int, mid_width: int, width: int, blocks: int, rng: torch.Generator, device: Device
    ) -> None:
        super().__init__()
        self.clip = seeded_linear(clip_width, width, rng, device=device)
        self.unet = seeded_linear(mid_width, width, rng, device=device)
        self.convolutions = nn.ModuleList(_seeded_conv(width, rng, device) for _ in range(blocks))
        self.norms = nn.ModuleList(nn.GroupNorm(_GROUPS, width, device=device) for _ in range(blocks))

    def forward(self, tokens_BTD: Tensor, mid_BFhw: Tensor) -> Tensor:
        """(B, width)."""
        side = _side(tokens_BTD)
        mid_BFss = F.interpolate(mid_BFhw.float(), size=(side, side), mode="bilinear", align_corners=False)
        joined_BTW = self.clip(_normed(tokens_BTD)) + self.unet(_normed(mid_BFss.flatten(2).mT))
        x_BWss = F.leaky_relu(joined_BTW).mT.unflatten(2, (side, side))
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x_BWss = F.leaky_relu(norm(convolution(x_BWss)))
        return x_BWss.mean(dim=(2, 3))


class HyperHead(nn.Module):
    """From the trunk's vector to LoRA's factors A and B (eq. 2) of every layer, in LoRA's flat order.

    ``down`` (A, in the paper's naming) starts as LoRA's does, uniform in +-1/sqrt(N), plus what the image adds on the
    same scale; ``up`` starts at 0.
    """

    _order_P: Tensor
    _unit: Tensor

    def __init__(
        self, width: int, layers: Mapping[str, tuple[int, ...]], inner: int, rng: torch.Generator, device: Device
    ) -> None:
        super().__init__()
        sizes = {name: math.prod(shape) for name, shape in layers.items()}
        ups = {name: size for name, size in sizes.items() if name.endswith(".up")}
        downs = {name: size for name, size in sizes.items() if not name.endswith(".up")}
        self.inner = seeded_linear(width, inner, rng, device=device)
        self.down = seeded_linear(inner, sum(downs.values()), rng, device=device)
        nn.init.uniform_(self.down.bias, -1, 1, generator=rng)
        self.up = seeded_linear(inner, sum(ups.values()), rng, zero=True, device=device)
        unit = torch.cat([torch.full((size,), layers[name][-1] ** -0.5, device=device) for name, size in downs.items()])
        self.register_buffer("_unit", unit, persistent=False)
        self.register_buffer("_order_P", _order(sizes, [*downs, *ups], device), persistent=False)

    def forward(self, pooled_BW: Tensor) -> Tensor:
        """(B, P) float32."""
        h = F.leaky_relu(self.inner(pooled_BW))
        predicted = torch.cat([self.down(h).float() * self._unit, self.up(h).float()], dim=1)
        return predicted[:, self._order_P]


def _order(sizes: Mapping[str, int], given: list[str], device: Device) -> Tensor:
    """(P,) where each number of the flat form stands when tensors come in the order ``given``."""
    starts, at = {}, 0
    for name in given:
        starts[name], at = at, at + sizes[name]
    return torch.cat([torch.arange(starts[n], starts[n] + size, device=device) for n, size in sizes.items()])


def _normed(x: Tensor) -> Tensor:
    return F.layer_norm(x.float(), x.shape[-1:])


def _side(tokens_BTD: Tensor) -> int:
    """The patch grid's side.

    Raises:
        DataError: it is no square.
    """
    count = tokens_BTD.shape[1]
    side = math.isqrt(count)
    if side * side != count:
        raise DataError(f"{count} patch tokens an image do not make a square grid; run stages.clip with a square input")
    return side


def _seeded_conv(width: int, rng: torch.Generator, device: Device) -> nn.Conv2d:
    """A 3 x 3 convolution of stride 2 with PyTorch's usual initial values, from ``rng``."""
    layer: nn.Conv2d = nn.utils.skip_init(nn.Conv2d, width, width, 3, stride=2, padding=1, device=device)
    bound = (9 * width) ** -0.5
    for tensor in (layer.weight, layer.bias):
        if tensor is not None:
            nn.init.uniform_(tensor, -bound, bound, generator=rng)
    return layer
