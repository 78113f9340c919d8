"""What methods that tune identities have in common."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from e4t_core.adapters.subjects import TuneConfig, Tuned
from e4t_core.backbones.base import Backbone
from e4t_core.losses import latent_mask
from e4t_core.methods.base import Identity


def mask_of(identity: Identity, backbone: Backbone, wanted: bool, index: int = 0) -> Tensor | None:
    """(1, 1, h, w) weights of the diffusion loss for one of the identity's images; None if they are not wanted or the
    identity has none."""
    if not wanted or identity.masks_N1HW is None:
        return None
    one_11HW = identity.masks_N1HW[index : index + 1].to(backbone.device)
    return latent_mask(one_11HW, backbone.latent_shape[1:])


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
