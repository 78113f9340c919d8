"""What the domain-agnostic encoder trains: trunk, token embedder and hypernetwork, for one backbone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from e4t_core.adapters.dual_path import ConceptWeights, DualPathConfig
from e4t_core.backbones.base import Backbone
from e4t_core.methods._held import Held
from e4t_core.methods.domain_agnostic.config import DomainAgnosticConfig
from e4t_core.models.domain_agnostic_encoder import DomainAgnosticEncoder


class DomainAgnosticModule(nn.Module):
    """The encoder, on the backbone's device.

    Attributes:
        weights: puts predicted weights on the backbone in pre-training.
        held: those that are on it.
        signature: what must be equal for weights to fit; a checkpoint carries it and loading compares it.
    """

    start_D: Tensor

    def __init__(self, config: DomainAgnosticConfig, backbone: Backbone, clip_dims: tuple[int, int]) -> None:
        super().__init__()
        target = backbone.token_table.device
        device = "meta" if target.type == "meta" else "cpu"  # the same draws wherever it will run
        self.weights = concept_weights(config, backbone, config.dual_path)
        self.scale = config.token_scale
        self.encoder = DomainAgnosticEncoder(
            clip_dims[1],
            backbone.feature_dims[-1],
            backbone.text_width,
            self.weights.lora.shapes if config.hypernetwork else {},
            width=config.width,
            blocks=config.blocks,
            hyper_width=config.hyper_width,
            rng=torch.Generator().manual_seed(config.init_seed),
            device=device,
        )
        self.signature = _signature(config, backbone, clip_dims)
        start = backbone.token_embedding(config.domain_word).detach().to(device, torch.float32)
        self.register_buffer("start_D", start, persistent=False)
        self.to(target)
        self.held = Held()

    def predict(self, backbone: Backbone, tokens_BTD: Tensor, x_t_BChw: Tensor, t_B: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D) embeddings v*, and (B, P) LoRA weights in flat form: zeros without a hypernetwork. No weights may be
        on the backbone."""
        offset_BD, lora_BP = self.encoder(tokens_BTD, backbone.mid_features(x_t_BChw, t_B))
        if lora_BP is None:
            lora_BP = offset_BD.new_zeros(len(offset_BD), self.weights.lora.numbers)
        return self.start_D + self.scale * offset_BD, lora_BP


def concept_weights(config: DomainAgnosticConfig, backbone: Backbone, paths: DualPathConfig) -> ConceptWeights:
    """An embedding and LoRA of the configured rank. It refers to the backbone alone, not to the encoder."""
    return ConceptWeights(backbone, config.rank, config.alpha, paths, config.domain_word)


def _signature(config: DomainAgnosticConfig, backbone: Backbone, clip_dims: tuple[int, int]) -> dict[str, Any]:
    fields = ("domain_word", "token_scale", "hypernetwork", "rank", "alpha", "width", "blocks", "hyper_width")
    ours = {f"method.{name}": getattr(config, name) for name in fields}
    theirs = {f"backbone.{part}": content for part, content in backbone.identity().items()}
    return {"method.name": "domain_agnostic", **ours, **theirs, "clip.width": clip_dims[1]}
