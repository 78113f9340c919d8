"""What methods that tune identities have in common."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from e4t_core.adapters.subjects import Subject, TuneConfig, Tuned
from e4t_core.backbones.base import Backbone
from e4t_core.errors import UsageError
from e4t_core.losses import latent_mask
from e4t_core.methods.base import Identity


def check_one_image(method: str, identities: Sequence[Identity]) -> None:
    """Refuse identities of several images where a method could read but one.

    Raises:
        UsageError: names the first, and how many it has.
    """
    for one in identities:
        if len(one.images_N3HW) != 1:
            raise UsageError(
                f"method '{method}' learns an identity from one image, and '{one.id}' comes with "
                f"{len(one.images_N3HW)}; set personalize.images=1"
            )


def masks_of(identity: Identity, backbone: Backbone, wanted: bool, which: slice = slice(None)) -> Tensor | None:
    """(N, 1, h, w) weights of the diffusion loss for all of the identity's images, or for some; None if they are not
    wanted or the identity has none."""
    if not wanted or identity.masks_N1HW is None:
        return None
    return latent_mask(identity.masks_N1HW[which].to(backbone.device), backbone.latent_shape[1:])


@torch.no_grad()
def subject_of(identity: Identity, backbone: Backbone, prompts: Sequence[str], mask: bool) -> Subject:
    """All of the identity's images under these prompts, to be tuned beside others."""
    return Subject(
        id=identity.id,
        seed=identity.seed,
        moments_N2Chw=backbone.to_moments(identity.images_N3HW.to(backbone.device)),
        ids_PT=backbone.tokenize(prompts),
        masks_N1hw=masks_of(identity, backbone, mask),
    )


def compute_type(backbone: Backbone) -> contextlib.AbstractContextManager[Any]:
    """A half-precision backbone is tuned in bfloat16 over float32 copies of its weights: a step of 1.6e-5 is below
    the rounding of half-precision weights, and bfloat16 needs no loss scaling."""
    half = any(p.dtype != torch.float32 for p in backbone.parameters())
    return torch.autocast(backbone.device.type, torch.bfloat16, enabled=half)


def tuning_facts(tuned: Tuned, config: TuneConfig) -> dict[str, Any]:
    """What tuning says of an identity, for the adapter's ``meta``; ``failed`` if it diverged."""
    facts: dict[str, Any] = {
        "steps": tuned.steps,
        "losses": tuned.losses,
        "loss_before": tuned.loss_before,
        "loss_after": tuned.loss_after,
    }
    if tuned.diverged_at is not None:
        facts["failed"] = (
            f"the loss or its gradient is not finite at step {tuned.diverged_at} of {config.steps}; lower "
            f"method.personalize.lr ({config.lr:g}) or set method.personalize.grad_clip"
        )
    return facts
