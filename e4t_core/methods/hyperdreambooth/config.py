"""HyperDreamBooth's recipe section: the paper's values, and every switch of its ablation (table 3)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from e4t_core.adapters.lidb import LiDBConfig
from e4t_core.adapters.subjects import TuneConfig
from e4t_core.methods.base import MethodConfig

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]


class PersonalizeConfig(TuneConfig):
    """Rank-relaxed fast finetuning on one image (HyperDreamBooth section 4.3), of many identities at once.

    Attributes:
        steps: optimizer steps; 0 takes the hypernetwork's prediction as it is (ablation "only hyper").
        samples: noise levels of the one image in a step; the paper does not say.
        lr: AdamW's learning rate; the paper does not say.
        start: ``hypernetwork`` finetunes on top of its prediction; ``backbone`` without it (ablation "no hyper"), and
            with 0 steps gives weights that change nothing: what the prompt alone draws, the zero of every comparison.
        rank: r > 1 of the LoRA that is finetuned; the adapter is of rank 1 + r.
        alpha: scale of its product: ``alpha / rank``; None takes the rank.
        mask: mask the diffusion loss where the identity has masks.
    """

    steps: Annotated[int, Field(ge=0)] = 40
    samples: Count = 4
    lr: Rate = 1e-3
    start: Literal["hypernetwork", "backbone"] = "hypernetwork"
    rank: Count = 4
    alpha: Rate | None = None
    mask: bool = False


class HyperDreamBoothConfig(MethodConfig):
    """HyperDreamBooth. One prompt supervises everything (section 4.2), so ``templates`` and ``domain_word`` are not
    read.

    Attributes:
        prompt: "a [V] face" with a rare token for [V]; it takes the concept's place in every prompt that is drawn.
        lidb: the space of the predicted weights.
        width, heads, blocks: of the hypernetwork's transformer; the paper says 2 blocks, and nothing of the others.
        iterations: s, rounds of iterative prediction (eq. 3); 1 is the ablation "k = 1".
        unit: typical size of a predicted number, see :class:`~e4t_core.models.HyperNetwork`.
        alpha: weight of the diffusion loss in eq. 2.
        beta: weight of the distance to the pre-optimized weights (column ``lidb``); 0 needs no such column.
        mask: mask the diffusion loss in pre-training (column ``mask``).
        init_seed: what initial weights are drawn from.
        personalize: fast finetuning on one image.
    """

    prompt: Annotated[str, Field(min_length=1)] = "a sks face"
    lidb: LiDBConfig = LiDBConfig()
    width: Count = 1024
    heads: Count = 16
    blocks: Count = 2
    iterations: Count = 4
    unit: Rate = 0.05
    alpha: Weight = 1.0
    beta: Weight = 0.01
    mask: bool = False
    init_seed: Annotated[int, Field(ge=0)] = 0
    personalize: PersonalizeConfig = PersonalizeConfig()

    @model_validator(mode="after")
    def _makes_sense(self) -> HyperDreamBoothConfig:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}")
        if not self.alpha and not self.beta:
            raise ValueError("alpha and beta are both 0: eq. 2 has nothing to minimize")
        return self
