"""Taming Encoder's recipe section: the paper's values where it gives any, and every switch of its ablation study."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from e4t_core.methods.base import MethodConfig

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class TamingEncoderConfig(MethodConfig):
    """Taming Encoder. Sentences come from column ``caption``, so ``templates`` and ``domain_word`` are not read. Which
    encoder sees the object, and that its background is masked, say the recipe's ``clip`` and ``stages.clip``; the
    domain's share r, its ``source.shares``.

    Attributes:
        prompt: the class of the domain's objects with its article, ``a face``: it takes the concept's place in every
            prompt that is drawn.
        parts: of a mix, which parts are the ``domain`` and which are ``general``, whose images get the null embedding
            (eq. 4). Samples of no mix are the domain's.
        omega: how often a domain image gets the embedding of another image of its identity (eq. 3); the paper does not
            say. 0 is the ablation.
        nearest: a domain image without identity label takes the one with the nearest face embedding (column
            ``identity``) for its identity's, if their cosine is at least this; None leaves it to itself.
        captions: of domain images: ``full`` (the sentence and attribute words), ``coarse`` (the sentence with the class
            in place of the concept, no attributes) or ``class_name`` (``prompt`` alone), the last an ablation.
        drop_caption: how often a caption is the empty one, for classifier-free guidance (section 3.2); the paper does
            not say.
        tune: the whole denoiser with the new layers (``all``), or the new layers alone (``attention``, ablation).
        denoiser_rate: learning rate of the denoiser's own weights, relative to that of the new layers.
        levels: an object's tokens are the [CLS] of this many of the last CLIP levels that are stored.
        attend_null: see :class:`~e4t_core.adapters.object_attention.ObjectAttention`.
        init_seed: what initial weights are drawn from.
    """

    prompt: Annotated[str, Field(min_length=1)] = "a face"
    parts: dict[str, Literal["domain", "general"]] = Field(default_factory=dict)
    omega: Share = 0.5
    nearest: Annotated[float, Field(ge=-1, le=1)] | None = None
    captions: Literal["full", "coarse", "class_name"] = "full"
    drop_caption: Share = 0.1
    tune: Literal["all", "attention"] = "all"
    denoiser_rate: Annotated[float, Field(gt=0)] = 1.0
    levels: Count = 1
    attend_null: bool = True
    init_seed: Annotated[int, Field(ge=0)] = 0
