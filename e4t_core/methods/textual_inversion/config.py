"""Textual Inversion's recipe section."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from e4t_core.adapters.subjects import TuneConfig
from e4t_core.methods.base import MethodConfig

Template = Annotated[str, Field(pattern=r"^[^{}]*\{\}[^{}]*$")]
Count = Annotated[int, Field(ge=1)]


class PersonalizeConfig(TuneConfig):
    """Tuning of a word embedding, of many identities at once (section 4 and implementation details).

    Attributes:
        steps: optimizer steps.
        samples: noise levels in a step, the paper's batch.
        lr: AdamW's rate as it is applied. Codebases that scale theirs by the batch give it before scaling: 5e-4 with a
            batch of 4 is 2e-3.
        weight_decay: AdamW's own default, which those codebases use.
        grad_clip: none.
        mask: mask the diffusion loss where the identity has masks.
    """

    steps: Count = 5000
    samples: Count = 4
    lr: Annotated[float, Field(gt=0)] = 2e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    grad_clip: Annotated[float, Field(gt=0)] | None = None
    mask: bool = False


class TextualInversionConfig(MethodConfig):
    """Textual Inversion. The word stands where ``templates`` have their gap, and starts as ``domain_word``.

    Attributes:
        vectors: how many embeddings the word has; the paper finds that more reconstruct better and edit worse.
        personalize: the tuning.
    """

    templates: Annotated[tuple[Template, ...], Field(min_length=1)]
    vectors: Count = 1
    personalize: PersonalizeConfig = PersonalizeConfig()
