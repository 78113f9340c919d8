"""The training samples of the identities that are being tuned: latents, noise and text, each from its own stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from e4t_core.adapters import streams
from e4t_core.adapters._slots import Rows, Slots
from e4t_core.adapters.subjects import Subject
from e4t_core.backbones.base import Backbone
from e4t_core.errors import DataError
from e4t_core.losses import Noisy


@dataclass(frozen=True)
class Samples(Noisy):
    """n samples of each of K identities, B = K * n, those of the first identity first.

    Attributes:
        prompt: (B,) rows of the pool's prompts.
        mask: (B, 1, h, w) weights of the loss, or None.
    """

    prompt: Tensor
    mask: Tensor | None


@dataclass(frozen=True)
class _Ragged:
    """Items of K identities, one after another: identity k has those from ``first_K[k]`` on, ``count_K[k]`` of them."""

    items: Tensor
    first_K: Tensor
    count_K: Tensor

    @classmethod
    def of(cls, parts: Sequence[Tensor], device: torch.device) -> _Ragged:
        counts = torch.tensor([len(part) for part in parts])
        items = torch.cat([part.to(device) for part in parts])
        return cls(items, (counts.cumsum(0) - counts).to(device), counts.to(device))


class Pool:
    """Images and prompts of the identities in the slots, in their order.

    Args:
        backbone: whose latents and schedule.
        subjects: the identities.
        texts: what their prompts are given as: (P, T) token ids or (P, T, D) text states of each.
    """

    def __init__(self, backbone: Backbone, subjects: Sequence[Subject], texts: Sequence[Tensor]) -> None:
        self.backbone, device = backbone, backbone.device
        self.images = _Ragged.of([s.moments_N2Chw.float() for s in subjects], device)
        self.prompts = _Ragged.of(texts, device)
        self.one_prompt = all(len(text) == 1 for text in texts)
        self.masks_N1hw: Tensor | None = None
        if any(s.masks_N1hw is not None for s in subjects):
            self.masks_N1hw = torch.cat([_mask(s).to(device) for s in subjects])

    def draw(self, slots: Slots, rows: Rows, count: int, *, probe: bool) -> Samples:
        """``count`` samples of each identity in ``rows``: those of its next step, or those that measure it."""
        seeds, steps = slots.seeds_K[rows], slots.steps_K[rows]
        if probe:
            steps = torch.zeros_like(steps)
        purpose = streams.PROBE if probe else 0
        shape = (count, *self.backbone.latent_shape)

        def chosen(stream: int, among: _Ragged) -> Tensor:
            drawn_Kn = streams.integers(seeds, steps, stream + purpose, (count,), among.count_K[rows])
            return (drawn_Kn + among.first_K[rows][:, None]).flatten()

        image_B = chosen(streams.IMAGE, self.images)
        posterior, eps = (
            streams.normals(seeds, steps, stream + purpose, shape).flatten(0, 1)
            for stream in (streams.POSTERIOR, streams.NOISE)
        )
        return Samples(
            self.backbone.to_latent(self.images.items[image_B], posterior),
            eps,
            self._noise_levels(seeds, steps, count, probe),
            chosen(streams.PROMPT, self.prompts),
            None if self.masks_N1hw is None else self.masks_N1hw[image_B],
        )

    def _noise_levels(self, seeds: Tensor, steps: Tensor, count: int, probe: bool) -> Tensor:
        """(B,) uniform. A probe's lie one in each of ``count`` equal parts: fewer of them say as much."""
        total = self.backbone.schedule.steps
        if not probe:
            return streams.integers(seeds, steps, streams.TIME, (count,), total).flatten()
        unit_Kn = 1.0 - streams.uniforms(seeds, steps, streams.TIME + streams.PROBE, (count,))
        parts_n = torch.arange(count, device=unit_Kn.device)
        return ((parts_n + unit_Kn) * (total / count)).long().clamp(max=total - 1).flatten()

    def prompt_of(self, rows: Rows) -> Tensor:
        """(K, ...) the only prompt of each identity in ``rows``."""
        return self.prompts.items[self.prompts.first_K[rows]]


def _mask(subject: Subject) -> Tensor:
    if subject.masks_N1hw is not None:
        return subject.masks_N1hw.float()
    count, _, h, w = subject.moments_N2Chw.shape
    return torch.ones(count, 1, h, w)


def check_subject(subject: Subject, backbone: Backbone) -> None:
    """Whether a subject's tensors are the backbone's size.

    Raises:
        DataError: names the tensor, its shape and what would be right.
    """
    channels, h, w = backbone.latent_shape
    count = len(subject.moments_N2Chw)
    wanted = {
        "moments_N2Chw": (subject.moments_N2Chw, (max(count, 1), 2 * channels, h, w)),
        "ids_PT": (subject.ids_PT, (max(len(subject.ids_PT), 1), backbone.max_tokens)),
    }
    if subject.masks_N1hw is not None:
        wanted["masks_N1hw"] = (subject.masks_N1hw, (count, 1, h, w))
    for name, (tensor, shape) in wanted.items():
        if tuple(tensor.shape) != shape:
            raise DataError(f"subject '{subject.id}': {name} is {tuple(tensor.shape)}; this backbone needs {shape}")
