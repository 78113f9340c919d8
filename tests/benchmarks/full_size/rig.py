"""What all parts measure with: models, recipes, made-up inputs, clocks."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from e4t_core.adapters.clock import now
from e4t_core.adapters.lidb import LiDBConfig, Space
from e4t_core.adapters.tunable import LiDBWeights
from e4t_core.backbones import ClipModel, load_backbone, load_clip
from e4t_core.backbones.base import Backbone
from e4t_core.methods.base import Identity, Method
from jobs._models import peak_memory, reset_peak_memory
from jobs._recipe import Recipe, load

_FULL = (
    "backbone.path=bundled:sd15", "backbone.random_seed=0", "clip.path=bundled:clip_vit_h_14", "clip.random_seed=0",
    "clip.pretrained=null",
)  # fmt: skip
_MODELS_OF = ("sd15", "tiny")
"""The recipe of E4T, which the others extend, at either size."""


@dataclass
class Rig:
    """The size that is measured, and the models of that size, loaded when the first part asks for them.

    Attributes:
        device: where.
        small: the tiny stack instead of Stable Diffusion 1.5.
        methods: those whose rows are wanted; all if None.
    """

    device: torch.device
    small: bool
    methods: frozenset[str] | None = None

    def wants(self, method: str) -> bool:
        """Whether this method's rows are measured."""
        return self.methods is None or method in self.methods

    def recipe(self, method: str, *sets: str) -> Recipe:
        """The committed recipe of a method at this size, with changes."""
        size = _MODELS_OF[self.small]
        name = size if method == "e4t" else f"{method}_{size}"
        return load(name, [*(() if self.small else _FULL), *sets])

    @cached_property
    def backbone(self) -> Backbone:
        """The frozen model of all parts."""
        return load_backbone(self.recipe("e4t").backbone, self.device)

    @cached_property
    def clip(self) -> ClipModel:
        """The image encoder whose features the columns hold."""
        return load_clip(self.recipe("e4t").clip, self.device)

    def few(self, count: int) -> int:
        """``count`` of whatever is repeated, or enough to see that it runs."""
        return min(count, 2) if self.small else count

    def without_checkpointing(self) -> None:
        """As it was loaded: methods and training switch checkpointing on and never off."""
        unet = getattr(self.backbone, "unet", None)
        if unet is not None:
            unet.disable_gradient_checkpointing()

    # --- made-up inputs

    def pixels(self, count: int, seed: int = 0) -> Tensor:
        """(count, 3, H, W) in [-1, 1]."""
        side = self.recipe("e4t").backbone.resolution
        return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1

    @cached_property
    def features(self) -> tuple[Tensor, Tensor]:
        """(1, L, D) [CLS] and (1, T, D) patch tokens of an image."""
        with torch.inference_mode():
            cls_1LD, tokens_1TD = self.clip.image_features(self.pixels(1).to(self.device), tokens=True)
        assert tokens_1TD is not None
        return cls_1LD.float().cpu().clone(), tokens_1TD.float().cpu().clone()

    def identities(self, count: int) -> list[Identity]:
        """People of noise, each with one photo."""
        cls_1LD, tokens_1TD = self.features
        side = self.recipe("e4t").backbone.resolution
        return [
            Identity(str(n), self.pixels(1, n), cls_1LD, torch.ones(1, 1, side, side), n, tokens_1TD)
            for n in range(count)
        ]

    def batch(self, method: Method, recipe: Recipe) -> dict[str, Any]:
        """A batch as the loader gives it to this method."""
        count, (cls_1LD, tokens_1TD) = recipe.train.batch_size, self.features
        channels, h, w = self.backbone.latent_shape
        rng = torch.Generator().manual_seed(0)
        keys = [str(n) for n in range(count)]
        made: dict[str, Any] = {
            "keys": keys, "ids": keys, "parts": _parts(method, count),
            "identities": [str(n // 2) for n in range(count)],
            "texts": ["a photo of a face"] * count, "templates": ["a photo of {}"] * count,
            "latent_moments": torch.randn(count, 2 * channels, h, w, generator=rng),
            "clip_cls": cls_1LD.expand(count, -1, -1), "clip_tokens": tokens_1TD.expand(count, -1, -1),
        }  # fmt: skip
        if method.references is not None:
            made |= {f"reference_{name}": made[name] for name in ("clip_cls", "clip_tokens")}
        if "mask" in method.columns:
            made["masks"] = torch.ones(count, 1, *self.pixels(1).shape[2:])
        if "lidb" in method.columns:
            lidb = getattr(method.config, "lidb", LiDBConfig())
            numbers = LiDBWeights(self.backbone, Space.of(self.backbone, lidb)).numbers
            made["lidb"] = torch.randn(count, numbers, generator=rng) * 0.02
        return made

    # --- clocks

    def seconds(self, call: Callable[[], object]) -> float:
        """Of one call, until the device has done it."""
        started = now(self.device)
        call()
        return now(self.device) - started

    def fresh(self) -> None:
        """Nothing is held of what ran before, and a new peak of memory begins."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        reset_peak_memory(self.device)

    def peak_gb(self) -> float:
        """Most memory in use since :meth:`fresh`, in units of 1e9 bytes."""
        return peak_memory(self.device) / 1e9


def _parts(method: Method, count: int) -> list[str | None]:
    """Where each sample of a mix is from: three in ten of the first part (Taming Encoder figure 9)."""
    names = list(getattr(method.config, "parts", {}))
    if not names:
        return [None] * count
    return [names[0] if n < round(0.3 * count) else names[-1] for n in range(count)]
