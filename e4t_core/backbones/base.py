"""The one interface through which methods see a diffusion model.

Stable Diffusion 1.x / 2.x is the first family behind it; another family is one more file in this folder.
Tensor names carry their shape: B batch, C latent channels, h/w latent size, T tokens, D text width, F features.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

Role = Literal["q", "k", "v", "out", "geglu", "ff_out"]
Attention = Literal["self", "cross", "none"]
Site = Literal["attention", "block"]


@dataclass(frozen=True)
class Projection:
    """One linear layer of the denoiser or text encoder that adapters may change.

    Attributes:
        name: stable dotted name inside its network (``unet.down_blocks.0...attn1.to_q``), the same for every size.
        module: the layer itself.
        role: which projection it is.
        attention: self, cross, or none (feed-forward).
        network: ``unet`` or ``text_encoder``.
        location: ``down``, ``mid``, ``up`` or ``text``.
    """

    name: str
    module: nn.Linear
    role: Role
    attention: Attention
    network: Literal["unet", "text_encoder"]
    location: Literal["down", "mid", "up", "text"]


@dataclass(frozen=True)
class TextAttention:
    """Where the denoiser reads the text: ``h' = h + attention(norm(h), text)``.

    Attributes:
        name: stable dotted name of the attention layer inside its network.
        norm: the layer whose first argument is the residual stream h, (B, N, D).
        attention: the layer whose output, (B, N, D), is added to h.
        width: D.
        heads: of the attention; they divide D.
    """

    name: str
    norm: nn.Module
    attention: nn.Module
    width: int
    heads: int


class NoiseSchedule(nn.Module):
    """Forward process of a discrete-time diffusion model (DDPM eq. 4; v-prediction after Salimans & Ho eq. 8)."""

    def __init__(self, alphas_cumprod: Tensor, prediction_type: Literal["epsilon", "v_prediction"]) -> None:
        super().__init__()
        self.alphas_cumprod: Tensor
        self.register_buffer("alphas_cumprod", alphas_cumprod.float(), persistent=False)
        self.prediction_type = prediction_type

    @property
    def steps(self) -> int:
        """Number of training noise levels."""
        return len(self.alphas_cumprod)

    def _scales(self, t_B: Tensor) -> tuple[Tensor, Tensor]:
        abar = self.alphas_cumprod[t_B].view(-1, 1, 1, 1)
        return abar.sqrt(), (1 - abar).sqrt()

    def add_noise(self, x0_BChw: Tensor, eps_BChw: Tensor, t_B: Tensor) -> Tensor:
        """``x_t = sqrt(abar) x_0 + sqrt(1 - abar) eps``."""
        a, s = self._scales(t_B)
        return (a * x0_BChw + s * eps_BChw).to(x0_BChw.dtype)

    def target(self, x0_BChw: Tensor, eps_BChw: Tensor, t_B: Tensor) -> Tensor:
        """What the denoiser is trained to output: ``eps`` or ``v = sqrt(abar) eps - sqrt(1 - abar) x_0``."""
        if self.prediction_type == "epsilon":
            return eps_BChw
        a, s = self._scales(t_B)
        return (a * eps_BChw - s * x0_BChw).to(x0_BChw.dtype)


class Backbone(nn.Module):
    """A frozen latent diffusion model: every parameter has ``requires_grad=False`` after construction."""

    schedule: NoiseSchedule
    scheduler_config: Mapping[str, Any]
    """diffusers' scheduler configuration of the model; samplers are built from it."""
    latent_shape: tuple[int, int, int]
    """(C, h, w) at the configured resolution."""
    feature_dims: tuple[int, ...]
    """Channels of each pooled UNet feature, skips in order, then mid; ``sum`` is F (10,880 for SD1.5)."""
    text_width: int
    max_tokens: int
    placeholder: str
    placeholder_id: int
    special_ids: tuple[int, ...]
    """Rows of :attr:`token_table` that are no words: begin, end, padding and, where it has a row, the placeholder."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where it runs."""

    @abstractmethod
    def projections(
        self, roles: Sequence[Role] = ("q", "k", "v"), networks: Sequence[str] = ("unet",)
    ) -> dict[str, Projection]:
        """Adaptable layers by stable name, in module order."""

    @abstractmethod
    def attention_sites(self, per: Site) -> dict[str, nn.Module]:
        """The denoiser's attention layers by stable name, or the transformer blocks around them, in module order.

        Each is called with the feature map f, (B, N, D) or (B, D, h, w), as its first argument and the text states, if
        it reads them, as the keyword ``encoder_hidden_states``; it gives the new feature map, alone or in a tuple.
        """

    @abstractmethod
    def text_attentions(self) -> dict[str, TextAttention]:
        """The denoiser's cross-attentions by stable name, in module order."""

    @abstractmethod
    def denoiser_parameters(self) -> dict[str, nn.Parameter]:
        """The denoiser's own parameters by stable name (never those an adapter added)."""

    @abstractmethod
    def text_parameters(self) -> dict[str, nn.Parameter]:
        """The text encoder's own parameters by stable name, its table of token embeddings among them."""

    @abstractmethod
    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """(B, T) int64 ids; :attr:`placeholder` becomes :attr:`placeholder_id`. Over-long prompts are a UsageError
        if the cut would drop the placeholder, and are truncated otherwise."""

    @abstractmethod
    def token_embedding(self, word: str) -> Tensor:
        """(D,) input embedding of one word (mean over its pieces if it has several)."""

    @property
    @abstractmethod
    def token_table(self) -> Tensor:
        """(V, D) input embedding table of the text encoder."""

    @abstractmethod
    def token_words(self, ids: Sequence[int]) -> list[str]:
        """What tokens say, for people to read: a word, or a piece of one."""

    @abstractmethod
    def encode_text(self, ids_BT: Tensor, spliced: Tensor | None = None) -> Tensor:
        """(B, T, D) text states. Rows of the token embeddings where ``ids == placeholder_id`` are replaced by
        ``spliced`` (B, D) of their sample, or by its V vectors (B, V, D) in turn; no table is edited, so one batch may
        carry many concepts. Gradients flow into ``spliced``."""

    @abstractmethod
    def features(self, x_t_BChw: Tensor, t_B: Tensor, *, grad: bool = False) -> Tensor:
        """(B, F) mean-pooled outputs of conv_in, each down block layer and the mid block under the empty prompt
        (E4T section 3.1). The up blocks do not run."""

    @abstractmethod
    def mid_features(self, x_t_BChw: Tensor, t_B: Tensor) -> Tensor:
        """(B, F_mid, h', w') output of the mid block under the empty prompt, without gradients; its channels F_mid are
        the last of :attr:`feature_dims`. The up blocks do not run."""

    @abstractmethod
    def denoise(self, x_t_BChw: Tensor, t_B: Tensor, text_BTD: Tensor) -> Tensor:
        """(B, C, h, w) prediction of the network (eps or v, see :attr:`schedule`)."""

    @abstractmethod
    def to_moments(self, images_B3HW: Tensor) -> Tensor:
        """(B, 2C, h, w) VAE posterior mean and log variance of images in [-1, 1], unscaled."""

    @abstractmethod
    def to_latent(self, moments_B2Chw: Tensor, noise_BChw: Tensor | None = None) -> Tensor:
        """(B, C, h, w) latents at the model's scale: the mean, or a posterior sample if ``noise`` is given."""

    @abstractmethod
    def to_image(self, latents_BChw: Tensor) -> Tensor:
        """(B, 3, H, W) images, clamped to [-1, 1]."""

    @abstractmethod
    def enable_gradient_checkpointing(self) -> None:
        """Trade compute for memory in the denoiser's backward pass."""

    @abstractmethod
    def identity(self) -> Mapping[str, str]:
        """Content fingerprints of its parts (``unet``, ``vae``, ``text_encoder``), for lineage and mismatch checks."""
