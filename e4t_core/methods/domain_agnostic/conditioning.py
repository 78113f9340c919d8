"""Generation with a dual path: the concept's prompt with its weights, and the hard prompt without."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from e4t_core.adapters.dual_path import ConceptWeights
from e4t_core.backbones.base import Backbone
from e4t_core.methods.base import Adapter, Conditioning
from e4t_core.methods.domain_agnostic.adapter import flat_of


class ConceptConditioning(Conditioning):
    """Embedding and LoRA while sampling; both texts are encoded once.

    Under classifier-free guidance the negative prompt runs through both paths too, so that at alpha_blend = 0 what is
    drawn is the untouched model's, guidance included.

    Args:
        weights: puts an adapter's tensors on the backbone.
        backbone: the frozen model.
        adapter: the personalization.
        prompts: one per image, or one for all; each may hold the backbone's placeholder.
    """

    def __init__(self, weights: ConceptWeights, backbone: Backbone, adapter: Adapter, prompts: Sequence[str]) -> None:
        super().__init__(backbone, prompts)
        self.weights = weights
        self.flat_1P = flat_of(weights, adapter).to(backbone.device)
        self.constants = {"hard": backbone.token_table[adapter.meta["hard"]][None]}
        self._soft_BTD: Tensor | None = None
        self._hard_BTD: Tensor | None = None
        self._images = 0

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The weights are on inside."""
        with torch.no_grad():
            self._soft_BTD = self._encoded(self.weights.spliced(self.flat_1P))
            self._hard_BTD = self._encoded(self.weights.companions(self.constants))
        with self.weights.on(self.flat_1P, self.constants):
            yield

    def _encoded(self, word_1D: Tensor | None) -> Tensor | None:
        if word_1D is None:
            return None
        ids_BT = self.backbone.tokenize(self.prompts)
        return self.backbone.encode_text(ids_BT, word_1D.expand(len(ids_BT), -1))

    def text(self, x_t_BChw: Tensor, t_B: Tensor, step: int) -> Tensor:
        """(B, T, D) states of the concept's prompts, the same at every step."""
        if self._soft_BTD is None:
            raise RuntimeError("text states exist only inside applied()")
        self._images = len(x_t_BChw)
        return self.for_images(self._soft_BTD, self._images)

    def denoise(self, x_t_BChw: Tensor, t_B: Tensor, text_BTD: Tensor) -> Tensor:
        """The blend of both paths, of the images' prompts and of whatever comes before them in a doubled batch."""
        if self._hard_BTD is None:
            return self.backbone.denoise(x_t_BChw, t_B, text_BTD)
        hard_BTD = self._hard_BTD.to(text_BTD.dtype).expand(self._images, -1, -1)
        before = text_BTD[: len(text_BTD) - self._images]
        return self.backbone.denoise(x_t_BChw, t_B, torch.cat([text_BTD, before, hard_BTD]))
