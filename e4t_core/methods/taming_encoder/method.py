"""Taming Encoder (Jia et al. 2023) behind the method contract."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import nn

from e4t_core.backbones.base import Backbone
from e4t_core.errors import UsageError, nearest
from e4t_core.losses import draw_noise
from e4t_core.methods.base import Adapter, Conditioning, Identity, Losses, Method, ParameterGroup, References
from e4t_core.methods.taming_encoder.conditioning import TamingConditioning
from e4t_core.methods.taming_encoder.config import TamingEncoderConfig
from e4t_core.methods.taming_encoder.module import TamingEncoderModule
from e4t_core.methods.taming_encoder.objective import captions, in_domain, objective, objects
from e4t_core.methods.taming_encoder.personalization import object_of, personalize_all
from e4t_core.record import Record
from e4t_core.storage import Store
from e4t_core.training.artifacts import save_adapter


class TamingEncoder(Method):
    """One denoiser, trained to draw whichever object it is shown an embedding of; personalizing tunes nothing."""

    draws_together: ClassVar[bool] = True
    name: ClassVar[str] = "taming_encoder"
    Config: ClassVar[type[TamingEncoderConfig]] = TamingEncoderConfig
    columns: tuple[str, ...] = ("latent", "clip", "caption")
    several_images: ClassVar[bool] = True
    tunes: ClassVar[bool] = False

    config: TamingEncoderConfig

    def __init__(self, config: TamingEncoderConfig) -> None:
        super().__init__(config)
        if config.omega:
            self.references = References(("clip",), config.nearest)
            if config.nearest is not None:
                self.columns = (*self.columns, "identity")

    def build(self, backbone: Backbone, clip_dims: tuple[int, int]) -> nn.Module:
        """A :class:`~e4t_core.methods.taming_encoder.module.TamingEncoderModule` on the backbone's device."""
        return TamingEncoderModule(self.config, backbone, clip_dims)

    def parameter_groups(self, module: nn.Module) -> list[ParameterGroup]:
        """The new layers, and the denoiser's own weights."""
        ours = cast(TamingEncoderModule, module)
        groups = [
            ParameterGroup(list(ours.attention.parameters())),
            ParameterGroup(list(ours.denoiser.parameters()), self.config.denoiser_rate),
        ]
        return [group for group in groups if group.parameters]

    def pretrain_loss(
        self, module: nn.Module, backbone: Backbone, batch: Mapping[str, Any], rng: torch.Generator
    ) -> Losses:
        """Eq. 1 over triplets that are drawn by eq. 3 and 4 from ``rng``.

        ``batch`` holds ``latent_moments``, ``clip_cls``, ``texts``, ``templates``, ``parts`` and, unless omega is 0,
        ``reference_clip_cls``.

        Raises:
            DataError: ``method.parts`` does not say of a part of the mix what it is.
        """
        ours, device, count = cast(TamingEncoderModule, module), backbone.device, len(batch["clip_cls"])
        crossed_B = torch.rand(count, generator=rng, device=device) < self.config.omega
        dropped_B = torch.rand(count, generator=rng, device=device) < self.config.drop_caption
        x0, eps, t = draw_noise(backbone, batch["latent_moments"], rng)
        domain = in_domain(self.config, batch["parts"])
        texts = captions(self.config, batch, domain)
        texts = ["" if drop else text for text, drop in zip(texts, dropped_B.tolist(), strict=True)]
        ids = backbone.tokenize(texts).to(device)
        own = batch["clip_cls"]
        other = batch["reference_clip_cls"] if self.config.omega else own
        return objective(
            ours,
            backbone,
            x0,
            eps,
            t,
            ids,
            objects(ours, own, other, crossed_B, torch.tensor(domain, device=device)),
        )

    @contextlib.contextmanager
    def pretraining(self, module: nn.Module, backbone: Backbone) -> Iterator[None]:
        """The trained weights are in the places of the backbone's, and the new layers are in its blocks."""
        with cast(TamingEncoderModule, module).on(backbone):
            yield

    def personalize(self, module: nn.Module, backbone: Backbone, identities: Sequence[Identity]) -> list[Adapter]:
        """An embedding each; no step is tuned."""
        return personalize_all(cast(TamingEncoderModule, module), backbone, identities)

    def conditioning(
        self, module: nn.Module, backbone: Backbone, adapter: Adapter, identity: Identity, prompts: Sequence[str]
    ) -> Conditioning:
        """The trained weights with the adapter's object, and the class's words where the placeholder is."""
        ours = cast(TamingEncoderModule, module)
        found = object_of(ours, backbone, adapter)
        return TamingConditioning(ours, backbone, found, self.config.prompt, prompts)

    def conditioning_together(
        self,
        module: nn.Module,
        backbone: Backbone,
        adapters: Sequence[Adapter],
        identities: Sequence[Identity],
        prompts: Sequence[Sequence[str]],
    ) -> Conditioning:
        """One set of weights for all, and each image with its own identity's object."""
        ours = cast(TamingEncoderModule, module)
        objects_KLD = torch.stack([object_of(ours, backbone, adapter) for adapter in adapters])
        counts_K = torch.tensor([len(whose) for whose in prompts], device=objects_KLD.device)
        objects_BLD = objects_KLD.repeat_interleave(counts_K, dim=0)
        every = [prompt for whose in prompts for prompt in whose]
        return TamingConditioning(ours, backbone, objects_BLD, self.config.prompt, every)

    def export(self, adapter: Adapter, uri: str, fmt: str, record: Record, backbone: Backbone) -> Record:
        """Write ``adapter.safetensors`` and its record under ``uri``. An embedding means something to our trained
        denoiser alone, so no other program's format could hold it.

        Raises:
            UsageError: ``fmt`` is not ``native``.
        """
        if fmt != "native":
            raise UsageError(f"method 'taming_encoder' cannot export '{fmt}'{nearest(fmt, self.formats)}")
        return save_adapter(Store(uri), "adapter", adapter, record)
