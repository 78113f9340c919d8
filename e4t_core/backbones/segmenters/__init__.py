"""Frozen models that say which pixels are foreground; their libraries are imported when one is loaded."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from e4t_core.backbones.segmenters.config import ClipSegConfig, SaliencyConfig, SegformerConfig, SegmenterConfig

if TYPE_CHECKING:
    import torch

    from e4t_core.backbones.segmenters.base import Segmenter

_FILES: dict[type[SegmenterConfig], str] = {
    ClipSegConfig: "clipseg",
    SegformerConfig: "segformer",
    SaliencyConfig: "saliency",
}
"""Configuration -> the file in this folder that loads it."""


def load_segmenter(config: SegmenterConfig, device: str | torch.device = "cpu") -> Segmenter:
    """The segmenter that ``config`` names, on ``device``.

    Raises:
        UserError: nothing at ``config.path``, another kind of model, a missing file, or weights that do not fit.
    """
    module = importlib.import_module(f"{__name__}.{_FILES[type(config)]}")
    segmenter: Segmenter = module.load(config, device)
    return segmenter


def segmenter_weights_fingerprint(config: SegmenterConfig) -> str:
    """Content fingerprint of the model's files, wherever they lie; loads no model.

    Raises:
        UserError: nothing at ``config.path``, another kind of model, or a missing file.
    """
    from e4t_core.backbones import _transformers_files
    from e4t_core.backbones.segmenters import _onnx_files

    if isinstance(config, SaliencyConfig):
        return _onnx_files.onnx_fingerprint(config)
    return _transformers_files.transformers_fingerprint(config.path, _FILES[type(config)])


__all__ = [
    "ClipSegConfig",
    "SaliencyConfig",
    "SegformerConfig",
    "SegmenterConfig",
    "load_segmenter",
    "segmenter_weights_fingerprint",
]
