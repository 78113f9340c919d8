"""Peak memory of tuning one concept at Stable Diffusion 1.5's size, 512 px, bfloat16: counted on ``meta``, with no GPU.

What is counted: the frozen networks, the identity's numbers with their optimizer state, and every tensor that the
forward pass keeps for the backward pass, each storage once. With checkpointing a transformer block or resnet keeps its
inputs, and the largest one is computed again at a time. Fused attention keeps q, k, v, its output and a number a row.
What is not: an allocator's gaps, kernels' workspaces, and the one or two gradients that are alive at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from e4t_core.adapters.dual_path import ConceptWeights, DualPathConfig
from e4t_core.backbones.stable_diffusion import StableDiffusionBackbone
from e4t_core.losses import diffusion_loss
from tests.benchmarks.measure import Figure, ratio

PAPER_GB, AIM_GB = 30.0, 16.0
SAMPLES = 16
"""The batch at which E4T needs 70 GB (section 4.4)."""
STATES = 6
"""float32 numbers kept for each that is trained: itself, its start, the last good one, its gradient, Adam's moments."""


@dataclass
class Kept:
    """Storages that wait for the backward pass.

    Attributes:
        tensors: one for each storage; holding it keeps the storage from being taken for another.
        largest: bytes of the largest checkpointed part.
    """

    tensors: dict[int, Tensor] = field(default_factory=dict)
    largest: int = 0

    def add(self, tensor: Tensor) -> None:
        if not isinstance(tensor, torch.nn.Parameter):
            self.tensors.setdefault(tensor.untyped_storage()._cdata, tensor)

    @property
    def size(self) -> int:
        return sum(t.untyped_storage().nbytes() for t in self.tensors.values())

    def checkpoint(self, part: Callable[..., Any], *inputs: Any) -> Any:
        """A checkpointed call: its inputs stay, and what it keeps inside counts only while it is computed again."""
        for one in inputs:
            if isinstance(one, Tensor):
                self.add(one)
        inside = Kept()
        with inside.saving():
            out = part(*inputs)
        self.largest = max(self.largest, inside.size)
        return out

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """Inside, everything that autograd saves is kept."""

        def pack(tensor: Tensor) -> Tensor:
            self.add(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            yield


class Fused(torch.autograd.Function):
    """What a fused attention kernel keeps: ``meta`` would form the matrix of all pairs of tokens."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, out, q.new_empty(q.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise NotImplementedError("only the forward pass is counted")


@contextlib.contextmanager
def fused_attention() -> Iterator[None]:
    """Inside, attention keeps what a fused kernel does."""
    real = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = lambda q, k, v, *_, **__: Fused.apply(q, k, v)  # type: ignore[assignment]
    try:
        yield
    finally:
        F.scaled_dot_product_attention = real


def needed(per: Any, checkpointing: bool, samples: int) -> int:
    """Bytes at the peak of one tuning step."""
    with torch.device("meta"):
        backbone = StableDiffusionBackbone.from_config("sd15", resolution=512).to(torch.bfloat16)
        kept = Kept()
        if checkpointing:
            backbone.unet.enable_gradient_checkpointing(kept.checkpoint)
        weights = ConceptWeights(backbone, 4, None, DualPathConfig(per=per), "object")
        weights.lora._compute_type = lambda device: torch.bfloat16  # type: ignore[method-assign] # no autocast on meta
        with fused_attention(), kept.saving():
            _forward(backbone, weights, samples)
    frozen = sum(t.numel() * t.element_size() for t in backbone.state_dict().values())
    return frozen + weights.numbers * 4 * STATES + kept.size + kept.largest


def _forward(backbone: StableDiffusionBackbone, weights: ConceptWeights, samples: int) -> Tensor:
    flat = torch.empty(1, weights.numbers).requires_grad_()
    hard = torch.empty(1, backbone.text_width)
    ids = torch.zeros(samples, backbone.max_tokens, dtype=torch.int64)
    x_t, t = torch.empty(samples, *backbone.latent_shape), torch.zeros(samples, dtype=torch.int64)
    with weights.on(flat, {"hard": hard}):
        text = backbone.encode_text(ids, weights.spliced(flat).expand(samples, -1))
        if weights.dual:
            with torch.no_grad():
                text = torch.cat([text, backbone.encode_text(ids, hard.expand(samples, -1))])
        return diffusion_loss(backbone.denoise(x_t, t, text), torch.empty_like(x_t)).mean()


def run(quick: bool) -> list[Figure]:
    """Gigabytes with one path and two, with and without checkpointing; the default is held to the aim."""
    found = {}
    for checkpointing in (False, True):
        for per in ("attention",) if quick else ("none", "attention", "block"):
            found[per, checkpointing] = needed(per, checkpointing, SAMPLES) / 1e9
    note = f"SD 1.5, 512 px, bf16, {SAMPLES} noise levels, rank 4; counted, not measured"
    plain = [
        Figure(f"tuning memory, paths meet per {per}{', checkpointing' * on}", size, "GB", note=note)
        for (per, on), size in found.items()
    ]
    return [*plain, ratio(f"tuning memory with checkpointing / {AIM_GB:.0f} GB", found["attention", True] / AIM_GB,
                          "<= 1.0", f"the paper: less than {PAPER_GB:.0f} GB")]  # fmt: skip
