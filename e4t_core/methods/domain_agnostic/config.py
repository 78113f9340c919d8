"""The domain-agnostic tuning encoder's recipe section: the paper's values, and every switch of its ablations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from e4t_core.adapters.dual_path import DualPathConfig
from e4t_core.adapters.subjects import TuneConfig
from e4t_core.methods.base import MethodConfig

Template = Annotated[str, Field(pattern=r"^[^{}]*\{\}[^{}]*$")]
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]


class PersonalizeConfig(TuneConfig):
    """One prediction, then a short LoRA tuning from it (section 4.4), of many identities at once.

    Attributes:
        steps: optimizer steps, 12 or fewer in the paper; 0 takes the prediction as it is (ablation "no tuning").
        samples: noise levels of the one image in a step; the paper does not say.
        lr: AdamW's learning rate.
        noise_level: share of the noise schedule at which the one forward pass sees the image; the paper does not say.
        weight_pull, embedding_pull: weights of the squared distance of LoRA's numbers, and of the embedding, from the
            prediction; the paper does not say.
        dual_path: False tunes and draws on the concept's path alone (ablation "no dual path during tuning").
        mask: mask the diffusion loss where the identity has masks; the paper uses none.
        near: tokens nearest to the prediction that the adapter names.
        gradient_checkpointing: recompute the denoiser's activations in the backward pass: less memory, more time.
    """

    steps: Annotated[int, Field(ge=0)] = 12
    samples: Count = 4
    lr: Rate = 2e-3
    noise_level: Annotated[float, Field(ge=0, le=1)] = 0.5
    weight_pull: Weight = 0.01
    embedding_pull: Weight = 0.1
    dual_path: bool = True
    mask: bool = False
    near: Count = 5
    gradient_checkpointing: bool = False


class DomainAgnosticConfig(MethodConfig):
    """Domain-agnostic tuning encoder. Two learning rates (section 5.1): ``train.base_lr`` is that of the token embedder
    with the trunk, and ``hyper_rate`` times it the hypernetwork's.

    Attributes:
        domain_word: whose embedding the prediction starts from; any word that is no class will do.
        token_scale: what the token embedder's output is multiplied with, as s in E4T's eq. 1.
        hypernetwork: False predicts an embedding alone (ablation); tuning then begins with a LoRA that changes nothing.
        rank, alpha: LoRA's r, and alpha of its scale alpha / r; None takes the rank. The paper names neither.
        width, blocks, hyper_width: see :class:`~e4t_core.models.DomainAgnosticEncoder`.
        hyper_rate: the hypernetwork's learning rate over ``train.base_lr``: 1e-5 / 1e-4.
        regularization: of the embedding (fig. 4): ``none``; ``l2`` is eq. 4 alone; ``nearest_cosine`` adds the distance
            to the nearest token, ``contrastive`` (the paper) adds eq. 3.
        positives, tau: k nearest tokens and temperature of eq. 3.
        nearest_weight: of eq. 3, or of the cosine distance in its place.
        l2_weight: of eq. 4.
        offset_weight: of the squared norm of the predicted weight offsets.
        dual_path: eq. 5, in pre-training, tuning and drawing.
        prompts: pre-training prompts: each sample's own template (column ``caption``), or one drawn from ``templates``.
        init_seed: what initial weights are drawn from.
        personalize: tuning on one image.
    """

    templates: Annotated[tuple[Template, ...], Field(min_length=1)]
    token_scale: Rate = 0.1
    hypernetwork: bool = True
    rank: Count = 4
    alpha: Rate | None = None
    width: Annotated[int, Field(ge=8, multiple_of=8)] = 512
    blocks: Count = 2
    hyper_width: Count = 128
    hyper_rate: Rate = 0.1
    regularization: Literal["none", "l2", "nearest_cosine", "contrastive"] = "contrastive"
    positives: Count = 5
    tau: Rate = 0.07
    nearest_weight: Weight = 0.01
    l2_weight: Weight = 0.001
    offset_weight: Weight = 1e-4
    dual_path: DualPathConfig = DualPathConfig()
    prompts: Literal["caption", "templates"] = "caption"
    init_seed: Annotated[int, Field(ge=0)] = 0
    personalize: PersonalizeConfig = PersonalizeConfig()

    @property
    def tuned_paths(self) -> DualPathConfig:
        """How paths meet while tuning and drawing."""
        return self.dual_path if self.personalize.dual_path else DualPathConfig(per="none")
