"""SegFormer (Xie et al. 2021): semantic classes, from ADE20K's scenes to the parts of a face."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import SegformerForSemanticSegmentation

from e4t_core.backbones._locate import model_folder
from e4t_core.backbones._pretrained import from_safetensors
from e4t_core.backbones._transformers_files import PATTERNS, check, input_format
from e4t_core.backbones.image_input import InputFormat
from e4t_core.backbones.segmenters.base import Segmenter
from e4t_core.backbones.segmenters.config import SegformerConfig
from e4t_core.errors import UsageError, nearest


class Segformer(Segmenter):
    """The foreground is any of the chosen classes: the sum of their probabilities.

    Args:
        model: transformers' model.
        labels: names or numbers of its classes.
        takes: how the model wants its images.

    Raises:
        UsageError: the model has no such class.
    """

    def __init__(
        self, model: SegformerForSemanticSegmentation, labels: Sequence[str | int], takes: InputFormat
    ) -> None:
        super().__init__(takes)
        self.model: Any = model
        self._classes_K: Tensor
        self.register_buffer("_classes_K", torch.tensor(classes(labels, model.config.id2label)), persistent=False)

    def foreground(self, pixels_B3hw: Tensor) -> Tensor:
        logits_BChw = self.model(pixel_values=pixels_B3hw).logits
        return logits_BChw.softmax(dim=1)[:, self._classes_K].sum(dim=1)


def classes(labels: Sequence[str | int], names: Mapping[int, str]) -> list[int]:
    """The classes that ``labels`` name, each once, sorted.

    Args:
        names: class number -> name (``id2label``).

    Raises:
        UsageError: there is no such class; the nearest name is suggested.
    """
    for label in labels:
        if isinstance(label, str) and label not in names.values():
            raise UsageError(f"the model has no class '{label}'{nearest(label, names.values())}")
        if isinstance(label, int) and label not in names:
            raise UsageError(f"the model has no class {label}; its classes are 0 to {max(names)}")
    return [number for number, name in sorted(names.items()) if number in labels or name in labels]


def load(config: SegformerConfig, device: str | torch.device) -> Segformer:
    """See :func:`e4t_core.backbones.segmenters.load_segmenter`."""
    with model_folder(config.path, PATTERNS) as folder:
        check(folder, "segformer")
        model = from_safetensors(SegformerForSemanticSegmentation, folder, torch.float32)
        return Segformer(model, config.labels, input_format(folder)).requires_grad_(False).eval().to(device)
