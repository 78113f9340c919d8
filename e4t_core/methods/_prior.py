"""Images of a class that the untouched model draws, for prior preservation (Ruiz et al. 2022 section 3.3)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from e4t_core.adapters.clock import now
from e4t_core.adapters.subjects import Prior
from e4t_core.backbones.base import Backbone
from e4t_core.config import Config
from e4t_core.sampling import SamplerConfig, TextConditioning, sample

Count = Annotated[int, Field(ge=1)]


class PriorConfig(Config):
    """What tuning must not forget: how the model drew any other of the class.

    Attributes:
        weight: lambda of eq. 2.
        images: drawn of the class once, before the first identity; the paper draws about 1,000 and says that fewer do.
        prompt: "a [class noun]".
        seed: image i is drawn from seed + i, so every process has the same.
        sampler: how they are drawn.
        batch_size: drawn at once.
    """

    weight: Annotated[float, Field(gt=0)] = 1.0
    images: Count = 200
    prompt: Annotated[str, Field(min_length=1)] = "a face"
    seed: Annotated[int, Field(ge=0)] = 0
    sampler: SamplerConfig = SamplerConfig()
    batch_size: Count = 8


class ClassImages:
    """Draws the class's images when they are first asked for, and keeps them as latents: identities share them.

    Args:
        config: the recipe section; None preserves nothing.
    """

    def __init__(self, config: PriorConfig | None) -> None:
        self.config = config
        self._kept: tuple[Backbone, Prior] | None = None
        self.seconds = 0.0
        """That drawing took, once for all identities."""

    def __call__(self, backbone: Backbone) -> Prior | None:
        """The prior for tuning on this backbone, on which no weights may be."""
        if self.config is None:
            return None
        if self._kept is None or self._kept[0] is not backbone:
            self._kept = backbone, self._drawn(backbone, self.config)
        return self._kept[1]

    def facts(self) -> dict[str, object]:
        """For an adapter's ``meta``."""
        if self.config is None:
            return {}
        return {"prior": {**self.config.dump(), "seconds": self.seconds}}

    def _drawn(self, backbone: Backbone, config: PriorConfig) -> Prior:
        began = now(backbone.device)
        starts = range(0, config.images, config.batch_size)
        parts = [_moments(backbone, config, start) for start in starts]
        self.seconds = now(backbone.device) - began
        return Prior(torch.cat(parts), backbone.tokenize([config.prompt]), config.weight)


@torch.no_grad()
def _moments(backbone: Backbone, config: PriorConfig, start: int) -> Tensor:
    """(B, 2C, h, w) of the images from number ``start`` on, as an identity's own photos become latents."""
    stop = min(start + config.batch_size, config.images)
    seeds = [config.seed + number for number in range(start, stop)]
    conditioning = TextConditioning(backbone, [config.prompt] * len(seeds))
    return backbone.to_moments(sample(backbone, conditioning, config.sampler, seeds)).float()
