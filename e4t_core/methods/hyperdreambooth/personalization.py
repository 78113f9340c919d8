"""Prediction and rank-relaxed fast finetuning (HyperDreamBooth section 4.3), of many identities at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from e4t_core.adapters.clock import now
from e4t_core.adapters.concurrent import tune
from e4t_core.adapters.lidb import lidb_projections
from e4t_core.adapters.subjects import Subject, Tuned
from e4t_core.adapters.tunable import LoRAWeights
from e4t_core.backbones.base import Backbone
from e4t_core.errors import DataError
from e4t_core.memory import Fitting
from e4t_core.methods._tuning import check_one_image, subject_of, tuning_facts
from e4t_core.methods.base import Adapter, Identity
from e4t_core.methods.hyperdreambooth.adapter import LIDB, LORA, NAME, reference
from e4t_core.methods.hyperdreambooth.config import HyperDreamBoothConfig
from e4t_core.methods.hyperdreambooth.module import HyperDreamBoothModule


@dataclass(frozen=True)
class _Prediction:
    """What the hypernetwork says of one identity: plain LiDB weights, or None where it is not asked and LoRA alone is
    to be the adapter."""

    lidb_P: Tensor | None
    seconds: float


def personalize_all(
    config: HyperDreamBoothConfig,
    module: HyperDreamBoothModule,
    backbone: Backbone,
    identities: Sequence[Identity],
    fitting: Fitting | None = None,
) -> list[Adapter]:
    """An adapter for each identity, in order. One whose finetuning diverged says so in ``meta["failed"]``.

    Args:
        fitting: kept by the caller from call to call, see :func:`~e4t_core.adapters.concurrent.tune`.

    Raises:
        DataError: an identity lacks the image tokens that the hypernetwork reads.
        UsageError: an identity has several images.
    """
    check_one_image(NAME, identities)
    predictions = {one.id: _predict(config, module, one) for one in identities}
    meta = reference(config, module.space, backbone)
    if not config.personalize.steps:
        return [_adapter(config, meta, one, predictions[one.id], None) for one in identities]
    rank_1 = config.personalize.start == "hypernetwork"
    lora = LoRAWeights(
        lidb_projections(backbone), config.personalize.rank, config.personalize.alpha, base_rank=int(rank_1)
    )
    subjects = [_subject(config, module, backbone, one, predictions[one.id].lidb_P) for one in identities]
    tuned = {one.id: one for one in tune(backbone, lora, subjects, config.personalize, fitting)}
    return [_adapter(config, meta, one, predictions[one.id], _scaled(tuned[one.id], lora.scale)) for one in identities]


@torch.no_grad()
def _predict(config: HyperDreamBoothConfig, module: HyperDreamBoothModule, identity: Identity) -> _Prediction:
    """One identity at a time, so that company in the batch does not change the last bits."""
    if config.personalize.start == "backbone":
        return _Prediction(None if config.personalize.steps else module.initial_P.clone(), 0.0)
    if identity.clip_tokens_NTD is None:
        raise DataError(
            f"'{identity.id}' has no patch tokens of its image, which the hypernetwork reads: set "
            "stages.clip.tokens=true and run preprocess"
        )
    device = module.initial_P.device
    began = now(device)
    theta_1P = module(identity.clip_cls_NLD[:1].to(device), identity.clip_tokens_NTD[:1].to(device))
    return _Prediction(module.initial_P + theta_1P[0], now(device) - began)


@torch.no_grad()
def _subject(
    config: HyperDreamBoothConfig,
    module: HyperDreamBoothModule,
    backbone: Backbone,
    identity: Identity,
    lidb_P: Tensor | None,
) -> Subject:
    """The one image and its prompt, on top of the prediction."""
    subject = subject_of(identity, backbone, [config.prompt], config.personalize.mask)
    return subject if lidb_P is None else replace(subject, constants=_constants(module, lidb_P))


def _constants(module: HyperDreamBoothModule, lidb_P: Tensor) -> dict[str, Tensor]:
    """The rank-1 factors of each layer, as the LoRA's frozen base takes them."""
    found = {}
    for name, one in module.space.expand(module.space.unflat(lidb_P[None])).items():
        found[f"{name}.up"], found[f"{name}.down"] = one.up[0], one.down[0]
    return found


def _scaled(tuned: Tuned, scale: float) -> Tuned:
    """With the LoRA's scale in ``up``, so that ``up @ down`` is the whole change."""
    for name, tensor in tuned.tensors.items():
        if name.endswith(".up"):
            tensor.mul_(scale)
    return tuned


def _adapter(
    config: HyperDreamBoothConfig,
    reference: Mapping[str, Any],
    identity: Identity,
    prediction: _Prediction,
    tuned: Tuned | None,
) -> Adapter:
    tensors: dict[str, Tensor] = {}
    if prediction.lidb_P is not None:
        tensors[LIDB] = prediction.lidb_P.float().cpu()
    meta = {
        **reference,
        "start": config.personalize.start,
        "steps": 0,
        "seconds": prediction.seconds,
        "losses": [],
        "masked": config.personalize.mask and identity.masks_N1HW is not None,
    }
    if tuned is not None:
        tensors |= {f"{LORA}{name}": tensor.contiguous() for name, tensor in tuned.tensors.items()}
        meta |= tuning_facts(tuned, config.personalize) | {"rank": config.personalize.rank}
        meta["seconds"] += tuned.seconds
    meta["bytes"] = sum(t.numel() * t.element_size() for t in tensors.values())
    return Adapter(NAME, identity.id, tensors, meta)
