"""DreamBooth's recipe section."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from e4t_core.config import Config
from e4t_core.methods._prior import PriorConfig
from e4t_core.methods.base import MethodConfig

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


class PersonalizeConfig(Config):
    """Tuning of a whole model, of one identity after the other.

    Attributes:
        steps: optimizer steps.
        seconds: stop after the step with which an identity has taken this long, if it has not taken ``steps`` by then;
            what comes out then depends on the machine. None: time does not matter. Drawing the class is apart from it.
        samples: noise levels in a step, and as many of the class.
        lr: AdamW's rate.
        betas, weight_decay, eps: AdamW's.
        grad_clip: largest norm of the gradient; None does not clip.
        text_encoder: tune the whole text encoder, too.
        mask: mask the diffusion loss where the identity has masks.
        gradient_checkpointing: recompute the denoiser's activations in the backward pass: less memory, more time.
        save_dtype: type of the stored differences from the backbone's weights.
    """

    steps: Count = 1000
    seconds: Rate | None = None
    samples: Count = 1
    lr: Rate = 1e-6
    betas: tuple[Share, Share] = (0.9, 0.999)
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    eps: Rate = 1e-8
    grad_clip: Rate | None = 1.0
    text_encoder: bool = False
    mask: bool = False
    gradient_checkpointing: bool = False
    save_dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"


class DreamBoothConfig(MethodConfig):
    """DreamBooth. One prompt supervises everything (section 3.2), so ``templates`` and ``domain_word`` are not read.

    Attributes:
        prompt: "a [identifier] [class noun]" with a rare token for the identifier; it takes the concept's place in
            every prompt that is drawn.
        prior: prior preservation (section 3.3); null leaves it out.
        personalize: the tuning.
    """

    prompt: Annotated[str, Field(min_length=1)] = "a sks face"
    prior: PriorConfig | None = PriorConfig()
    personalize: PersonalizeConfig = PersonalizeConfig()
