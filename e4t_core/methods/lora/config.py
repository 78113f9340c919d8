"""LoRA-DreamBooth's recipe section."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from e4t_core.adapters.subjects import TuneConfig
from e4t_core.methods._prior import PriorConfig
from e4t_core.methods.base import MethodConfig

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]


class PersonalizeConfig(TuneConfig):
    """Tuning of low-rank weights, of many identities at once.

    Attributes:
        steps: optimizer steps.
        samples: noise levels in a step, and as many of the class.
        lr: AdamW's rate.
        weight_decay: AdamW's own default.
        rank: r of every layer.
        alpha: scale of its product: ``alpha / rank``; None takes the rank.
        text_encoder: tune the attention of the text encoder, too.
        mask: mask the diffusion loss where the identity has masks.
        gradient_checkpointing: recompute the denoiser's activations in the backward pass: less memory, more time.
    """

    steps: Count = 1000
    samples: Count = 1
    lr: Rate = 1e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    rank: Count = 4
    alpha: Rate | None = None
    text_encoder: bool = False
    mask: bool = False
    gradient_checkpointing: bool = False


class LoRAConfig(MethodConfig):
    """LoRA-DreamBooth, on q, k, v and out of every attention. One prompt supervises everything, so ``templates`` and
    ``domain_word`` are not read.

    Attributes:
        prompt: "a [V] [class noun]" with a rare token for [V]; it takes the concept's place in every prompt that is
            drawn.
        prior: prior preservation; null leaves it out.
        personalize: the tuning.
    """

    prompt: Annotated[str, Field(min_length=1)] = "a sks face"
    prior: PriorConfig | None = PriorConfig()
    personalize: PersonalizeConfig = PersonalizeConfig()
