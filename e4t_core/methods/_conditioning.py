"""Generation where the prompt says what it is in plain words, and the weights know which one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from e4t_core.adapters.low_rank import LowRank, low_rank_per_sample
from e4t_core.backbones.base import Backbone, Projection
from e4t_core.methods.base import Conditioning


class WeightsConditioning(Conditioning):
    """Weights on denoiser, text encoder or both while sampling; text is encoded once, with the weights on.

    Args:
        backbone: the frozen model.
        weights: puts them on the backbone for the time of its context.
        prompts: one per image, or one for all, as :func:`in_words` gives them.
    """

    def __init__(
        self,
        backbone: Backbone,
        weights: Callable[[], contextlib.AbstractContextManager[None]],
        prompts: Sequence[str],
    ) -> None:
        super().__init__(backbone, prompts)
        self.weights = weights
        self._text_BTD: Tensor | None = None

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The weights are on inside."""
        with self.weights():
            with torch.no_grad():
                self._text_BTD = self.backbone.encode_text(self.backbone.tokenize(self.prompts))
            yield

    def text(self, x_t_BChw: Tensor, t_B: Tensor, step: int) -> Tensor:
        """(B, T, D) text states, the same at every step."""
        if self._text_BTD is None:
            raise RuntimeError("text states exist only inside applied()")
        return self.for_images(self._text_BTD, len(x_t_BChw))


class _WeightsOfEach(WeightsConditioning):
    """Every image has weights of its own, so what guidance leads away from is read once for each."""

    def negative(self, prompt: str) -> Tensor:
        """(B, T, D)."""
        return self.backbone.encode_text(self.backbone.tokenize([prompt] * len(self.prompts)))


def in_words(backbone: Backbone, prompts: Sequence[str], concept: str) -> list[str]:
    """The prompts with ``concept`` where the backbone's placeholder is."""
    return [prompt.replace(backbone.placeholder, concept) for prompt in prompts]


def low_rank_conditioning(
    backbone: Backbone,
    projections: Mapping[str, Projection],
    layers: Mapping[str, LowRank],
    concept: str,
    prompts: Sequence[str],
) -> WeightsConditioning:
    """Low-rank weights of one identity, K = 1. They are not merged: in half precision a change far smaller than the
    weight would be lost to rounding."""
    who_1 = torch.zeros(1, dtype=torch.int64, device=backbone.device)
    said = in_words(backbone, prompts, concept)
    return WeightsConditioning(backbone, lambda: low_rank_per_sample(projections, layers, who_1), said)


def low_rank_together(
    backbone: Backbone,
    projections: Mapping[str, Projection],
    layers: Sequence[Mapping[str, LowRank]],
    concepts: Sequence[str],
    prompts: Sequence[Sequence[str]],
) -> WeightsConditioning:
    """Images of several identities in one batch: every identity's weights are on the backbone at once, and each image
    computes with those of its own.

    Args:
        backbone: the frozen model.
        projections: the layers that have weights, by name.
        layers: of each identity, layer -> its dW with K = 1; of the same layers and ranks.
        concepts: of each identity, the words that take the placeholder's place.
        prompts: of each identity, one per image; the images of the first identity come first.
    """
    said = [
        prompt
        for concept, whose in zip(concepts, prompts, strict=True)
        for prompt in in_words(backbone, whose, concept)
    ]
    stacked = {name: _stacked([one[name] for one in layers]) for name in layers[0]}
    counts_K = torch.tensor([len(whose) for whose in prompts], device=backbone.device)
    which_B = torch.arange(len(layers), device=backbone.device).repeat_interleave(counts_K)
    return _WeightsOfEach(backbone, lambda: low_rank_per_sample(projections, stacked, which_B), said)


def _stacked(weights: Sequence[LowRank]) -> LowRank:
    """K identities' out of one each."""
    return LowRank(torch.cat([one.up for one in weights]), torch.cat([one.down for one in weights]))
