"""The training samples of the identities that are being tuned: latents, noise and text, each from its own stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from e4t_core.adapters import streams
from e4t_core.adapters._slots import Rows, Slots
from e4t_core.adapters.subjects import Prior, Subject
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

    @classmethod
    def shared(cls, items: Tensor, identities: int, device: torch.device) -> _Ragged:
        """All of them are everybody's."""
        first_K = torch.zeros(identities, dtype=torch.int64, device=device)
        return cls(items.to(device), first_K, torch.full_like(first_K, len(items)))


class Pool:
    """Images and prompts that the identities in the slots draw samples from.

    Args:
        backbone: whose latents and schedule.
        images, prompts: of the identities, in their order.
        masks_N1hw: weights of the loss, by image.
        purpose: added to the numbers of the streams.
    """

    def __init__(
        self, backbone: Backbone, images: _Ragged, prompts: _Ragged, masks_N1hw: Tensor | None, purpose: int = 0
    ) -> None:
        self.backbone, self.images, self.prompts = backbone, images, prompts
        self.masks_N1hw, self.purpose = masks_N1hw, purpose
        self.one_prompt = bool((prompts.count_K == 1).all())

    @classmethod
    def of(cls, backbone: Backbone, subjects: Sequence[Subject], texts: Sequence[Tensor]) -> Pool:
        """The identities' own images.

        Args:
            texts: what their prompts are given as: (P, T) token ids or (P, T, D) text states of each.
        """
        device, masks_N1hw = backbone.device, None
        if any(s.masks_N1hw is not None for s in subjects):
            masks_N1hw = torch.cat([_mask(s).to(device) for s in subjects])
        images = _Ragged.of([s.moments_N2Chw.float() for s in subjects], device)
        return cls(backbone, images, _Ragged.of(texts, device), masks_N1hw)

    @classmethod
    def of_class(cls, backbone: Backbone, prior: Prior, text: Tensor, identities: int) -> Pool:
        """Images of the class, the same for all identities; which of them a step takes is each identity's own.

        Args:
            text: (1, T) ids or (1, T, D) states of the class's prompt.
        """
        device = backbone.device
        images = _Ragged.shared(prior.moments_M2Chw.float(), identities, device)
        return cls(backbone, images, _Ragged.shared(text, identities, device), None, streams.PRIOR)

    def draw(self, slots: Slots, rows: Rows, count: int, *, probe: bool = False) -> Samples:
        """``count`` samples of each identity in ``rows``: those of its next step, or those that measure it."""
        seeds, steps = slots.seeds_K[rows], slots.steps_K[rows]
        if probe:
            steps = torch.zeros_like(steps)
        purpose = self.purpose + (streams.PROBE if probe else 0)
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
            self._noise_levels(seeds, steps, count, purpose, probe),
            chosen(streams.PROMPT, self.prompts),
            None if self.masks_N1hw is None else self.masks_N1hw[image_B],
        )

    def _noise_levels(self, seeds: Tensor, steps: Tensor, count: int, purpose: int, probe: bool) -> Tensor:
        """(B,) uniform. A probe's lie one in each of ``count`` equal parts: fewer of them say as much."""
        total = self.backbone.schedule.steps
        if not probe:
            return streams.integers(seeds, steps, streams.TIME + purpose, (count,), total).flatten()
        unit_Kn = 1.0 - streams.uniforms(seeds, steps, streams.TIME + purpose, (count,))
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
