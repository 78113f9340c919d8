"""Finds, creates and fingerprints open_clip models."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors import SafetensorError
from torch import nn

from e4t_core.backbones._fingerprints import file_hash, model_fingerprint
from e4t_core.backbones._locate import model_folder
from e4t_core.backbones._random import private_stream
from e4t_core.backbones.clip import ClipModel
from e4t_core.backbones.config import ClipConfig
from e4t_core.errors import CheckpointMismatch, UsageError, UserError
from e4t_core.record import fingerprint

_CONFIG = "open_clip_config.json"
_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors")
_PATTERNS = (_CONFIG, *_WEIGHTS, "vocab.json", "merges.txt", "tokenizer*.json", "special_tokens_map.json")
_PRECISION = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


def load(cfg: ClipConfig, device: str | torch.device) -> ClipModel:
    """The model a recipe names; see :func:`e4t_core.backbones.load_clip`."""
    with _source(cfg) as (name, folder), _quiet():
        model = _from_folder(name, folder, cfg) if folder is not None else _from_library(name, cfg)
        return ClipModel(model, open_clip.get_tokenizer(name), cfg.every).to(device)


def build(path: str, device: str) -> tuple[nn.Module, Any]:
    """(model without its weights, tokenizer)."""
    with _source(ClipConfig(path=path, random_seed=0)) as (name, _), torch.device(device), _quiet(), private_stream(0):
        return open_clip.create_model(name, load_weights=False, device=device), open_clip.get_tokenizer(name)


def weights_fingerprint(cfg: ClipConfig) -> str:
    """Fingerprint of the model's configuration with its weights (or the seed that draws them, or its published tag)."""
    with _source(cfg) as (name, folder):
        if folder is not None:
            weights = [_weights(folder)] if cfg.random_seed is None else []
            return model_fingerprint(_read(folder), weights, cfg.random_seed)
        tag = cfg.pretrained
        if tag is not None and os.path.isfile(tag):
            tag = file_hash(Path(tag))
        config = open_clip.get_model_config(name)
        return fingerprint({"config": config, "seed": cfg.random_seed, "pretrained": tag})


@contextlib.contextmanager
def _source(cfg: ClipConfig) -> Iterator[tuple[str, Path | None]]:
    """(open_clip's name for the model, its folder if it is not one of open_clip's own)."""
    if cfg.path in open_clip.list_models():
        if cfg.pretrained is None and cfg.random_seed is None:
            tags = ", ".join(open_clip.list_pretrained_tags_by_model(cfg.path))
            raise UsageError(f"clip.path is open_clip's '{cfg.path}': set clip.pretrained (a weights file, or {tags})")
        yield cfg.path, None
        return
    with model_folder(cfg.path, _PATTERNS) as folder:
        yield f"local-dir:{folder}", folder


def _read(folder: Path) -> dict[str, Any]:
    path = folder / _CONFIG
    if not path.is_file():
        raise UserError(f"{folder} has no {_CONFIG}; it must be an open_clip model folder")
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error


def _weights(folder: Path) -> Path:
    _read(folder)
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder} has none of {', '.join(_WEIGHTS)}; save the weights as safetensors, or set random_seed")


def _from_folder(name: str, folder: Path, cfg: ClipConfig) -> nn.Module:
    """Weights from the one file that :func:`weights_fingerprint` reads, or drawn."""
    weights = _weights(folder) if cfg.random_seed is None else None
    with private_stream(cfg.random_seed or 0):
        model = open_clip.create_model(name, load_weights=False, precision=_PRECISION[cfg.dtype])
    if weights is not None:
        try:
            open_clip.load_checkpoint(model, str(weights))
        except (RuntimeError, SafetensorError) as error:
            raise CheckpointMismatch(f"{weights} does not fit {_CONFIG} beside it: {error}") from error
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
