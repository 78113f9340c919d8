"""What the encoder says of one image in its one forward pass (section 4.4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from e4t_core.adapters import streams
from e4t_core.adapters.clock import now
from e4t_core.backbones.base import Backbone
from e4t_core.errors import DataError
from e4t_core.losses import nearest_tokens
from e4t_core.methods.base import Identity
from e4t_core.methods.domain_agnostic.config import DomainAgnosticConfig
from e4t_core.methods.domain_agnostic.module import DomainAgnosticModule


@dataclass(frozen=True)
class Prediction:
    """Everything that tuning needs of the encoder; holds nothing of it.

    Attributes:
        tensors: ``token`` and, from a hypernetwork, LoRA's, by the names of
            :class:`~e4t_core.adapters.dual_path.ConceptWeights`.
        moments: (1, 2C, h, w) of the image.
        hard: id of the token nearest to the embedding, v_h.
        near: what the nearest tokens say, nearest first.
        seconds: that it took.
    """

    tensors: dict[str, Tensor]
    moments: Tensor
    hard: int
    near: list[str]
    seconds: float


@torch.no_grad()
def predict(
    config: DomainAgnosticConfig, module: DomainAgnosticModule, backbone: Backbone, identity: Identity
) -> Prediction:
    """One identity alone, so that company changes not even the last bits. Its noise comes from its own stream.

    Raises:
        DataError: the identity has no patch tokens.
    """
    if identity.clip_tokens_NTD is None:
        raise DataError(
            f"'{identity.id}' has no patch tokens of its image, which the encoder reads: set stages.clip.tokens=true "
            "and run preprocess"
        )
    device = backbone.device
    began = now(device)
    moments = backbone.to_moments(identity.images_N3HW[:1].to(device))
    x_t, t_1 = _noisy(config, backbone, moments, identity.seed)
    token_1D, lora_1P = module.predict(backbone, identity.clip_tokens_NTD[:1].to(device), x_t, t_1)
    near_k = nearest_tokens(token_1D, backbone.token_table, config.personalize.near, backbone.special_ids)[0].tolist()
    tensors = {"token": token_1D[0]}
    if config.hypernetwork:
        tensors |= {name: t[0] for name, t in module.weights.lora.unflat(lora_1P).items()}
    on_cpu = {name: t.float().cpu().clone() for name, t in tensors.items()}
    return Prediction(on_cpu, moments, near_k[0], backbone.token_words(near_k), now(device) - began)


def _noisy(config: DomainAgnosticConfig, backbone: Backbone, moments_12Chw: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """The image at the configured noise level, ``x_t`` and (1,) ``t``."""
    device = backbone.device
    seeds, zero = streams.as_seeds([seed]), torch.zeros(1, dtype=torch.int64)
    posterior, eps = (
        streams.normals(seeds, zero, stream, backbone.latent_shape).to(device)
        for stream in (streams.PREDICTED_POSTERIOR, streams.PREDICTED_NOISE)
    )
    t_1 = torch.tensor([round(config.personalize.noise_level * (backbone.schedule.steps - 1))], device=device)
    return backbone.schedule.add_noise(backbone.to_latent(moments_12Chw, posterior), eps, t_1), t_1
