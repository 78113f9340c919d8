"""Generation with E4T: the embedding is predicted anew at every denoising step (E4T section 3.1)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from e4t_core.backbones.base import Backbone
from e4t_core.methods.base import Adapter, Conditioning
from e4t_core.methods.e4t.adapter import applied
from e4t_core.methods.e4t.config import E4TConfig
from e4t_core.methods.e4t.module import E4TModule
from e4t_core.methods.e4t.objective import predict_offset


class E4TConditioning(Conditioning):
    """Text states from the embedding that the encoder predicts for (image, x_t, t).

    Args:
        config: the recipe section; ``t_stop`` and ``iterative_refinement`` are read here.
        module: the pre-trained encoder and offsets.
        backbone: the frozen model.
        adapter: the personalization.
        cls_LD: CLIP levels of the concept image.
        prompts: one per image, or one for all; each holds the backbone's placeholder.
    """

    def __init__(
        self,
        config: E4TConfig,
        module: E4TModule,
        backbone: Backbone,
        adapter: Adapter,
        cls_LD: Tensor,
        prompts: Sequence[str],
    ) -> None:
        super().__init__(backbone, prompts)
        self.config, self.module, self.adapter = config, module, adapter
        self.cls_LD = cls_LD.to(backbone.device)
        self.ids_BT = backbone.tokenize(self.prompts).to(backbone.device)
        self._kept: tuple[Tensor, float] | None = None

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Tuned weights and offsets are on inside; a new sampling run starts with no kept embedding."""
        self._kept = None
        with applied(self.module, self.backbone, self.adapter, self.cls_LD):
            yield

    @torch.no_grad()
    def text(self, x_t_BChw: Tensor, t_B: Tensor, step: int) -> Tensor:
        """(B, T, D) text states; records ``t`` and ``embedding_norm`` (the batch mean of ``||E||``, fig. 7)."""
        t = int(t_B.max())
        if self._kept is None or not self._frozen(t):
            self._kept = self._predict(x_t_BChw, t_B)
        text_BTD, norm = self._kept
        self.trace.setdefault("t", []).append(float(t))
        self.trace.setdefault("embedding_norm", []).append(norm)
        return text_BTD

    def _frozen(self, t: int) -> bool:
        stop = self.config.t_stop
        return not self.config.iterative_refinement or (stop is not None and t <= stop)

    def _predict(self, x_t_BChw: Tensor, t_B: Tensor) -> tuple[Tensor, float]:
        batch = len(x_t_BChw)
        ids_BT = self.for_images(self.ids_BT, batch)
        cls_BLD = self.cls_LD.expand(batch, -1, -1)
        offset_BD = predict_offset(self.config, self.module, self.backbone, cls_BLD, x_t_BChw, t_B)
        text_BTD = self.backbone.encode_text(ids_BT, self.module.concept(offset_BD))
        return text_BTD, float(offset_BD.float().norm(dim=1).mean())
