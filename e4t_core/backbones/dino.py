"""DINO vision transformers (Caron et al. 2021): self-supervised features that tell instances of a class apart."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from e4t_core.backbones._locate import model_folder
from e4t_core.backbones._transformers_files import PATTERNS, check, input_format, transformers_fingerprint
from e4t_core.backbones.image_input import ImageInput, InputFormat
from e4t_core.config import Config

_KIND = "vit"
_BILINEAR = 2
"""What ViT's image processor does where its file does not say."""


class DinoConfig(Config):
    """A ViT in transformers' folder layout with safetensors weights.

    Attributes:
        path: local folder, ``s3://`` URI or hub id with a ``model.safetensors``.
        dtype: parameter type in the worker.
    """

    path: str
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


class Dino(nn.Module):
    """A frozen ViT without a head.

    Args:
        model: transformers' ViTModel.
        takes: how it wants its images.
    """

    def __init__(self, model: Any, takes: InputFormat) -> None:
        super().__init__()
        self.model, self.prepared = model, ImageInput(takes)
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, images_B3HW: Tensor) -> Tensor:
        """(B, D) [CLS] tokens after the last norm, of images in [-1, 1] of any size."""
        pixels_B3hw = self.prepared(images_B3HW).to(self.model.dtype)
        return self.model(pixels_B3hw, interpolate_pos_encoding=True).last_hidden_state[:, 0]


def load_dino(config: DinoConfig, device: str | torch.device = "cpu") -> Dino:
    """The transformer a recipe names, on ``device``.

    Raises:
        UserError: nothing at ``config.path``, a file is missing, or it is no ViT.
        CheckpointMismatch: weights of another size, or with missing or unknown tensors.
    """
    # here and not above: a driver that asks for the fingerprint needs no transformers
    from transformers import ViTModel

    from e4t_core.backbones._pretrained import from_safetensors

    with model_folder(config.path, PATTERNS) as folder:
        check(folder, _KIND)
        takes = input_format(folder, _BILINEAR)
        # DINO was trained without ViT's pooler, and its published files have none
        model = from_safetensors(ViTModel, folder, getattr(torch, config.dtype), add_pooling_layer=False)
    return Dino(model, takes).to(device)


def dino_weights_fingerprint(config: DinoConfig) -> str:
    """Content fingerprint of the weights, configuration and preprocessing; loads no model."""
    return transformers_fingerprint(config.path, _KIND)
