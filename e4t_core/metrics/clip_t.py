"""CLIP-T (TSim): does the image show what the prompt asks for, the concept left aside?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from e4t_core.metrics._clip import ClipMetric, ClipMetricConfig
from e4t_core.metrics.base import MetricConfig


class ClipT(ClipMetric):
    """Cosine between each image and its concept-less prompt (E4T section 4, HyperDreamBooth table 1)."""

    name: ClassVar[str] = "clip_t"
    title: ClassVar[str] = "CLIP-T"
    Config: ClassVar[type[MetricConfig]] = ClipMetricConfig

    @torch.inference_mode()
    def compare(self, generated_BE: Tensor, references_NE: Tensor, prompts: Sequence[str]) -> Tensor:
        distinct = sorted(set(prompts))
        texts_PE = self.model.embed_texts(distinct).float().cpu()
        rows_B = torch.tensor([distinct.index(prompt) for prompt in prompts])
        return (generated_BE * texts_PE[rows_B]).sum(-1)
