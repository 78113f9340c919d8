"""The image and text towers, with as many right pairs in a batch as there are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import open_clip
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jobs._tiny_stack.config import ClipTrainingConfig
from jobs._tiny_stack.files import CLIP, CONFIGS, StackFolder, overridden
from jobs._tiny_stack.part import Part, Step
from jobs._tiny_stack.pool import flipped
from jobs._tiny_stack.words import Text, claims, draw_texts

_MAX_SCALE = 4.6052
"""ln 100, CLIP's bound on the logit scale."""


class ClipPart(Part):
    """Learns which texts are true of which pictures."""

    name: ClassVar[str] = "clip"

    @property
    def config(self) -> ClipTrainingConfig:
        return self.work.stack.clip

    @cached_property
    def _tokenizer(self) -> Any:
        return open_clip.get_tokenizer(f"local-dir:{self.work.trained.root / CLIP}")

    def build(self) -> nn.Module:
        model = open_clip.CLIP(**self._model_config(self.work.trained)["model_cfg"])
        visual: Any = model.visual
        mean, std = (self.work.trained.config("clip")["preprocess_cfg"][k] for k in ("mean", "std"))
        visual.image_mean, visual.image_std = mean, std
        return model

    def warm_start(self, module: nn.Module, stack: StackFolder) -> None:
        module.load_state_dict(stack.load("clip"))

    def losses(self, module: nn.Module, step: Step) -> dict[str, Tensor]:
        pool, device = self.work.pool, self.work.device
        rows = pool.draw(step.rng, self.config.batch_size)
        labels = pool.at(rows)
        texts = draw_texts(labels, self.config.texts, step.rng)
        images = flipped(pool.images(rows, device), step.rng)
        ids = self._tokenizer([t.text for t in texts]).to(device)
        model: Any = module
        right = torch.from_numpy(rightness([claims(label) for label in labels], texts)).to(device)
        found_image = model.encode_image(normalized(images, model.visual), normalize=True).float()
        found_text = model.encode_text(ids, normalize=True).float()
        logits = model.logit_scale.clamp(max=_MAX_SCALE).exp() * found_image @ found_text.T
        return {"loss": contrastive_loss(logits, right), "scale": model.logit_scale.detach().exp()}

    def export(self, module: nn.Module, stack: StackFolder) -> dict[str, Any]:
        stack.save("clip", self._model_config(stack), module.state_dict())
        return {"logit_scale": float(module.get_parameter("logit_scale").exp())}

    def _model_config(self, stack: StackFolder) -> dict[str, Any]:
        config = stack.config("clip")
        model = overridden(config["model_cfg"], self.config.model, f"stack.clip.model ({CONFIGS['clip']})")
        return {**config, "model_cfg": model}


def normalized(images_B3HW: Tensor, visual: Any) -> Tensor:
    """Images in [-1, 1] as the image tower takes them."""
    mean, std = (
        torch.tensor(v, device=images_B3HW.device).view(3, 1, 1) for v in (visual.image_mean, visual.image_std)
    )
    return ((images_B3HW + 1) / 2 - mean) / std


def rightness(true_of: Sequence[frozenset[str]], texts: Sequence[Text]) -> np.ndarray:
    """(images, texts) bool: every claim of the text is true of the image. Equal texts are right together, and
    ``a pencil sketch`` is right for every sketch of the batch, so nothing right is pushed away."""
    return np.array([[text.claims <= facts for text in texts] for facts in true_of])


def contrastive_loss(logits_IT: Tensor, right_IT: Tensor) -> Tensor:
    """CLIP's symmetric cross entropy against soft targets: each row's right answers share its probability."""
    right = right_IT.float()
    to_text = F.cross_entropy(logits_IT, right / right.sum(1, keepdim=True))
    to_image = F.cross_entropy(logits_IT.T, (right / right.sum(0, keepdim=True)).T)
    return (to_text + to_image) / 2
