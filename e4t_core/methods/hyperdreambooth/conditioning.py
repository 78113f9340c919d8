"""Generation with HyperDreamBooth: the prompt says "a [V] face", and the weights know whose."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from e4t_core.adapters.lidb import lidb_projections
from e4t_core.adapters.low_rank import LowRank, low_rank_per_sample
from e4t_core.backbones.base import Backbone
from e4t_core.methods.base import Conditioning


class LowRankConditioning(Conditioning):
    """Low-rank weights on denoiser and text encoder while sampling; text is encoded once.

    The weights are not merged: in half precision a change far smaller than the weight would be lost to rounding.

    Args:
        backbone: the frozen model.
        layers: layer -> its dW, K = 1.
        concept: the words that take the placeholder's place.
        prompts: one per image, or one for all; each may hold the backbone's placeholder.
    """

    def __init__(self, backbone: Backbone, layers: Mapping[str, LowRank], concept: str, prompts: Sequence[str]) -> None:
        super().__init__(backbone, [prompt.replace(backbone.placeholder, concept) for prompt in prompts])
        self.layers = layers
        self._text_BTD: Tensor | None = None

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The weights are on inside."""
        backbone = self.backbone
        who_1 = torch.zeros(1, dtype=torch.int64, device=backbone.device)
        with low_rank_per_sample(lidb_projections(backbone), self.layers, who_1):
            with torch.no_grad():
                self._text_BTD = backbone.encode_text(backbone.tokenize(self.prompts))
            yield

    def text(self, x_t_BChw: Tensor, t_B: Tensor, step: int) -> Tensor:
        """(B, T, D) text states, the same at every step."""
        if self._text_BTD is None:
            raise RuntimeError("text states exist only inside applied()")
        return self.for_images(self._text_BTD, len(x_t_BChw))
