"""Weight offsets dW of E4T (section 3.2) and the variants of its ablation (fig. 4b)."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from e4t_core.adapters.modulation import Factors, Modulated, modulated, modulated_per_sample
from e4t_core.backbones.base import Projection
from e4t_core.models.linear import seeded_linear

OffsetKind = Literal["regularized", "direct", "none", "hypernetwork"]
Device = torch.device | str


class Offset(nn.Module):
    """dW of one M x N weight, the same for every sample."""

    @abstractmethod
    def forward(self) -> Tensor:
        """(M, N) dW."""

    @abstractmethod
    def compact(self) -> dict[str, Tensor]:
        """The fewest tensors that give the same dW."""


class OffsetPrior(nn.Module):
    """dW of one M x N weight: v0 -> (v_y, v_x) -> outer product -> linear over rows -> linear over columns.

    ``dW = C (v_y v_x^T R^T + 1 r_b^T) + c_b 1^T`` with the row map (R, r_b) and the column map (C, c_b). That is
    exactly ``(C v_y)(R v_x)^T + (C 1) r_b^T + c_b 1^T``, so dW is always computed from 3 (M + N) numbers and no
    M x N x M product is ever made. (C, c_b) start at zero: dW = 0 at step 0.
    """

    def __init__(self, shape: tuple[int, int], v0_size: int, rng: torch.Generator, device: Device = "cpu") -> None:
        super().__init__()
        M, N = shape
        self.to_y = seeded_linear(v0_size, M, rng, device=device)
        self.to_x = seeded_linear(v0_size, N, rng, device=device)
        self.rows = seeded_linear(N, N, rng, device=device)
        self.columns = seeded_linear(M, M, rng, zero=True, device=device)

    def forward(self, v0: Tensor) -> Factors:
        """The exact rank-3 form for ``v0`` of shape (S,) or (B, S)."""
        with torch.autocast(v0.device.type, enabled=False):
            u1 = F.linear(self.to_y(v0), self.columns.weight)
            v1 = F.linear(self.to_x(v0), self.rows.weight)
            u = (u1, self.columns.weight.sum(1).expand_as(u1), self.columns.bias.expand_as(u1))
            v = (v1, self.rows.bias.expand_as(v1), torch.ones_like(v1))
            return Factors(torch.stack(u, dim=-2), torch.stack(v, dim=-2))


class RegularizedOffset(Offset):
    """The paper's offset: v0 is learned."""

    def __init__(self, shape: tuple[int, int], v0_size: int, rng: torch.Generator, device: Device = "cpu") -> None:
        super().__init__()
        self.v0 = nn.Parameter(torch.ones(v0_size, device=device))
        self.prior = OffsetPrior(shape, v0_size, rng, device)

    def forward(self) -> Tensor:
        """(M, N) dW."""
        return self.prior(self.v0).matrix()

    def compact(self) -> dict[str, Tensor]:
        """``u`` (3, M) and ``v`` (3, N)."""
        factors = self.prior(self.v0)
        return {"u": factors.u, "v": factors.v}


class DirectOffset(Offset):
    """Ablation: dW is a free M x N matrix, starting at zero."""

    def __init__(self, shape: tuple[int, int], device: Device = "cpu") -> None:
        super().__init__()
        self.dw = nn.Parameter(torch.zeros(shape, device=device))

    def forward(self) -> Tensor:
        """(M, N) dW."""
        return self.dw

    def compact(self) -> dict[str, Tensor]:
        """``dw`` (M, N): there is nothing smaller."""
        return {"dw": self.dw}


class WeightOffsets(nn.Module):
    """One offset per projection, by the projection's name. Without layers it is the "no offsets" ablation."""

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        # A module's name may hold anything but a dot.
        self.layers = nn.ModuleDict({name.replace(".", "/"): layer for name, layer in layers.items()})

    def named_layers(self) -> dict[str, Any]:
        """The module of each projection."""
        return {key.replace("/", "."): layer for key, layer in self.layers.items()}

    @abstractmethod
    def on(self, projections: Mapping[str, Projection]) -> contextlib.AbstractContextManager[None]:
        """Inside, the projections compute with their offsets, and gradients reach the offsets."""

    @abstractmethod
    def held(self) -> contextlib.AbstractContextManager[None]:
        """One optimizer step inside :meth:`on`: what can be computed once is."""

    @abstractmethod
    def condition(self, cls_BLD: Tensor) -> None:
        """Tell which images the next batch is about."""

    @abstractmethod
    def compact(self, cls_LD: Tensor) -> dict[str, Tensor]:
        """The fewest tensors that give the dW of one image: ``NAME.u`` and ``NAME.v``, or ``NAME.dw``."""


