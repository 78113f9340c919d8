"""HyperDreamBooth (Ruiz et al. 2023) behind the method contract."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import nn

from e4t_core.adapters.concurrent import tuning_fit
from e4t_core.adapters.lidb import Space, lidb_projections
from e4t_core.adapters.lidb_file import save_lidb
from e4t_core.adapters.low_rank import LowRank
from e4t_core.backbones.base import Backbone
from e4t_core.errors import DataError, UsageError, nearest
from e4t_core.losses import draw_noise, latent_mask
from e4t_core.methods._adapters import check_networks
from e4t_core.methods._conditioning import low_rank_conditioning, low_rank_together
from e4t_core.methods.base import Adapter, Conditioning, Identity, Losses, Method
from e4t_core.methods.hyperdreambooth.adapter import layers, lidb_alone
from e4t_core.methods.hyperdreambooth.config import HyperDreamBoothConfig
from e4t_core.methods.hyperdreambooth.module import HyperDreamBoothModule
from e4t_core.methods.hyperdreambooth.objective import NoisyBatch, objective, targets_of
from e4t_core.methods.hyperdreambooth.personalization import personalize_all
from e4t_core.record import Record
from e4t_core.storage import Store
from e4t_core.training.artifacts import save_adapter


class HyperDreamBooth(Method):
    """A hypernetwork predicts a person's low-rank weights from one image; a few steps of a higher rank add detail."""

    name: ClassVar[str] = "hyperdreambooth"
    Config: ClassVar[type[HyperDreamBoothConfig]] = HyperDreamBoothConfig
    columns: tuple[str, ...] = ("latent", "clip")
    draws_together: ClassVar[bool] = True
    formats: ClassVar[tuple[str, ...]] = ("native", "lidb")

    config: HyperDreamBoothConfig

    def __init__(self, config: HyperDreamBoothConfig) -> None:
        super().__init__(config)
        if config.beta:
            self.columns = (*self.columns, "lidb")
        if config.mask:
            self.columns = (*self.columns, "mask")
        self._space: Space | None = None
        self._fitting = tuning_fit()

    def build(self, backbone: Backbone, clip_dims: tuple[int, int]) -> nn.Module:
        """A :class:`~e4t_core.methods.hyperdreambooth.module.HyperDreamBoothModule` on the backbone's device."""
        return HyperDreamBoothModule(self.config, backbone, clip_dims)

    @contextlib.contextmanager
    def step(self, module: nn.Module) -> Iterator[None]:
        """Predicted weights stay on the backbone until the backward pass is over."""
        with cast(HyperDreamBoothModule, module).held.step():
            yield

    def pretrain_loss(
        self, module: nn.Module, backbone: Backbone, batch: Mapping[str, Any], rng: torch.Generator
    ) -> Losses:
        """Eq. 2 with the noise of every sample drawn from ``rng``.

        ``batch`` holds ``latent_moments``, ``clip_cls``, ``clip_tokens`` and, as configured, ``lidb`` and ``masks``.

        Raises:
            DataError: the column ``clip`` was made without patch tokens, or ``lidb`` for another space.
        """
        ours = cast(HyperDreamBoothModule, module)
        if "clip_tokens" not in batch:
            raise DataError(
                "column 'clip' has no patch tokens, which the hypernetwork reads: set stages.clip.tokens=true and run "
                "preprocess"
            )
        x0, eps, t = draw_noise(backbone, batch["latent_moments"], rng)
        noisy = NoisyBatch(
            x0,
            eps,
            t,
            ids=backbone.tokenize([self.config.prompt]).to(backbone.device).expand(len(t), -1),
            cls=batch["clip_cls"],
            tokens=batch["clip_tokens"],
            target=targets_of(ours, batch["lidb"]) if self.config.beta else None,
            mask=latent_mask(batch["masks"], backbone.latent_shape[1:]) if self.config.mask else None,
        )
        return objective(self.config, ours, backbone, noisy, ours.held.fresh())

    def personalize(self, module: nn.Module, backbone: Backbone, identities: Sequence[Identity]) -> list[Adapter]:
        """Predicted one by one, finetuned together."""
        ours = cast(HyperDreamBoothModule, module)
        return personalize_all(self.config, ours, backbone, identities, self._fitting)

    def conditioning(
        self, module: nn.Module, backbone: Backbone, adapter: Adapter, identity: Identity, prompts: Sequence[str]
    ) -> Conditioning:
        """The adapter's weights, and the words that it was trained with where the placeholder is."""
        check_networks(adapter, backbone)
        found = layers(self.config, cast(HyperDreamBoothModule, module).space, adapter, backbone.device)
        return low_rank_conditioning(backbone, lidb_projections(backbone), found, adapter.meta["prompt"], prompts)

    def conditioning_together(
        self,
        module: nn.Module,
        backbone: Backbone,
        adapters: Sequence[Adapter],
        identities: Sequence[Identity],
        prompts: Sequence[Sequence[str]],
    ) -> Conditioning:
        """Each image with its own identity's weights."""
        for adapter in adapters:
            check_networks(adapter, backbone)
        space = cast(HyperDreamBoothModule, module).space
        found = [layers(self.config, space, adapter, backbone.device) for adapter in adapters]
        said = [adapter.meta["prompt"] for adapter in adapters]
        return low_rank_together(backbone, lidb_projections(backbone), found, said, prompts)

    def low_rank_layers(self, adapter: Adapter, backbone: Backbone) -> Mapping[str, LowRank]:
        """Prediction and finetuning together: rank 1 + r, exact, on the CPU."""
        return layers(self.config, self._space_of(backbone), adapter, torch.device("cpu"))

    def _space_of(self, backbone: Backbone) -> Space:
        """Kept from call to call, because its bases are computed once."""
        space = Space.of(backbone, self.config.lidb)
        if self._space is None or self._space.shapes != space.shapes:
            self._space = space
        return self._space

    def export(self, adapter: Adapter, uri: str, fmt: str, record: Record, backbone: Backbone) -> Record:
        """Write ``adapter.safetensors`` and its record under ``uri``; or, of an adapter that is a prediction and no
        more, ``lidb.safetensors``: under 130 KB at Stable Diffusion 1.5, see :mod:`e4t_core.adapters.lidb_file`.

        Raises:
            UsageError: no such format, or the adapter was finetuned and LiDB weights alone are not it.
        """
        if fmt == "native":
            return save_adapter(Store(uri), "adapter", adapter, record)
        if fmt != "lidb":
            raise UsageError(f"method 'hyperdreambooth' cannot export '{fmt}'{nearest(fmt, self.formats)}")
        space = self._space_of(backbone)
        save_lidb(Store(uri), "lidb.safetensors", lidb_alone(self.config, space, adapter), space, record)
        return record
