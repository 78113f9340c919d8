"""A small DINO of the real class with random weights, saved in its real format."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import ViTConfig, ViTImageProcessor, ViTModel

SIDE = 32


def save_dino(folder: Path, seed: int = 0) -> Path:
    """A ViT of two layers for 32 x 32 images."""
    folder.mkdir(parents=True, exist_ok=True)
    config = ViTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        image_size=SIDE,
        patch_size=8,
        qkv_bias=True,
    )
    model = ViTModel(config, add_pooling_layer=False)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.normal_(std=0.2, generator=generator)
    model.save_pretrained(folder)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    ViTImageProcessor(size={"height": SIDE, "width": SIDE}, image_mean=mean, image_std=std).save_pretrained(folder)
    return folder
