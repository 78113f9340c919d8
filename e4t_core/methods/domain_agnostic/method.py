"""The domain-agnostic tuning encoder (Arar et al. 2023) behind the method contract."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import nn

from e4t_core.adapters.concurrent import tuning_fit
from e4t_core.adapters.dual_path import DualPathConfig
from e4t_core.adapters.export.textual_inversion import save_embedding
from e4t_core.adapters.low_rank import LowRank
from e4t_core.backbones.base import Backbone
from e4t_core.errors import DataError, UsageError, nearest
from e4t_core.losses import draw_noise, marks_of
from e4t_core.methods.base import Adapter, Conditioning, Identity, Losses, Method, ParameterGroup
from e4t_core.methods.domain_agnostic.adapter import TOKEN, check_backbone, check_one_path, layers
from e4t_core.methods.domain_agnostic.conditioning import ConceptConditioning
from e4t_core.methods.domain_agnostic.config import DomainAgnosticConfig
from e4t_core.methods.domain_agnostic.module import DomainAgnosticModule, concept_weights
from e4t_core.methods.domain_agnostic.objective import NoisyBatch, objective
from e4t_core.methods.domain_agnostic.personalization import personalize_all
from e4t_core.record import Record
from e4t_core.storage import Store
from e4t_core.training.artifacts import save_adapter


class DomainAgnostic(Method):
    """One encoder for things of any class predicts a word near real words and low-rank weights; a dozen steps refine
    them, and one path through every attention stays the untouched model's."""

    name: ClassVar[str] = "domain_agnostic"
    Config: ClassVar[type[DomainAgnosticConfig]] = DomainAgnosticConfig
    columns: tuple[str, ...] = ("latent", "clip", "caption")
    formats: ClassVar[tuple[str, ...]] = ("native", "textual_inversion")

    config: DomainAgnosticConfig

    def __init__(self, config: DomainAgnosticConfig) -> None:
        super().__init__(config)
        self._fitting = tuning_fit()

    def build(self, backbone: Backbone, clip_dims: tuple[int, int]) -> nn.Module:
        """A :class:`~e4t_core.methods.domain_agnostic.module.DomainAgnosticModule` on the backbone's device."""
        return DomainAgnosticModule(self.config, backbone, clip_dims)

    def parameter_groups(self, module: nn.Module) -> list[ParameterGroup]:
        """Trunk and token embedder; hypernetwork (section 5.1)."""
        encoder = cast(DomainAgnosticModule, module).encoder
        groups = [ParameterGroup([*encoder.trunk.parameters(), *encoder.token.parameters()])]
        if encoder.hypernetwork is not None:
            groups.append(ParameterGroup(list(encoder.hypernetwork.parameters()), self.config.hyper_rate))
        return groups

    @contextlib.contextmanager
    def step(self, module: nn.Module) -> Iterator[None]:
        """Predicted weights stay on the backbone until the backward pass is over."""
        with cast(DomainAgnosticModule, module).held.step():
            yield

    def pretrain_loss(
        self, module: nn.Module, backbone: Backbone, batch: Mapping[str, Any], rng: torch.Generator
    ) -> Losses:
        """Eq. 1 and 3 to 5 with the noise of every sample drawn from ``rng``.

        ``batch`` holds ``latent_moments``, ``clip_tokens``, ``keys`` and, as configured, ``templates``.

        Raises:
            DataError: the column ``clip`` was made without patch tokens.
        """
        ours = cast(DomainAgnosticModule, module)
        if "clip_tokens" not in batch:
            raise DataError(
                "column 'clip' has no patch tokens, which the encoder reads: set stages.clip.tokens=true and run "
                "preprocess"
            )
        prompts = [t.replace("{}", backbone.placeholder) for t in self._templates(batch, backbone, rng)]
        x0, eps, t = draw_noise(backbone, batch["latent_moments"], rng)
        ids, marks = backbone.tokenize(prompts).to(backbone.device), marks_of(batch["keys"], backbone.device)
        noisy, scope = NoisyBatch(x0, eps, t, ids, batch["clip_tokens"], marks), ours.held.fresh()
        return objective(self.config, ours, backbone, noisy, scope)

    def _templates(self, batch: Mapping[str, Any], backbone: Backbone, rng: torch.Generator) -> list[str]:
        if self.config.prompts == "caption":
            return list(batch["templates"])
        known = self.config.templates
        drawn = torch.randint(len(known), (len(batch["keys"]),), generator=rng, device=backbone.device)
        return [known[i] for i in drawn.tolist()]

    def personalize(self, module: nn.Module, backbone: Backbone, identities: Sequence[Identity]) -> list[Adapter]:
        """Predicted one by one, tuned together."""
        ours = cast(DomainAgnosticModule, module)
        return personalize_all(self.config, ours, backbone, identities, self._fitting)

    def conditioning(
        self, module: nn.Module, backbone: Backbone, adapter: Adapter, identity: Identity, prompts: Sequence[str]
    ) -> Conditioning:
        """The adapter's embedding and weights on one path, its nearest token on the other. An adapter without tensors
        has no paths that could differ: the word that predictions start from is all there is."""
        check_backbone(backbone, adapter)
        paths = self.config.tuned_paths if adapter.tensors else DualPathConfig(per="none")
        weights = concept_weights(self.config, backbone, paths)
        if not adapter.tensors:
            adapter = Adapter(adapter.method, adapter.identity, {TOKEN: weights.token.start_D}, adapter.meta)
        return ConceptConditioning(weights, backbone, adapter, prompts)

    def low_rank_layers(self, adapter: Adapter, backbone: Backbone) -> Mapping[str, LowRank]:
        """The tuned LoRA, exact where there is one path; its embedding comes as ``textual_inversion`` beside it."""
        return layers(self.config, adapter)

    def export(self, adapter: Adapter, uri: str, fmt: str, record: Record, backbone: Backbone) -> Record:
        """Write ``adapter.safetensors`` and its record under ``uri``; or ``embedding.safetensors``, which
        ``load_textual_inversion`` of diffusers reads, the half of a one-path adapter that is not LoRA.

        Raises:
            UsageError: no such format, or the adapter draws with two paths and an embedding alone is not it.
        """
        if fmt == "native":
            return save_adapter(Store(uri), "adapter", adapter, record)
        if fmt != "textual_inversion":
            raise UsageError(f"method 'domain_agnostic' cannot export '{fmt}'{nearest(fmt, self.formats)}")
        check_one_path(self.config, adapter)
        save_embedding(Store(uri), "embedding.safetensors", backbone.placeholder, adapter.tensors[TOKEN], record)
        return record
