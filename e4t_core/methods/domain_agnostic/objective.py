"""The pre-training objective on samples whose noise is already drawn: a function without randomness."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
from torch import Tensor

from e4t_core.backbones.base import Backbone
from e4t_core.losses import (
    Noisy,
    contrastive_loss,
    diffusion_loss,
    embedding_l2,
    nearest_cosine_loss,
    nearest_tokens,
    offset_l2,
)
from e4t_core.methods.base import Losses
from e4t_core.methods.domain_agnostic.config import DomainAgnosticConfig
from e4t_core.methods.domain_agnostic.module import DomainAgnosticModule


@dataclass(frozen=True)
class NoisyBatch(Noisy):
    """Samples with their noise, prompts and CLIP features.

    Attributes:
        ids: (B, L) tokens of prompts that hold the placeholder.
        tokens: (B, T, D) CLIP patch tokens of the concept image.
        marks: (B,) int64, equal for samples of one image.
    """

    ids: Tensor
    tokens: Tensor
    marks: Tensor


def objective(
    config: DomainAgnosticConfig,
    module: DomainAgnosticModule,
    backbone: Backbone,
    batch: NoisyBatch,
    scope: contextlib.ExitStack,
) -> Losses:
    """Diffusion loss (eq. 1) under the dual path (eq. 5), each sample with its own predicted weights, plus the
    regularization of embeddings (eq. 3 and 4) and of weight offsets; means over the batch of per-sample values.

    Args:
        scope: in which the weights stay on the backbone; nothing may be on when it is called.
    """
    x_t = backbone.schedule.add_noise(batch.x0, batch.eps, batch.t)
    v_BD, lora_BP = module.predict(backbone, batch.tokens, x_t, batch.t)
    near_Bk = nearest_tokens(v_BD, backbone.token_table, config.positives, backbone.special_ids)
    terms = {"diffusion": _diffusion(module, backbone, batch, x_t, (v_BD, lora_BP, near_Bk), scope).mean()}
    total = terms["diffusion"]
    for name, weight, value in _regularization(config, module, backbone, (v_BD, lora_BP, near_Bk), batch.marks):
        terms[name] = value
        total = total + weight * value
    return Losses(total, terms)


_Predicted = tuple[Tensor, Tensor, Tensor]
"""(B, D) embeddings, (B, P) LoRA weights, (B, k) nearest tokens."""


def _diffusion(
    module: DomainAgnosticModule,
    backbone: Backbone,
    batch: NoisyBatch,
    x_t: Tensor,
    predicted: _Predicted,
    scope: contextlib.ExitStack,
) -> Tensor:
    """(B,)."""
    v_BD, lora_BP, near_Bk = predicted
    constants = {"hard": backbone.token_table[near_Bk[:, 0]]}
    text = backbone.encode_text(batch.ids, v_BD)
    hard_BD = module.weights.companions(constants)
    if hard_BD is not None:
        with torch.no_grad():
            hard = backbone.encode_text(batch.ids, hard_BD)
        text = torch.cat([text, hard])
    scope.enter_context(module.weights.on(module.weights.join(lora_BP, v_BD), constants))
    prediction = backbone.denoise(x_t, batch.t, text)
    return diffusion_loss(prediction, backbone.schedule.target(batch.x0, batch.eps, batch.t))


def _regularization(
    config: DomainAgnosticConfig,
    module: DomainAgnosticModule,
    backbone: Backbone,
    predicted: _Predicted,
    marks_B: Tensor,
) -> list[tuple[str, float, Tensor]]:
    """Name, weight and value of each term that the configuration has."""
    v_BD, lora_BP, near_Bk = predicted
    found = []
    if config.regularization != "none":
        found.append(("embedding_l2", config.l2_weight, embedding_l2(v_BD).mean()))
    if config.regularization == "contrastive":
        loss_B = contrastive_loss(v_BD, backbone.token_table[near_Bk], marks_B, config.tau)
        found.append(("contrastive", config.nearest_weight, loss_B.mean()))
    if config.regularization == "nearest_cosine":
        loss_B = nearest_cosine_loss(v_BD, backbone.token_table[near_Bk[:, 0]])
        found.append(("nearest_cosine", config.nearest_weight, loss_B.mean()))
    if config.hypernetwork:
        found.append(("offset_l2", config.offset_weight, offset_l2(module.weights.lora.low_rank(lora_BP, {})).mean()))
    return found
