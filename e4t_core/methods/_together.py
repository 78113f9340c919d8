"""Images of several identities in one batch, each with its own identity's low-rank weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from e4t_core.adapters.lidb import lidb_projections
from e4t_core.adapters.low_rank import LowRank, low_rank_per_sample
from e4t_core.backbones.base import Backbone
from e4t_core.methods.base import Conditioning


class LowRankTogether(Conditioning):
    """Every identity's weights are on the backbone at once, and each image computes with those of its own.

    Args:
        backbone: the frozen model.
        layers: of each identity, layer -> its dW with K = 1; of the same layers and ranks.
        concepts: of each identity, the words that take the placeholder's place.
        prompts: of each identity, one per image; the images of the first identity come first.
    """

    def __init__(
        self,
        backbone: Backbone,
        layers: Sequence[Mapping[str, LowRank]],
        concepts: Sequence[str],
        prompts: Sequence[Sequence[str]],
    ) -> None:
        said = [
            prompt.replace(backbone.placeholder, concept)
            for concept, whose in zip(concepts, prompts, strict=True)
            for prompt in whose
        ]
        super().__init__(backbone, said)
        self.layers = {name: _stacked([one[name] for one in layers]) for name in layers[0]}
        counts_K = torch.tensor([len(whose) for whose in prompts], device=backbone.device)
        self._which_B = torch.arange(len(layers), device=backbone.device).repeat_interleave(counts_K)
        self._text_BTD: Tensor | None = None

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The weights are on inside."""
        backbone = self.backbone
        with low_rank_per_sample(lidb_projections(backbone), self.layers, self._which_B):
            with torch.no_grad():
                self._text_BTD = backbone.encode_text(backbone.tokenize(self.prompts))
            yield

    def negative(self, prompt: str) -> Tensor:
        """(B, T, D), because each identity's weights read it."""
        return self.backbone.encode_text(self.backbone.tokenize([prompt] * len(self.prompts)))

    def text(self, x_t_BChw: Tensor, t_B: Tensor, step: int) -> Tensor:
        """(B, T, D) text states, the same at every step."""
        if self._text_BTD is None:
            raise RuntimeError("text states exist only inside applied()")
        return self.for_images(self._text_BTD, len(x_t_BChw))


def _stacked(weights: Sequence[LowRank]) -> LowRank:
    """K identities' out of one each."""
    return LowRank(torch.cat([one.up for one in weights]), torch.cat([one.down for one in weights]))
