"""Small random models of the real classes, in memory and saved in their real on-disk formats."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from e4t_core.backbones import ClipModel, load_backbone, load_clip
from e4t_core.backbones.config import BackboneConfig, ClipConfig
from e4t_core.backbones.stable_diffusion import StableDiffusionBackbone
from e4t_core.bundled import bundled_folder

RANDOM = BackboneConfig(path="bundled:tiny", random_seed=3, resolution=32)
RANDOM_CLIP = ClipConfig(path="bundled:clip_tiny", random_seed=3)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def images(count: int = 2, side: int = 32, seed: int = 0) -> Tensor:
    return torch.rand((count, 3, side, side), generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture(scope="session")
def backbone() -> StableDiffusionBackbone:
    loaded = load_backbone(RANDOM)
    assert isinstance(loaded, StableDiffusionBackbone)
    return loaded


@pytest.fixture(scope="session")
def pipeline_folder(backbone: StableDiffusionBackbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers pipeline folder with the weights of ``backbone``."""
    folder = tmp_path_factory.mktemp("pipeline")
    backbone.unet.save_pretrained(folder / "unet", safe_serialization=True)
    backbone.autoencoder.vae.save_pretrained(folder / "vae", safe_serialization=True)
    backbone.text_encoder.save_pretrained(folder / "text_encoder", safe_serialization=True)
    for part in ("tokenizer", "scheduler"):
        shutil.copytree(bundled_folder("tiny") / part, folder / part)
    return folder


@pytest.fixture
def broken_folder(pipeline_folder: Path, tmp_path: Path) -> Path:
    """A copy of ``pipeline_folder`` to damage."""
    return Path(shutil.copytree(pipeline_folder, tmp_path / "pipeline"))


@pytest.fixture(scope="session")
def clip() -> ClipModel:
    return load_clip(RANDOM_CLIP)
