"""LiDB, Lightweight DreamBooth (HyperDreamBooth 4.1): a rank-1 LoRA inside frozen random bases.

``dW = A_aux A_train B_train B_aux`` for a weight of M outputs and N inputs: A_aux (M, a) and B_aux (b, N) are
orthonormal and come from a seed, A_train (a, 1) and B_train (1, b) are an identity's own: a + b numbers a layer,
28,800 for the 192 layers of Stable Diffusion 1.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from e4t_core.adapters.bases import checksum, normals, orthonormal, same
from e4t_core.adapters.low_rank import LowRank
from e4t_core.backbones.base import Backbone, Projection, Role
from e4t_core.config import Config
from e4t_core.errors import CheckpointMismatch

Size = Annotated[int, Field(ge=1)]
PARTS = ("A_train", "B_train")
"""What an identity has of a layer, in the order of the flat form."""


class LiDBConfig(Config):
    """The space of an identity's weights.

    Attributes:
        a, b: dimensions of the bases on the side of the outputs and of the inputs (100 and 50, section 4.1); a layer
            with fewer outputs or inputs has so many.
        seed: of the bases and of the initial A_train, which all identities share.
    """

    a: Size = 100
    b: Size = 50
    seed: Annotated[int, Field(ge=0)] = 0


def lidb_projections(backbone: Backbone) -> dict[str, Projection]:
    """The layers that are personalized: attention q, k, v, out and the GEGLU projection of the denoiser, attention of
    the text encoder; 192 in Stable Diffusion 1.5, with 385,344 numbers as a rank-1 LoRA."""
    roles: tuple[Role, ...] = ("q", "k", "v", "out")
    return {**backbone.projections((*roles, "geglu"), ("unet",)), **backbone.projections(roles, ("text_encoder",))}


@dataclass(frozen=True)
class Space:
    """Where LiDB weights live: the layers, in order, and their frozen bases.

    Attributes:
        shapes: layer -> (M, N).
        config: sizes and seed.
    """

    shapes: Mapping[str, tuple[int, int]]
    config: LiDBConfig

    @classmethod
    def of(cls, backbone: Backbone, config: LiDBConfig) -> Space:
        """The space of a backbone's layers."""
        found = lidb_projections(backbone)
        return cls({n: (p.module.out_features, p.module.in_features) for n, p in found.items()}, config)

    def sizes(self, name: str) -> tuple[int, int]:
        """(a, b) of one layer."""
        outputs, inputs = self.shapes[name]
        return min(self.config.a, outputs), min(self.config.b, inputs)

    @property
    def numbers(self) -> int:
        """Of one identity."""
        return sum(sum(self.sizes(name)) for name in self.shapes)

    @cached_property
    def bases(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Layer -> float32 A_aux (M, a) and B_aux (b, N), on the CPU."""
        found = {}
        for name, (outputs, inputs) in self.shapes.items():
            a, b = self.sizes(name)
            up = orthonormal(self.config.seed, f"{name}/A_aux", outputs, a)
            down = orthonormal(self.config.seed, f"{name}/B_aux", inputs, b)
            found[name] = (torch.tensor(up).float(), torch.tensor(down).float().mT.contiguous())
        return found

    @cached_property
    def checksum(self) -> float:
        """Of all bases; stored with the weights, since these mean nothing in other bases."""
        return checksum(t.double().numpy() for pair in self.bases.values() for t in pair)

    def check(self, stored: float, where: str) -> None:
        """Refuse weights of other bases.

        Raises:
            CheckpointMismatch: the checksum differs by more than rounding.
        """
        if not same(stored, self.checksum):
            raise CheckpointMismatch(
                f"{where} was made in other LiDB bases (checksum {stored}) than seed {self.config.seed} gives here "
                f"({self.checksum}); its numbers mean nothing in these: use the backbone and e4t that it was made with"
            )

    def initial(self, identities: int) -> dict[str, Tensor]:
        """``<layer>.A_train`` (K, a) and ``<layer>.B_train`` (K, b) to start from: the same for every identity, so that
        all live in one gauge; B_train = 0, so dW = 0. A_train has expected length 1."""
        start = {}
        for name in self.shapes:
            a, b = self.sizes(name)
            drawn = torch.from_numpy(normals(self.config.seed, f"{name}/A_train", a)).float() / a**0.5
            start[f"{name}.A_train"] = drawn.repeat(identities, 1)
            start[f"{name}.B_train"] = torch.zeros(identities, b)
        return start

    def flat(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """(..., P) of the tensors of :meth:`initial`, with or without K: layers in order, each A_train then B_train."""
        return torch.cat([tensors[f"{name}.{part}"] for name in self.shapes for part in PARTS], dim=-1)

    def unflat(self, flat_KP: Tensor) -> dict[str, Tensor]:
        """The inverse of :meth:`flat`: views.

        Raises:
            CheckpointMismatch: not as many numbers as this space has.
        """
        if flat_KP.shape[-1] != self.numbers:
            raise CheckpointMismatch(
                f"LiDB weights of {flat_KP.shape[-1]} numbers do not fit: {len(self.shapes)} layers with a = "
                f"{self.config.a} and b = {self.config.b} have {self.numbers}"
            )
        sizes = [size for name in self.shapes for size in self.sizes(name)]
        return dict(zip(self._names, flat_KP.split(sizes, dim=-1), strict=True))

    @cached_property
    def _names(self) -> list[str]:
        return [f"{name}.{part}" for name in self.shapes for part in PARTS]

    def expand(self, trained: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> dict[str, LowRank]:
        """Layer -> its rank-1 LoRA ``(A_aux A_train) (B_train B_aux)`` for K identities; differentiable.

        Computed in the numbers' own precision whatever autocast is on; layers of one size in one product.

        Args:
            trained: as :meth:`initial` gives them, on any device.
            dtype: of what is given; None leaves it as it is computed.
        """
        device = next(iter(trained.values())).device
        found: dict[str, Tensor] = {}
        with torch.autocast(device.type, enabled=False):
            for names, bases_Gso in self._stacked(device):
                numbers_GKs = torch.stack([trained[name] for name in names])
                factors_GKo = torch.bmm(numbers_GKs, bases_Gso.to(numbers_GKs.dtype)).to(dtype)
                found.update(zip(names, factors_GKo.unbind(), strict=True))
        up, down = PARTS
        return {
            name: LowRank(found[f"{name}.{up}"].unsqueeze(2), found[f"{name}.{down}"].unsqueeze(1))
            for name in self.shapes
        }

    def _stacked(self, device: torch.device) -> list[tuple[tuple[str, ...], Tensor]]:
        """Names of trained tensors of one size, with their bases (G, s, o): s numbers make o of a factor."""
        if device not in self._on_devices:
            groups: dict[tuple[int, ...], list[tuple[str, Tensor]]] = {}
            for name, bases in self.bases.items():
                for part, basis_so in zip(PARTS, (bases[0].mT, bases[1]), strict=True):
                    groups.setdefault(tuple(basis_so.shape), []).append((f"{name}.{part}", basis_so))
            self._on_devices[device] = [
                (tuple(name for name, _ in group), torch.stack([basis for _, basis in group]).to(device))
                for group in groups.values()
            ]
        return self._on_devices[device]

    @cached_property
    def _on_devices(self) -> dict[torch.device, list[tuple[tuple[str, ...], Tensor]]]:
        return {}
