"""One forward pass, then a LoRA tuning of a dozen steps (section 4.4), of many identities at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from e4t_core.adapters.borrowed import away
from e4t_core.adapters.concurrent import tune
from e4t_core.adapters.dual_path import ConceptWeights
from e4t_core.adapters.subjects import Subject, Tuned
from e4t_core.backbones.base import Backbone
from e4t_core.memory import Fitting
from e4t_core.methods._tuning import check_one_image, masks_of, tuning_facts
from e4t_core.methods.base import Adapter, Identity
from e4t_core.methods.domain_agnostic.adapter import NAME, reference, scaled
from e4t_core.methods.domain_agnostic.config import DomainAgnosticConfig
from e4t_core.methods.domain_agnostic.module import DomainAgnosticModule, concept_weights
from e4t_core.methods.domain_agnostic.prediction import Prediction, predict


def personalize_all(
    config: DomainAgnosticConfig,
    module: DomainAgnosticModule,
    backbone: Backbone,
    identities: Sequence[Identity],
    fitting: Fitting | None = None,
) -> list[Adapter]:
    """An adapter for each identity, in order. One whose tuning diverged says so in ``meta["failed"]``.

    Args:
        fitting: kept by the caller from call to call, see :func:`~e4t_core.adapters.concurrent.tune`.

    Raises:
        DataError: an identity lacks the patch tokens that the encoder reads.
        UsageError: an identity has several images.
    """
    check_one_image(NAME, identities)
    predictions = [predict(config, module, backbone, one) for one in identities]
    with away(module):
        return tune_all(config, backbone, identities, predictions, fitting)


def tune_all(
    config: DomainAgnosticConfig,
    backbone: Backbone,
    identities: Sequence[Identity],
    predictions: Sequence[Prediction],
    fitting: Fitting | None = None,
) -> list[Adapter]:
    """The same from what was predicted: no encoder is needed any more."""
    weights = concept_weights(config, backbone, config.tuned_paths)
    tuned: dict[str, Tuned] = {}
    if config.personalize.steps:
        if config.personalize.gradient_checkpointing:
            backbone.enable_gradient_checkpointing()
        subjects = [_subject(config, weights, backbone, *pair) for pair in zip(identities, predictions, strict=True)]
        pull_P = _pull(config, weights)
        tuned = {one.id: one for one in tune(backbone, weights, subjects, config.personalize, fitting, pull_P)}
    return [
        _adapter(config, weights, backbone, one, prediction, tuned.get(one.id))
        for one, prediction in zip(identities, predictions, strict=True)
    ]


@torch.no_grad()
def _subject(
    config: DomainAgnosticConfig,
    weights: ConceptWeights,
    backbone: Backbone,
    identity: Identity,
    prediction: Prediction,
) -> Subject:
    drawn = {name: t[0] for name, t in weights.initial([identity.seed]).items()}
    hard_D = backbone.token_table[prediction.hard]
    return Subject(
        id=identity.id,
        seed=identity.seed,
        moments_N2Chw=prediction.moments,
        ids_PT=backbone.tokenize([t.replace("{}", backbone.placeholder) for t in config.templates]),
        masks_N1hw=masks_of(identity, backbone, config.personalize.mask),
        start={**drawn, **prediction.tensors},
        constants={"hard": hard_D} if weights.dual else {},
    )


def _pull(config: DomainAgnosticConfig, weights: ConceptWeights) -> Tensor:
    """(P,) the weights of the squared distances from the prediction."""
    ours = config.personalize
    lora_1P = torch.full((1, weights.lora.numbers), ours.weight_pull)
    return weights.join(lora_1P, torch.full((1, *weights.shapes["token"]), ours.embedding_pull))[0]


def _adapter(
    config: DomainAgnosticConfig,
    weights: ConceptWeights,
    backbone: Backbone,
    identity: Identity,
    prediction: Prediction,
    tuned: Tuned | None,
) -> Adapter:
    tensors = scaled(prediction.tensors if tuned is None else tuned.tensors, weights.lora.scale)
    meta: dict[str, Any] = {
        **reference(config, backbone),
        "hard": prediction.hard,
        "near": prediction.near,
        "steps": 0,
        "seconds": prediction.seconds,
        "losses": [],
        "masked": config.personalize.mask and identity.masks_N1HW is not None,
    }
    if tuned is not None:
        meta |= tuning_facts(tuned, config.personalize)
        meta["seconds"] += tuned.seconds
    meta["bytes"] = sum(t.numel() * t.element_size() for t in tensors.values())
    return Adapter(NAME, identity.id, tensors, meta)
