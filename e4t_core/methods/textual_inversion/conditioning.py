"""Generation with a learned word; the model is the untouched one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from e4t_core.backbones.base import Backbone
from e4t_core.methods._conditioning import in_words
from e4t_core.methods.base import Conditioning
from e4t_core.methods.textual_inversion.personalization import word


class WordConditioning(Conditioning):
    """Text states with the word in the placeholder's place, encoded once.

    Args:
        backbone: the frozen model.
        tokens: the word of each image, or one for all: (D,), or (V, D), where the placeholder becomes V words.
        prompts: one per image, or one for all; each may hold the backbone's placeholder.
    """

    def __init__(self, backbone: Backbone, tokens: Sequence[Tensor], prompts: Sequence[str]) -> None:
        vectors = 1 if tokens[0].ndim == 1 else len(tokens[0])
        super().__init__(backbone, in_words(backbone, prompts, word(backbone, vectors)))
        with torch.no_grad():
            ids_BT = backbone.tokenize(self.prompts)
            spliced = torch.stack(list(tokens)).to(backbone.device)
            self._text_BTD = backbone.encode_text(ids_BT, spliced.expand(len(ids_BT), *spliced.shape[1:]))

    def text(self, x_t_BChw: Tensor, t_B: Tensor, step: int) -> Tensor:
        """(B, T, D) text states, the same at every step."""
        return self.for_images(self._text_BTD, len(x_t_BChw))
