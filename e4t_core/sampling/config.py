"""The recipe section of the sampler."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from e4t_core.config import Config


class SamplerConfig(Config):
    """How images are drawn from noise.

    Attributes:
        steps: denoising steps.
        guidance: classifier-free guidance weight ``w`` of ``eps_neg + w (eps - eps_neg)`` (Ho & Salimans); 1 is none.
        scheduler: ``ddim`` (Song et al., deterministic) or ``dpmsolver++`` (Lu et al., second order, multistep).
        negative_prompt: text of the branch that guidance leads away from.
        object_guidance: weight ``s_o`` of the object that a method may have beside the text, in
            ``eps(phi, neg) + s_o (eps(o, neg) - eps(phi, neg)) + w (eps(o, c) - eps(o, neg))`` (InstructPix2Pix eq. 3);
            None is ``w``, which is ordinary guidance.
    """

    later: ClassVar[frozenset[str]] = frozenset({"object_guidance"})

    steps: int = Field(default=50, ge=1)
    guidance: float = 7.5
    scheduler: Literal["ddim", "dpmsolver++"] = "ddim"
    negative_prompt: str = ""
    object_guidance: float | None = None
