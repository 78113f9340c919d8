"""Encoder for Tuning (Gal et al. 2023) behind the method contract."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import nn

from e4t_core.backbones.base import Backbone
from e4t_core.errors import UsageError, nearest
from e4t_core.losses import latent_mask
from e4t_core.methods.base import Adapter, Conditioning, Identity, Losses, Method
from e4t_core.methods.e4t.conditioning import E4TConditioning
from e4t_core.methods.e4t.config import E4TConfig
from e4t_core.methods.e4t.module import E4TModule
from e4t_core.methods.e4t.objective import noisy_batch, objective, with_placeholder
from e4t_core.methods.e4t.personalization import image_index, personalize_one
from e4t_core.record import Record
from e4t_core.storage import Store
from e4t_core.training.artifacts import save_adapter


class E4T(Method):
    """An encoder and weight offsets learned on a domain; a few steps on one image make them a person's."""

    name: ClassVar[str] = "e4t"
    Config: ClassVar[type[E4TConfig]] = E4TConfig
    columns: tuple[str, ...] = ("latent", "clip", "caption")

    config: E4TConfig

    def __init__(self, config: E4TConfig) -> None:
        super().__init__(config)
        if config.mask:
            self.columns = (*type(self).columns, "mask")

    def build(self, backbone: Backbone, clip_dims: tuple[int, int]) -> nn.Module:
        """An :class:`~e4t_core.methods.e4t.module.E4TModule` on the backbone's device."""
        return E4TModule(self.config, backbone, clip_dims)

    def pretrain_loss(
        self, module: nn.Module, backbone: Backbone, batch: Mapping[str, Any], rng: torch.Generator
    ) -> Losses:
        """Eq. 5 with the noise of every sample drawn from ``rng``.

        ``batch`` holds ``latent_moments``, ``clip_cls`` and, as configured, ``templates`` and ``masks``.
        """
        prompts = with_placeholder(backbone, self._templates(batch, backbone, rng))
        mask = latent_mask(batch["masks"], backbone.latent_shape[1:]) if self.config.mask else None
        noisy = noisy_batch(backbone, batch["latent_moments"], prompts, batch["clip_cls"], mask, rng)
        return objective(self.config, cast(E4TModule, module), backbone, noisy, self.config.reg_weight)

    def _templates(self, batch: Mapping[str, Any], backbone: Backbone, rng: torch.Generator) -> list[str]:
        if self.config.prompts == "caption":
            return list(batch["templates"])
        known = self.config.templates
        drawn = torch.randint(len(known), (len(batch["clip_cls"]),), generator=rng, device=backbone.device)
        return [known[i] for i in drawn.tolist()]

    @contextlib.contextmanager
    def pretraining(self, module: nn.Module, backbone: Backbone) -> Iterator[None]:
        """The offsets are on the attention projections."""
        with cast(E4TModule, module).offsets.on(backbone.projections(("q", "k", "v"))):
            yield

    @contextlib.contextmanager
    def step(self, module: nn.Module) -> Iterator[None]:
        """Each dW is computed once."""
        with cast(E4TModule, module).offsets.held():
            yield

    def personalize(self, module: nn.Module, backbone: Backbone, identities: Sequence[Identity]) -> list[Adapter]:
        """One after the other: E4T tunes the denoiser, which is restored in place between identities."""
        return [personalize_one(self.config, cast(E4TModule, module), backbone, one) for one in identities]

    def conditioning(
        self, module: nn.Module, backbone: Backbone, adapter: Adapter, identity: Identity, prompts: Sequence[str]
    ) -> Conditioning:
        """Predicts the embedding at every step, from the image that the adapter was tuned on."""
        cls_LD = identity.clip_cls_NLD[adapter.meta.get("image", image_index(self.config, identity))]
        return E4TConditioning(self.config, cast(E4TModule, module), backbone, adapter, cls_LD, prompts)

    def export(self, adapter: Adapter, uri: str, fmt: str, record: Record, backbone: Backbone) -> Record:
        """Write ``adapter.safetensors`` and ``record.json`` under ``uri``. E4T tunes a whole denoiser together with
        an encoder that runs at every step, which no format but our own can hold.

        Raises:
            UsageError: ``fmt`` is not ``native``.
        """
        if fmt != "native":
            raise UsageError(f"method 'e4t' cannot export '{fmt}'{nearest(fmt, ['native'])}")
        return save_adapter(Store(uri), "adapter", adapter, record)
