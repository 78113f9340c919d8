"""Zero-tuning personalization (Taming Encoder section 3.1): an identity is the embedding of its images, and that is all
that is stored."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from e4t_core.backbones.base import Backbone
from e4t_core.errors import CheckpointMismatch
from e4t_core.methods._adapters import check_method
from e4t_core.methods.base import Adapter, Identity
from e4t_core.methods.taming_encoder.module import TamingEncoderModule

NAME, OBJECT = "taming_encoder", "object"


@torch.no_grad()
def personalize_all(module: TamingEncoderModule, backbone: Backbone, identities: Sequence[Identity]) -> list[Adapter]:
    """An adapter for each identity: ``object`` (l, D), the mean of the embeddings of all of its images (the paper's
    section 6 leaves more than one to the future). No step is tuned and nothing is drawn."""
    unet = backbone.identity()["unet"]
    return [_adapter(module, unet, one) for one in identities]


def _adapter(module: TamingEncoderModule, unet: str, identity: Identity) -> Adapter:
    began = time.perf_counter()
    object_LD = module.embed(identity.clip_cls_NLD).mean(0).cpu()
    meta = {
        "unet": unet,
        "images": len(identity.clip_cls_NLD),
        "steps": 0,
        "seconds": time.perf_counter() - began,
        "losses": [],
        "bytes": object_LD.numel() * object_LD.element_size(),
    }
    return Adapter(NAME, identity.id, {OBJECT: object_LD}, meta)


def object_of(module: TamingEncoderModule, backbone: Backbone, adapter: Adapter) -> Tensor:
    """(l, D) the adapter's object on the backbone's device; phi if it has none.

    Raises:
        CheckpointMismatch: it belongs to another method, denoiser or encoder.
    """
    who = f"the adapter of '{adapter.identity}'"
    check_method(adapter, NAME)
    there, here = adapter.meta.get("unet"), backbone.identity()["unet"]
    if there != here:
        raise CheckpointMismatch(
            f"{who} is read by weights that were tuned from unet {there}, but here is unet {here}; give the checkpoint "
            "and backbone that it was personalized with"
        )
    found = adapter.tensors.get(OBJECT, module.null_LD)
    if found.shape != module.null_LD.shape:
        raise CheckpointMismatch(
            f"{who} is an embedding of {tuple(found.shape)}, and these weights read {tuple(module.null_LD.shape)}; "
            "give the recipe that it was personalized with (clip, method.levels)"
        )
    return found.to(backbone.device)