class ConstantOffsets(WeightOffsets):
    """Offsets that are the same for every image."""

    def __init__(self, layers: Mapping[str, Offset]) -> None:
        super().__init__(layers)
        self._on: Modulated | None = None

    @contextlib.contextmanager
    def on(self, projections: Mapping[str, Projection]) -> Iterator[None]:
        """Weights are parametrized as ``W0 * (1 + dW)``."""
        with modulated(projections, self.named_layers()) as self._on:
            try:
                yield
            finally:
                self._on = None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Every dW is computed once."""
        with self._on.held() if self._on else contextlib.nullcontext():
            yield

    def condition(self, cls_BLD: Tensor) -> None:
        """Nothing to do: dW does not depend on the image."""

    def compact(self, cls_LD: Tensor) -> dict[str, Tensor]:
        """See the base class; ``cls_LD`` changes nothing."""
        found = {name: layer.compact() for name, layer in self.named_layers().items()}
        return {f"{name}.{part}": tensor for name, parts in found.items() for part, tensor in parts.items()}


class HyperOffsets(WeightOffsets):
    """Ablation: the aggregated CLIP features take the place of v0, so that dW differs from image to image.

    Aggregated means: averaged over levels, then normalised without parameters, because [CLS] grows with depth.
    """

    def __init__(self, layers: Mapping[str, OffsetPrior]) -> None:
        super().__init__(layers)
        self._factors: dict[str, Factors] = {}

    @contextlib.contextmanager
    def on(self, projections: Mapping[str, Projection]) -> Iterator[None]:
        """Each sample computes with the offsets of the image that :meth:`condition` named for it."""
        chosen = {name: projections[name] for name in self.named_layers()}
        try:
            with modulated_per_sample(chosen, self._factors):
                yield
        finally:
            self._factors.clear()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Nothing can be shared: every batch has images of its own."""
        yield

    def condition(self, cls_BLD: Tensor) -> None:
        """Predict the offsets of these images; they stay until the next call, through the backward pass."""
        self._factors.update(self._predict(cls_BLD))

    def compact(self, cls_LD: Tensor) -> dict[str, Tensor]:
        """``NAME.u`` (3, M) and ``NAME.v`` (3, N) predicted for one image."""
        found = self._predict(cls_LD[None])
        return {f"{n}.{part}": getattr(factors, part)[0] for n, factors in found.items() for part in ("u", "v")}

    def _predict(self, cls_BLD: Tensor) -> dict[str, Factors]:
        aggregated_BD = F.layer_norm(cls_BLD.float().mean(1), cls_BLD.shape[2:])
        return {name: layer(aggregated_BD) for name, layer in self.named_layers().items()}


def build_offsets(
    kind: OffsetKind,
    projections: Mapping[str, Projection],
    *,
    v0_size: int,
    clip_width: int,
    rng: torch.Generator,
    device: Device = "cpu",
) -> WeightOffsets:
    """Offsets of ``kind`` for ``projections``.

    Args:
        kind: ``regularized`` (the paper), or an ablation of fig. 4b: ``direct``, ``none``, ``hypernetwork``.
        projections: the layers to modulate.
        v0_size: length of the learned vector v0; 1 gives the paper's 143 M parameters on Stable Diffusion 1.5.
        clip_width: width of the CLIP features that feed the hypernetwork.
        rng: where initial weights come from.
        device: ``cpu`` or ``meta``.
    """
    shapes = {name: (p.module.out_features, p.module.in_features) for name, p in projections.items()}
    if kind == "none":
        return ConstantOffsets({})
    if kind == "direct":
        return ConstantOffsets({name: DirectOffset(shape, device) for name, shape in shapes.items()})
    if kind == "hypernetwork":
        return HyperOffsets({n: OffsetPrior(s, clip_width, rng, device) for n, s in shapes.items()})
    return ConstantOffsets({n: RegularizedOffset(s, v0_size, rng, device) for n, s in shapes.items()})


def delta_matrices(compact: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """(M, N) dW by projection name, from the tensors of :meth:`WeightOffsets.compact`."""
    names = dict.fromkeys(key.rpartition(".")[0] for key in compact)
    return {
        n: compact[f"{n}.dw"] if f"{n}.dw" in compact else Factors(compact[f"{n}.u"], compact[f"{n}.v"]).matrix()
        for n in names
    }
