"""Fine-tuning of a whole denoiser, and of the text encoder if asked, on the images of one identity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from e4t_core.adapters.borrowed import borrowed
from e4t_core.adapters.clock import now
from e4t_core.adapters.subjects import Prior
from e4t_core.backbones.base import Backbone
from e4t_core.losses import draw_noise
from e4t_core.methods._adapters import differences, networks, total_bytes
from e4t_core.methods._prior import ClassImages
from e4t_core.methods._tuning import compute_type, masks_of
from e4t_core.methods.base import Adapter, Identity
from e4t_core.methods.dreambooth.config import DreamBoothConfig, PersonalizeConfig
from e4t_core.methods.dreambooth.objective import NoisyBatch, objective

NAME, DENOISER, TEXT = "dreambooth", "denoiser", "text"
_LOOK_EVERY = 8
"""Steps between two looks whether the loss is finite: a look waits for the device."""


def tuned_parameters(config: DreamBoothConfig, backbone: Backbone) -> dict[str, dict[str, nn.Parameter]]:
    """What is tuned, by network."""
    found = {DENOISER: backbone.denoiser_parameters()}
    if config.personalize.text_encoder:
        found[TEXT] = backbone.text_parameters()
    return found


def personalize_one(
    config: DreamBoothConfig, backbone: Backbone, identity: Identity, class_images: ClassImages
) -> Adapter:
    """``denoiser.NAME`` and ``text.NAME``, differences from the backbone's weights. The backbone is bit for bit as
    before on leaving; tuning that diverged says so in ``meta["failed"]``."""
    prior, ours = class_images(backbone), config.personalize
    if ours.gradient_checkpointing:
        backbone.enable_gradient_checkpointing()
    started = now(backbone.device)
    tuned = tuned_parameters(config, backbone)
    before = {network: {name: p.data for name, p in of.items()} for network, of in tuned.items()}
    flat = [p for of in tuned.values() for p in of.values()]
    with borrowed(flat, flat):
        course = _tune(ours, _Samples(config, backbone, identity, prior), flat, started)
        tensors: dict[str, Tensor] = {}
        for network, of in tuned.items():
            tensors |= differences(network, of, before[network], getattr(torch, ours.save_dtype))
    meta: dict[str, Any] = {
        **networks(backbone),
        "prompt": config.prompt,
        "images": len(identity.images_N3HW),
        "masked": ours.mask and identity.masks_N1HW is not None,
        "seconds": now(backbone.device) - started,
        **class_images.facts(),
        **course,
        "bytes": total_bytes(tensors),
    }
    return Adapter(NAME, identity.id, tensors, meta)


@dataclass(frozen=True)
class _Source:
    """Images under one prompt.

    Attributes:
        moments: (N, 2C, h, w) of the images.
        ids: (1, T) tokens of the prompt.
        masks: (N, 1, h, w) weights of the loss, or None.
        text: (1, T, D) states of the prompt; None where the text encoder is tuned, and they change with every step.
    """

    moments: Tensor
    ids: Tensor
    masks: Tensor | None
    text: Tensor | None


class _Samples:
    """Samples of the identity and of its class, all from the identity's own stream."""

    @torch.no_grad()
    def __init__(self, config: DreamBoothConfig, backbone: Backbone, identity: Identity, prior: Prior | None) -> None:
        self.backbone, self.count = backbone, config.personalize.samples
        self.rng = torch.Generator(backbone.device).manual_seed(identity.seed)
        self.weight = 0.0 if prior is None else prior.weight

        def source(moments: Tensor, ids_1T: Tensor, masks: Tensor | None) -> _Source:
            with compute_type(backbone):
                text = None if config.personalize.text_encoder else backbone.encode_text(ids_1T)
            return _Source(moments.to(backbone.device), ids_1T, masks, text)

        moments = backbone.to_moments(identity.images_N3HW.to(backbone.device))
        masks = masks_of(identity, backbone, config.personalize.mask)
        self.own = source(moments, backbone.tokenize([config.prompt]), masks)
        self.others = None if prior is None else source(prior.moments_M2Chw, prior.ids_1T, None)

    def backward(self) -> Tensor:
        """Gradients of the next step; returns the total loss."""
        with compute_type(self.backbone):
            own = self._draw(self.own)
            others = None if self.others is None else self._draw(self.others)
            total = objective(self.backbone, own, others, self.weight).total
        total.backward()
        return total.detach()

    def _draw(self, source: _Source) -> NoisyBatch:
        which = torch.randint(len(source.moments), (self.count,), generator=self.rng, device=self.backbone.device)
        x0, eps, t = draw_noise(self.backbone, source.moments[which], self.rng)
        text = self.backbone.encode_text(source.ids) if source.text is None else source.text
        return NoisyBatch(x0, eps, t, text, None if source.masks is None else source.masks[which])


def _tune(config: PersonalizeConfig, samples: _Samples, tuned: list[nn.Parameter], started: float) -> Mapping[str, Any]:
    """The optimizer steps; what is to be told of them."""
    optimizer = torch.optim.AdamW(
        tuned, lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay, fused=True
    )
    totals: list[Tensor] = []
    for step in range(config.steps):
        totals.append(samples.backward())
        if config.grad_clip is not None:
            torch.nn.utils.clip_grad_norm_(tuned, config.grad_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % _LOOK_EVERY == 0 and not totals[-1].isfinite():
            break
        if config.seconds is not None and now(samples.backbone.device) - started >= config.seconds:
            break
    losses: list[float] = torch.stack(totals).tolist()
    found: dict[str, Any] = {"steps": len(losses), "losses": losses}
    bad = next((step for step, loss in enumerate(losses) if not math.isfinite(loss)), None)
    if bad is not None:
        found["failed"] = (
            f"the loss is {losses[bad]} at step {bad} of {config.steps}; lower method.personalize.lr ({config.lr:g})"
        )
    return found
