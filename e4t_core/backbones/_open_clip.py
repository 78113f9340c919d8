"""Creates open_clip models."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors import SafetensorError
from torch import nn

from e4t_core.backbones._clip_files import CONFIG, source, weights_file
from e4t_core.backbones._random import private_stream
from e4t_core.backbones.clip import ClipModel
from e4t_core.backbones.config import ClipConfig
from e4t_core.errors import CheckpointMismatch, UserError

_PRECISION = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


def load(cfg: ClipConfig, device: str | torch.device) -> ClipModel:
    """The model a recipe names; see :func:`e4t_core.backbones.load_clip`."""
    with source(cfg) as (name, folder), _quiet():
        model = _from_folder(name, folder, cfg) if folder is not None else _from_library(name, cfg)
        return ClipModel(model, open_clip.get_tokenizer(name), cfg.every).to(device)


def build(path: str, device: str) -> tuple[nn.Module, Any]:
    """(model without its weights, tokenizer)."""
    with source(ClipConfig(path=path, random_seed=0)) as (name, _), torch.device(device), _quiet(), private_stream(0):
        return open_clip.create_model(name, load_weights=False, device=device), open_clip.get_tokenizer(name)


def _from_folder(name: str, folder: Path, cfg: ClipConfig) -> nn.Module:
    """Weights from the one file that :func:`weights_fingerprint` reads, or drawn."""
    weights = weights_file(folder) if cfg.random_seed is None else None
    with private_stream(cfg.random_seed or 0):
        model = open_clip.create_model(name, load_weights=False, precision=_PRECISION[cfg.dtype])
    if weights is not None:
        try:
            open_clip.load_checkpoint(model, str(weights))
        except (RuntimeError, SafetensorError) as error:
            raise CheckpointMismatch(f"{weights} does not fit {CONFIG} beside it: {error}") from error
    return model


def _from_library(name: str, cfg: ClipConfig) -> nn.Module:
    """One of open_clip's own models: its published weights, a weights file, or drawn."""
    trained = cfg.random_seed is None
    try:
        with private_stream(cfg.random_seed or 0):
            return open_clip.create_model(
                name,
                cfg.pretrained if trained else None,
                precision=_PRECISION[cfg.dtype],
                require_pretrained=trained,
            )
    except (RuntimeError, SafetensorError) as error:
        raise UserError(f"CLIP '{name}' with clip.pretrained '{cfg.pretrained}' cannot be loaded: {error}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """open_clip reports through the root logger, which would also install a handler there."""
    root = logging.getLogger()
    silent = logging.NullHandler()
    before = root.manager.disable
    root.addHandler(silent)
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)
        root.removeHandler(silent)
