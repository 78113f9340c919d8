"""open_clip models: per-layer image features, and embeddings of images and texts in CLIP's joint space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from e4t_core.errors import UsageError, UserError


class ClipModel(nn.Module):
    """A frozen open_clip model with a vision transformer.

    Args:
        model: the open_clip model.
        tokenizer: its tokenizer (texts -> (B, T) ids).
        every: image features are the [CLS] of every ``every``-th layer.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, every: int) -> None:
        super().__init__()
        self.model: Any = model
        self.tokenizer = tokenizer
        visual: Any = model.visual
        if not isinstance(getattr(getattr(visual, "transformer", None), "resblocks", None), nn.ModuleList):
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
        self.requires_grad_(False).eval()

    @classmethod
    def from_config(cls, path: str, every: int = 2, device: str = "meta") -> ClipModel:
        """The model's shape without its weights: sizes of a full-size model at no cost on ``meta``."""
        from e4t_core.backbones import _open_clip

        return cls(*_open_clip.build(path, device), every).to(device)

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
