"""HyperDreamBooth's hypernetwork: image tokens to the weights of every layer (HyperDreamBooth section 4.2, fig. 3)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from e4t_core.models.linear import seeded_linear

Device = torch.device | str


class HyperNetwork(nn.Module):
    """``theta_k = theta_{k-1} + T(f, theta_{k-1})``, theta_0 = 0 (eq. 3): image features once, s rounds of refinement.

    One sequence holds the image tokens and a token for every piece of theta; two transformer blocks let all of them
    see each other. Pieces share no coordinates, because each lives in a random basis of its own, so each has its own
    linear layer into its token and out of it, and its own positional embedding.

    Args:
        image_width: D of the image tokens.
        sizes: numbers in each piece of theta, in order; their sum is P.
        width: of the transformer, a multiple of ``heads``.
        heads: attention heads.
        blocks: transformer blocks.
        iterations: s.
        unit: typical size of a number of theta: blocks see theta / unit, and outputs are multiples of it.
        rng: where the initial weights come from. The last layers start at zero, so theta is 0 at step 0.
        device: ``cpu`` or ``meta``.
    """

    def __init__(
        self,
        image_width: int,
        sizes: Sequence[int],
        *,
        width: int,
        heads: int,
        blocks: int,
        iterations: int,
        unit: float,
        rng: torch.Generator,
        device: Device = "cpu",
    ) -> None:
        super().__init__()
        self.iterations, self.unit, self.pieces = iterations, unit, len(sizes)
        self.image = seeded_linear(image_width, width, rng, device=device)
        self.position_LD = nn.Parameter(torch.empty(len(sizes), width, device=device))
        nn.init.normal_(self.position_LD, std=0.02, generator=rng)
        self.read = PieceLinears(sizes, width, rng, outward=False, device=device)
        self.blocks = nn.ModuleList(_seeded_block(width, heads, rng, device) for _ in range(blocks))
        self.norm: nn.LayerNorm = nn.utils.skip_init(nn.LayerNorm, width, device=device)
        self.norm.reset_parameters()
        self.write = PieceLinears(sizes, width, rng, outward=True, device=device)

    def forward(self, tokens_BTD: Tensor) -> Tensor:
        """Predict theta.

        Args:
            tokens_BTD: the image's tokens, of any scale.

        Returns:
            (B, P) theta after the last iteration, float32.
        """
        image_BTD = self.image(F.layer_norm(tokens_BTD.float(), tokens_BTD.shape[2:]))
        theta_BP = tokens_BTD.new_zeros(len(tokens_BTD), self.write.numbers, dtype=torch.float32)
        for _ in range(self.iterations):
            theta_BP = theta_BP + self._delta(image_BTD, theta_BP)
        return theta_BP

    def _delta(self, image_BTD: Tensor, theta_BP: Tensor) -> Tensor:
        """``T(f, theta)``."""
        weights_BLD = self.position_LD + self.read(theta_BP / self.unit)
        x = torch.cat([image_BTD.float(), weights_BLD.float()], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.write(self.norm(x[:, -self.pieces :])).float() * self.unit


class PieceLinears(nn.Module):
    """A linear layer for every piece of a flat vector, into its token or out of it; pieces of one size at once.

    Args:
        sizes: numbers in each piece, in order; L pieces, P numbers in all.
        width: D of a token.
        rng: where the initial values of inward layers come from.
        outward: from tokens to pieces, with a bias, starting at zero; else from pieces to tokens, without.
        device: ``cpu`` or ``meta``.
    """

    _tokens_L: Tensor
    _numbers_P: Tensor

    def __init__(
        self, sizes: Sequence[int], width: int, rng: torch.Generator, *, outward: bool, device: Device
    ) -> None:
        super().__init__()
        self.outward, self.numbers = outward, sum(sizes)
        starts = [0, *accumulate(sizes)]
        groups = {n: [i for i, size in enumerate(sizes) if size == n] for n in sorted(set(sizes))}
        self.shapes = [(len(group), n) for n, group in groups.items()]
        tokens = [i for group in groups.values() for i in group]
        numbers = [starts[i] + j for n, group in groups.items() for i in group for j in range(n)]
        # pieces grouped by size: where each token and number of the given order is found
        self.register_buffer("_tokens_L", torch.tensor(tokens, device=device), persistent=False)
        self.register_buffer("_numbers_P", torch.tensor(numbers, device=device), persistent=False)
        self.weights = nn.ParameterList(
            nn.Parameter(torch.empty((g, width, n) if outward else (g, n, width), device=device))
            for g, n in self.shapes
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(g, n, device=device)) for g, n in self.shapes * outward)
        for (_, n), weight in zip(self.shapes, self.weights, strict=True):
            nn.init.uniform_(weight, -(n**-0.5), n**-0.5, generator=rng)
            if outward:
                nn.init.zeros_(weight)

    def forward(self, x: Tensor) -> Tensor:
        """Outward: (B, L, D) tokens to (B, P) numbers; inward: the other way."""
        return self._out(x) if self.outward else self._in(x)

    def _in(self, flat_BP: Tensor) -> Tensor:
        grouped = flat_BP[:, self._numbers_P].split([g * n for g, n in self.shapes], dim=1)
        pieces = [x.unflatten(1, shape) for x, shape in zip(grouped, self.shapes, strict=True)]
        tokens = [torch.einsum("bgn,gnd->bgd", x, w) for x, w in zip(pieces, self.weights, strict=True)]
        return torch.cat(tokens, dim=1)[:, self._tokens_L.argsort()]

    def _out(self, tokens_BLD: Tensor) -> Tensor:
        grouped = tokens_BLD[:, self._tokens_L].split([g for g, _ in self.shapes], dim=1)
        pieces = [
            (torch.einsum("bgd,gdn->bgn", x, w) + b).flatten(1)
            for x, w, b in zip(grouped, self.weights, self.biases, strict=True)
        ]
        return torch.cat(pieces, dim=1)[:, self._numbers_P.argsort()]


def _seeded_block(width: int, heads: int, rng: torch.Generator, device: Device) -> nn.Module:
    """PyTorch's pre-norm transformer block whose initial values come from ``rng``."""
    block = nn.utils.skip_init(
        nn.TransformerEncoderLayer,
        width,
        heads,
        4 * width,
        dropout=0.0,
        activation="gelu",
        batch_first=True,
        norm_first=True,
        device=device,
    )
    for name, parameter in block.named_parameters():
        if parameter.dim() > 1:
            bound = parameter.shape[1] ** -0.5
            nn.init.uniform_(parameter, -bound, bound, generator=rng)
        else:
            nn.init.constant_(parameter, float(name.startswith("norm") and name.endswith("weight")))
    return block
