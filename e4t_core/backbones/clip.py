"""open_clip models: per-layer image features, and embeddings of images and texts in CLIP's joint space."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from e4t_core.backbones._fingerprints import file_hash, model_fingerprint
from e4t_core.backbones._locate import model_folder
from e4t_core.backbones._parts import private_stream
from e4t_core.backbones.config import ClipConfig
from e4t_core.errors import CheckpointMismatch, UsageError, UserError
from e4t_core.record import fingerprint

_CONFIG = "open_clip_config.json"
_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors")
_PATTERNS = (_CONFIG, *_WEIGHTS, "vocab.json", "merges.txt", "tokenizer*.json", "special_tokens_map.json")
_PRECISION = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


class ClipModel(nn.Module):
    """A frozen open_clip model with a vision transformer.

    Args:
        model: the open_clip model.
        tokenizer: its tokenizer (texts -> (B, T) ids).
        every: image features are the [CLS] of every ``every``-th layer.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, every: int) -> None:
        super().__init__()
        self.model: Any = model.requires_grad_(False).eval()
        self.tokenizer = tokenizer
        visual: Any = model.visual
        if not isinstance(visual, VisionTransformer):
            raise UserError(
                f"this open_clip model has a {type(visual).__name__}; layer features need a vision transformer"
            )
        layers = len(visual.transformer.resblocks)
        if not 1 <= every <= layers:
            raise UsageError(f"clip.every is {every}; this model has {layers} layers")
        self.levels = list(range(every - 1, layers, every))
        """Indices of the layers whose [CLS] is taken (E4T section 3.1: 2, 4, ..., counted from 1)."""
        self.patches = visual.grid_size[0] * visual.grid_size[1]
        self._last = layers - 1
        self._width = int(visual.transformer.width)
        self._size = int(visual.image_size[0])
        mean, std = visual.image_mean, visual.image_std
        self._mean_311: Tensor
        self._std_311: Tensor
        self.register_buffer("_mean_311", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("_std_311", torch.tensor(std).view(3, 1, 1), persistent=False)

    @classmethod
    def load(cls, cfg: ClipConfig, device: str | torch.device = "cpu") -> ClipModel:
        """The model a recipe names; see :func:`e4t_core.backbones.load_clip`."""
        with _source(cfg) as (name, folder):
            if folder is not None and cfg.random_seed is None:
                _weights(folder)
            model = _create(name, cfg)
            return cls(model, open_clip.get_tokenizer(name), cfg.every).to(device)

    @classmethod
    def from_config(cls, path: str, every: int = 2, device: str = "meta") -> ClipModel:
        """The model's shape without its weights."""
        with _source(ClipConfig(path=path, random_seed=0)) as (name, _), torch.device(device), _quiet():
            model = open_clip.create_model(name, load_weights=False, device=device)
            return cls(model, open_clip.get_tokenizer(name), every)

    @property
    def dims(self) -> tuple[int, int]:
        """(L, D): number of [CLS] levels and their width."""
        return len(self.levels), self._width

    @property
    def embedding_width(self) -> int:
        """E of the joint space."""
        return int(self.model.visual.output_dim)

    @torch.no_grad()
    def image_features(self, images_B3HW: Tensor, tokens: bool = False) -> tuple[Tensor, Tensor | None]:
        """One pass: (B, L, D) float32 [CLS] tokens of the levels, and (B, T, D) patch tokens of the last layer.

        Both are the layers' raw outputs, before the final norm. Patch tokens are None unless asked for.
        """
        wanted = sorted({*self.levels, self._last}) if tokens else self.levels
        found = self.model.visual.forward_intermediates(
            self._prepare(images_B3HW),
            indices=wanted,
            stop_early=True,
            intermediates_only=True,
            output_fmt="NLC",
            output_extra_tokens=True,
        )
        prefixes = dict(zip(wanted, found["image_intermediates_prefix"], strict=True))
        cls_BLD = torch.cat([prefixes[level] for level in self.levels], dim=1).float()
        return cls_BLD, found["image_intermediates"][-1].float() if tokens else None

    @torch.no_grad()
    def embed_images(self, images_B3HW: Tensor) -> Tensor:
        """(B, E) float32 embeddings of unit length."""
        return F.normalize(self.model.encode_image(self._prepare(images_B3HW)).float(), dim=-1)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """(B, E) float32 embeddings of unit length."""
        ids_BT = self.tokenizer(list(texts)).to(self._mean_311.device)
        return F.normalize(self.model.encode_text(ids_BT).float(), dim=-1)

    def _prepare(self, images_B3HW: Tensor) -> Tensor:
        """Square images in [-1, 1] at the model's size, normalised with its mean and std (open_clip's transform)."""
        height, width = images_B3HW.shape[-2:]
        if height != width:
            raise ValueError(f"CLIP takes square images, not {width} x {height}")
        unit = (images_B3HW.float() + 1) / 2
        if width != self._size:
            unit = F.interpolate(unit, size=(self._size, self._size), mode="bicubic", antialias=True).clamp(0, 1)
        return ((unit - self._mean_311) / self._std_311).to(self.model.visual.conv1.weight.dtype)


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


def _create(name: str, cfg: ClipConfig) -> nn.Module:
    precision = _PRECISION[cfg.dtype]
    if cfg.random_seed is not None:
        with private_stream(cfg.random_seed), _quiet():
            return open_clip.create_model(name, load_weights=False, precision=precision)
    try:
        with _quiet():
            return open_clip.create_model(name, cfg.pretrained, precision=precision, require_pretrained=True)
    except RuntimeError as error:
        raise CheckpointMismatch(f"the weights of CLIP '{cfg.path}' cannot be used: {error}") from error


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
