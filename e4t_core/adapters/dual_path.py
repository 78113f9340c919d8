"""Dual path (Domain-Agnostic Tuning-Encoder eq. 5): attention computed twice, once as a concept's and once as the
untouched model's, and blended.

    out = alpha * B(f, C, W_delta) + (1 - alpha) * B(f, C_h, 0)

Where paths meet, both have one feature map f, so everything between two sites is computed once and only the sites run
on a doubled batch: the concept's half first, then that of the hard prompt C_h, in which a real token stands for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from e4t_core.adapters.tunable import LoRAWeights, TokenWeights, Tunable
from e4t_core.backbones.base import Backbone
from e4t_core.config import Config


class DualPathConfig(Config):
    """How the two paths are blended.

    Attributes:
        blend: alpha_blend of eq. 5: 1 is the modulated model, 0 the untouched one on the hard prompt.
        per: what B is: every ``attention`` layer (only these carry W_delta), every transformer ``block`` around them,
            or ``none``: there is one path, the concept's (ablation).
    """

    blend: Annotated[float, Field(ge=0, le=1)] = 0.25
    per: Literal["attention", "block", "none"] = "attention"


@contextlib.contextmanager
def dual_path(sites: Mapping[str, nn.Module], alpha: float) -> Iterator[None]:
    """Inside, each site gives ``alpha`` of its first path and ``1 - alpha`` of its second.

    The denoiser is called with a batch of B and the text states of 2B: C of every sample, then C_h of every sample.
    Equal paths come out as they are, bit for bit.

    Args:
        sites: from :meth:`Backbone.attention_sites`.
        alpha: alpha_blend.
    """

    def doubled(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return (torch.cat([args[0], args[0]]), *args[1:]), kwargs

    def blended(_module: nn.Module, _args: tuple[Any, ...], out: Any) -> Any:
        soft, hard = (out[0] if isinstance(out, tuple) else out).chunk(2)
        met = torch.lerp(hard, soft, alpha)
        return (met, *out[1:]) if isinstance(out, tuple) else met

    with contextlib.ExitStack() as hooks:
        for site in sites.values():
            for hook in (
                site.register_forward_pre_hook(doubled, with_kwargs=True),
                site.register_forward_hook(blended),
            ):
                hooks.callback(hook.remove)
        yield


class ConceptWeights(Tunable):
    """A concept's word embedding ``token`` (D,) and LoRA ``<layer>.up``, ``<layer>.down`` on the denoiser's q, k and v.

    With a dual path an identity brings the constant ``hard`` (D,), the embedding of the token in its hard prompts.

    Args:
        backbone: whose layers and text encoder.
        rank, alpha: LoRA's, see :class:`~e4t_core.adapters.tunable.LoRAWeights`.
        paths: how the denoiser's two paths meet.
        word: whose embedding the token starts from where nobody says otherwise.
    """

    in_text = True

    def __init__(self, backbone: Backbone, rank: int, alpha: float | None, paths: DualPathConfig, word: str) -> None:
        self.dual, self.blend = paths.per != "none", paths.blend
        self.sites = {} if paths.per == "none" else backbone.attention_sites(paths.per)
        self.lora = LoRAWeights(backbone.projections(("q", "k", "v")), rank, alpha, parts=2 if self.dual else 1)
        self.token = TokenWeights(backbone, word)
        self.shapes = {**self.lora.shapes, **self.token.shapes}
        self.constant_shapes = {"hard": self.token.shapes["token"]} if self.dual else {}

    def initial(self, seeds: Sequence[int]) -> dict[str, Tensor]:
        """LoRA that changes nothing yet, and the word's embedding."""
        return {**self.lora.initial(seeds), **self.token.initial(seeds)}

    def join(self, lora_KP: Tensor, token_KD: Tensor) -> Tensor:
        """(K, P) the flat form, from LoRA's flat form and the embeddings."""
        return torch.cat([lora_KP, token_KD.to(lora_KP.dtype)], dim=1)

    @contextlib.contextmanager
    def on(self, flat_KP: Tensor, constants: Mapping[str, Tensor], which_B: Tensor | None = None) -> Iterator[None]:
        """See :meth:`Tunable.on`. With a dual path the text states are those of :func:`dual_path`."""
        paths = dual_path(self.sites, self.blend) if self.dual else contextlib.nullcontext()
        with paths, self.lora.on(flat_KP[:, : self.lora.numbers], {}, which_B):
            yield

    def spliced(self, flat_KP: Tensor) -> Tensor:
        """(K, D)."""
        return flat_KP[:, self.lora.numbers :]

    def companions(self, constants: Mapping[str, Tensor]) -> Tensor | None:
        """(K, D) hard tokens' embeddings."""
        return constants["hard"] if self.dual else None
