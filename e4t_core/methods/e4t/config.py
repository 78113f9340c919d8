"""E4T's recipe section: the paper's values and every switch of its ablation study (fig. 4b)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from e4t_core.adapters.weight_offsets import OffsetKind
from e4t_core.config import Config
from e4t_core.methods.base import MethodConfig
from e4t_core.models.e4t_encoder import UnetJoin

Template = Annotated[str, Field(pattern=r"^[^{}]*\{\}[^{}]*$")]
Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]


class PersonalizeConfig(Config):
    """Tuning on one image (E4T sections 3.4 and 3.5; the defaults are the paper's for faces).

    Attributes:
        base_lr: AdamW's learning rate before scaling.
        scale_lr: multiply it by ``batch_size``, as the Stable Diffusion codebase does.
        weight_decay: AdamW's.
        steps: optimizer steps.
        batch_size: noise levels of the one image in a step.
        micro_batch_size: at most this many samples in memory at once; the gradient stays that of the whole batch.
        reg_weight: lambda_r of eq. 5 while tuning.
        mask: mask the diffusion loss where the identity has masks.
        tune: ``all`` (the paper), or an ablation: ``components`` (encoder and offsets), ``denoiser``, ``none``.
        image: which of an identity's images is the one: its first, or one drawn by the identity's seed.
        save_dtype: type of the stored differences from the pre-trained weights (the compact offsets stay float32).
    """

    base_lr: Rate = 1e-6
    scale_lr: bool = True
    weight_decay: Weight = 0.01
    steps: Positive = 15
    batch_size: Positive = 16
    micro_batch_size: Positive | None = None
    reg_weight: Weight = 0.1
    mask: bool = True
    tune: Literal["all", "components", "denoiser", "none"] = "all"
    image: Literal["first", "drawn"] = "first"
    save_dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"


class E4TConfig(MethodConfig):
    """Encoder for Tuning.

    Attributes:
        scale: s of eq. 1.
        reg_weight: lambda_r of eq. 5 in pre-training.
        embedding_regularization: False sets lambda_r to 0 everywhere (ablation).
        offsets: ``regularized`` (the paper), ``direct``, ``none``, ``hypernetwork`` (ablations).
        v0_size: length of the learned vector v0 of each offset.
        iterative_refinement: feed the noisy latent's UNet features to the encoder; False is the ablation.
        unet_join: how these features meet the CLIP levels, see :class:`~e4t_core.models.E4TEncoder`.
        width: the encoder's inner width; None takes that of a word embedding.
        zero_init: the encoder starts with E = 0.
        feature_grad: let gradients through the pass that computes the UNet features.
        prompts: pre-training prompts: each sample's own template (column ``caption``), or one drawn from ``templates``.
        mask: mask the diffusion loss in pre-training too (column ``mask``).
        t_stop: at generation, keep the embedding of the last step above this diffusion step (fig. 6).
        init_seed: what initial weights are drawn from.
        personalize: tuning on one image.
    """

    templates: Annotated[tuple[Template, ...], Field(min_length=1)]
    scale: float = 0.1
    reg_weight: Weight = 0.01
    embedding_regularization: bool = True
    offsets: OffsetKind = "regularized"
    v0_size: Positive = 1
    iterative_refinement: bool = True
    unet_join: UnetJoin = "per_level"
    width: Positive | None = None
    zero_init: bool = True
    feature_grad: bool = False
    prompts: Literal["caption", "templates"] = "caption"
    mask: bool = False
    t_stop: Annotated[int, Field(ge=0)] | None = None
    init_seed: Annotated[int, Field(ge=0)] = 0
    personalize: PersonalizeConfig = PersonalizeConfig()
