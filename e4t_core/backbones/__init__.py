"""Frozen foreign models behind small interfaces; their libraries are imported when a model is asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from e4t_core.backbones.config import BackboneConfig, ClipConfig
from e4t_core.errors import UsageError, nearest

if TYPE_CHECKING:
    import torch

    from e4t_core.backbones.autoencoder import Autoencoder
    from e4t_core.backbones.base import Backbone
    from e4t_core.backbones.clip import ClipModel

_INTERFACES = {"Backbone": "base", "ClipModel": "clip"}
"""Class -> its file in this folder. They need torch, and a worker that only cuts images should not wait for it."""

FAMILIES = {"stable_diffusion": "StableDiffusionBackbone"}
"""File in this folder -> its backbone class."""


def __getattr__(name: str) -> Any:
    if name in _INTERFACES:
        return getattr(importlib.import_module(f"e4t_core.backbones.{_INTERFACES[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def load_backbone(cfg: BackboneConfig, device: str | torch.device = "cpu") -> Backbone:
    """The frozen diffusion model a recipe names, on ``device``.

    Raises:
        UserError: no such family, nothing at ``cfg.path``, a part is missing, or weights of another size.
    """
    return _family(cfg).load(cfg, device)


def backbone_shape(cfg: BackboneConfig) -> Backbone:
    """The model a recipe names on ``meta``: its sizes without its weights, to count with before anything is loaded.

    Raises:
        UserError: no such family, or nothing at ``cfg.path``.
    """
    return _family(cfg).from_config(cfg.path, "meta", cfg.resolution)


def _family(cfg: BackboneConfig) -> Any:
    if cfg.name not in FAMILIES:
        raise UsageError(f"no backbone family is called '{cfg.name}'{nearest(cfg.name, FAMILIES)}")
    return getattr(importlib.import_module(f"e4t_core.backbones.{cfg.name}"), FAMILIES[cfg.name])


def load_autoencoder(cfg: BackboneConfig, device: str | torch.device = "cpu") -> Autoencoder:
    """The backbone's autoencoder alone: what the latent stage needs, without the denoiser's memory."""
    from e4t_core.backbones import autoencoder

    return autoencoder.load_autoencoder(cfg, device)


def load_clip(cfg: ClipConfig, device: str | torch.device = "cpu") -> ClipModel:
    """The frozen open_clip model a recipe names, on ``device``.

    Raises:
        UserError: nothing at ``cfg.path``, no weights, weights of another size, or no vision transformer.
    """
    from e4t_core.backbones import _open_clip

    return _open_clip.load(cfg, device)


def vae_weights_fingerprint(cfg: BackboneConfig) -> str:
    """Content fingerprint of the autoencoder's configuration and weights; loads no model."""
    from e4t_core.backbones import _layout

    return _layout.vae_fingerprint(cfg)


def backbone_weights_fingerprint(cfg: BackboneConfig) -> str:
    """Content fingerprint of the whole backbone, its vocabulary and noise schedule included; loads no model."""
    from e4t_core.backbones import _layout

    return _layout.backbone_fingerprint(cfg)


def clip_weights_fingerprint(cfg: ClipConfig) -> str:
    """Content fingerprint of the CLIP model's configuration and weights; loads no model."""
    from e4t_core.backbones import _clip_files

    return _clip_files.weights_fingerprint(cfg)


__all__ = [
    "Backbone",
    "BackboneConfig",
    "ClipConfig",
    "ClipModel",
    "backbone_weights_fingerprint",
    "clip_weights_fingerprint",
    "load_autoencoder",
    "load_backbone",
    "load_clip",
    "vae_weights_fingerprint",
]
