"""Conditioning on prompts alone: the untouched backbone, for baselines and controls."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from e4t_core.backbones.base import Backbone
from e4t_core.methods.base import Conditioning


class TextConditioning(Conditioning):
    """One prompt per image, without a concept; encoded once."""

    def __init__(self, backbone: Backbone, prompts: Sequence[str]) -> None:
        super().__init__(backbone, prompts)
        with torch.no_grad():
            self._text_BTD = backbone.encode_text(backbone.tokenize(self.prompts))

    def text(self, x_t_BChw: Tensor, t_B: Tensor, step: int) -> Tensor:
        return self._text_BTD
