"""Generation with Taming Encoder: the prompt says what class the object is of, and its embedding says which it is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from e4t_core.backbones.base import Backbone
from e4t_core.methods.base import ObjectConditioning
from e4t_core.methods.taming_encoder.module import TamingEncoderModule


class TamingConditioning(ObjectConditioning):
    """Trained weights and an object on the backbone while sampling; text is encoded once.

    Args:
        module: the trained weights.
        backbone: the frozen model.
        object_LD: the embedding of the object, or phi; or (B, L, D), one for each image.
        concept: the words that take the placeholder's place.
        prompts: one per image, or one for all; each may hold the backbone's placeholder.
    """

    def __init__(
        self, module: TamingEncoderModule, backbone: Backbone, object_LD: Tensor, concept: str, prompts: Sequence[str]
    ) -> None:
        super().__init__(backbone, [prompt.replace(backbone.placeholder, concept) for prompt in prompts])
        self.module, self.object_LD = module, object_LD
        with torch.no_grad():
            self._text_BTD = backbone.encode_text(backbone.tokenize(self.prompts))

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The weights are on inside, in the backbone's own type."""
        dtype = next(iter(self.backbone.denoiser_parameters().values())).dtype
        with self.module.on(self.backbone, dtype):
            yield

    def text(self, x_t_BChw: Tensor, t_B: Tensor, step: int) -> Tensor:
        """(B, T, D) text states, the same at every step."""
        return self.for_images(self._text_BTD, len(x_t_BChw))

    def denoise_seeing(self, x_t_BChw: Tensor, t_B: Tensor, text_BTD: Tensor, seeing_B: Tensor) -> Tensor:
        """The others get the null embedding."""
        object_LD = self.object_LD
        if object_LD.ndim == 3:  # a batch for guidance repeats its images
            object_LD = object_LD.repeat(len(seeing_B) // len(object_LD), 1, 1)
        self.module.attention.see(torch.where(seeing_B[:, None, None], object_LD, self.module.null_LD))
        return self.backbone.denoise(x_t_BChw, t_B, text_BTD)
