"""Inference-time personalization from one image (E4T section 3.4)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from e4t_core.adapters.borrowed import borrowed
from e4t_core.adapters.clock import now
from e4t_core.backbones.base import Backbone
from e4t_core.errors import UserError
from e4t_core.methods._tuning import compute_type, masks_of
from e4t_core.methods.base import Adapter, Identity
from e4t_core.methods.e4t.adapter import changes, reference
from e4t_core.methods.e4t.config import E4TConfig
from e4t_core.methods.e4t.module import E4TModule
from e4t_core.methods.e4t.objective import NoisyBatch, noisy_batch, objective, with_placeholder


def personalize_one(config: E4TConfig, module: E4TModule, backbone: Backbone, identity: Identity) -> Adapter:
    """Tune on one image of ``identity``; module and backbone are bit for bit as before on leaving.

    Raises:
        UserError: the loss is no longer finite.
    """
    index = image_index(config, identity)
    meta = reference(module, backbone) | {"image": index, "tuned": config.personalize.tune, "steps": 0, "seconds": 0.0}
    if config.personalize.tune == "none":
        return Adapter("e4t", identity.id, {}, meta | {"losses": [], "masked": False, "bytes": 0})

    started = now(backbone.device)
    denoiser = backbone.denoiser_parameters()
    ours = dict(module.named_parameters())
    before = {"denoiser": _data(denoiser), "module": _data(ours)}
    with _trainable(config, denoiser, ours) as tuned:
        batches = _Samples(config, backbone, identity, index)
        losses = _tune(config, module, backbone, batches, tuned)
        tensors = changes(config, module, denoiser, before, batches.cls_1LD[0])
    meta |= {
        "steps": config.personalize.steps,
        "seconds": now(backbone.device) - started,
        "losses": losses,
        "masked": batches.mask_11hw is not None,
        "bytes": sum(t.numel() * t.element_size() for t in tensors.values()),
    }
    return Adapter("e4t", identity.id, tensors, meta)


def image_index(config: E4TConfig, identity: Identity) -> int:
    """Which of the identity's images is the one."""
    if config.personalize.image == "first":
        return 0
    rng = torch.Generator().manual_seed(identity.seed)
    return int(torch.randint(len(identity.images_N3HW), (1,), generator=rng))


class _Samples:
    """Batches of noise levels of one image, all from the identity's own stream."""

    def __init__(self, config: E4TConfig, backbone: Backbone, identity: Identity, index: int) -> None:
        self.backbone, self.size = backbone, config.personalize.batch_size
        self.templates = with_placeholder(backbone, config.templates)
        self.rng = torch.Generator(backbone.device).manual_seed(identity.seed)
        one = slice(index, index + 1)
        self.cls_1LD = identity.clip_cls_NLD[one].to(backbone.device)
        with torch.no_grad():
            self.moments_12Chw = backbone.to_moments(identity.images_N3HW[one].to(backbone.device))
        self.mask_11hw = masks_of(identity, backbone, config.personalize.mask, one)

    def draw(self) -> NoisyBatch:
        """The next batch."""
        n, device = self.size, self.backbone.device
        chosen = torch.randint(len(self.templates), (n,), generator=self.rng, device=device).tolist()
        prompts = [self.templates[i] for i in chosen]
        mask = None if self.mask_11hw is None else self.mask_11hw.expand(n, -1, -1, -1)
        moments, cls = self.moments_12Chw.expand(n, -1, -1, -1), self.cls_1LD.expand(n, -1, -1)
        return noisy_batch(self.backbone, moments, prompts, cls, mask, self.rng)


def _tune(
    config: E4TConfig, module: E4TModule, backbone: Backbone, samples: _Samples, tuned: list[nn.Parameter]
) -> list[float]:
    """The optimizer steps; returns the total loss of each."""
    ours = config.personalize
    lr = ours.base_lr * (ours.batch_size if ours.scale_lr else 1)
    optimizer = torch.optim.AdamW(tuned, lr=lr, weight_decay=ours.weight_decay, fused=True)
    totals = []
    with module.offsets.on(backbone.projections(("q", "k", "v"))):
        for _ in range(ours.steps):
            batch = samples.draw()
            totals.append(_accumulate(config, module, backbone, batch))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    losses: list[float] = torch.stack(totals).tolist()
    for step, loss in enumerate(losses):
        if loss - loss != 0:
            raise UserError(
                f"personalization: the loss is {loss} at step {step} of {ours.steps}; lower "
                f"method.personalize.base_lr ({ours.base_lr:g}, {lr:g} after scaling)"
            )
    return losses


def _accumulate(config: E4TConfig, module: E4TModule, backbone: Backbone, batch: NoisyBatch) -> Tensor:
    """Gradients of one whole batch, a piece at a time; returns the batch's loss."""
    ours, total = config.personalize, torch.zeros((), device=backbone.device)
    with module.offsets.held():
        for piece in batch.split(ours.micro_batch_size or ours.batch_size):
            with compute_type(backbone):
                loss = objective(config, module, backbone, piece, ours.reg_weight).total
            share = len(piece.t) / len(batch.t)
            (loss * share).backward()
            total = total + loss.detach() * share
    return total


@contextlib.contextmanager
def _trainable(
    config: E4TConfig, denoiser: Mapping[str, nn.Parameter], ours: Mapping[str, nn.Parameter]
) -> Iterator[list[nn.Parameter]]:
    """What ``tune`` names, trainable inside; everything as before outside."""
    tune = config.personalize.tune
    tuned = list(ours.values()) if tune in ("all", "components") else []
    tuned += list(denoiser.values()) if tune in ("all", "denoiser") else []
    with borrowed([*denoiser.values(), *ours.values()], tuned):
        yield tuned


def _data(parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    return {name: p.data for name, p in parameters.items()}
