"""Stable Diffusion 1.x and 2.x (LDM, Rombach et al.) behind the :class:`~e4t_core.backbones.base.Backbone` interface.

Every width is read from the folder's configurations; diffusers' and transformers' own classes do the work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn
from transformers import CLIPTokenizer

from e4t_core.adapters.token_splice import token_splice
from e4t_core.backbones import _layout, _parts
from e4t_core.backbones._locate import model_folder
from e4t_core.backbones._projections import (
    attention_sites,
    stable_name,
    text_attentions,
    text_projections,
    unet_projections,
)
from e4t_core.backbones.attention import FastestAttention
from e4t_core.backbones.autoencoder import Autoencoder
from e4t_core.backbones.base import Backbone, NoiseSchedule, Projection, Role, Site, TextAttention
from e4t_core.backbones.config import BackboneConfig
from e4t_core.bundled import SCHEME
from e4t_core.errors import UsageError, UserError


class StableDiffusionBackbone(Backbone):
    """A frozen Stable Diffusion model.

    Args:
        unet, vae, text_encoder: diffusers' and transformers' networks.
        tokenizer: already knows ``placeholder`` as one token.
        scheduler_config: diffusers' scheduler configuration the model was trained with.
        resolution: pixel side of the images.
        identity: fingerprints of the networks.
    """

    def __init__(
        self,
        unet: Any,
        vae: Any,
        text_encoder: Any,
        tokenizer: CLIPTokenizer,
        scheduler_config: Mapping[str, Any],
        *,
        resolution: int,
        placeholder: str,
        identity: Mapping[str, str],
    ) -> None:
        super().__init__()
        _check_unet(unet, vae)
        self.unet = unet.to(memory_format=torch.channels_last)
        self.unet.set_attn_processor(FastestAttention())
        self.autoencoder = Autoencoder(vae)
        self.text_encoder = text_encoder
        self.tokenizer = tokenizer
        self.scheduler_config = dict(scheduler_config)
        scheduler = DDPMScheduler.from_config(self.scheduler_config)
        self.schedule = NoiseSchedule(scheduler.alphas_cumprod, scheduler.config.prediction_type)
        self.placeholder = placeholder
        self.placeholder_id = int(tokenizer.convert_tokens_to_ids(placeholder))
        self.special_ids = _special_ids(tokenizer, self.placeholder_id, len(self.token_table))
        self.text_width = int(text_encoder.config.hidden_size)
        self.max_tokens = min(int(tokenizer.model_max_length), int(text_encoder.config.max_position_embeddings))
        self.latent_shape = self._latent_shape(resolution)
        self.feature_dims = _feature_dims(unet)
        self._identity = dict(identity)
        self._parameter_names = frozenset(name for name, _ in unet.named_parameters())
        self._empty_text_1TD: Tensor
        self.requires_grad_(False).eval()
        self.register_buffer("_empty_text_1TD", self._encode_empty(), persistent=False)

    @classmethod
    def load(cls, cfg: BackboneConfig, device: str | torch.device = "cpu") -> StableDiffusionBackbone:
        """The model a recipe names, on ``device``.

        Raises:
            UserError: nothing at ``cfg.path``, a part is missing, or weights do not fit the configuration.
        """
        dtype = getattr(torch, cfg.dtype)
        with model_folder(cfg.path, _layout.patterns()) as folder:
            networks = {part: _parts.network(folder, part, cfg.random_seed, dtype) for part in _layout.WEIGHTS}
            backbone = cls._assemble(folder, networks, cfg.resolution, cfg.placeholder, cfg.random_seed)
        return backbone.to(device)

    @classmethod
    def from_config(cls, path: str, device: str = "meta", resolution: int | None = None) -> StableDiffusionBackbone:
        """The model's shape without its weights: sizes and names of a full-size model at no cost on ``meta``.

        Args:
            path: folder, URI, hub id, ``bundled:NAME`` or the ``NAME`` of a bundled folder.
            resolution: pixel side; by default what the configuration was trained at.
        """
        known = path if "/" in path or path.startswith(SCHEME) else SCHEME + path
        with model_folder(known, [p for p in _layout.patterns() if not p.endswith(".safetensors")]) as folder:
            networks = {part: _parts.build_network(folder, part, device) for part in _layout.WEIGHTS}
            placeholder = BackboneConfig.model_fields["placeholder"].default
            return cls._assemble(folder, networks, resolution, placeholder, None).to(device)

    @classmethod
    def _assemble(
        cls, folder: Path, networks: Mapping[str, Any], resolution: int | None, placeholder: str, seed: int | None
    ) -> StableDiffusionBackbone:
        default = int(networks["unet"].config.sample_size) * Autoencoder(networks["vae"]).factor
        return cls(
            **networks,
            tokenizer=_parts.load_tokenizer(folder, placeholder),
            scheduler_config=_layout.read_config(folder, "scheduler"),
            resolution=resolution or default,
            placeholder=placeholder,
            identity={part: _layout.network_fingerprint(folder, part, seed) for part in networks},
        )

    def _latent_shape(self, resolution: int) -> tuple[int, int, int]:
        step = self.autoencoder.factor * 2 ** (len(self.unet.config.block_out_channels) - 1)
        if resolution % step:
            raise UsageError(f"backbone.resolution is {resolution}; this model needs a multiple of {step}")
        side = resolution // self.autoencoder.factor
        return self.autoencoder.channels, side, side

    @property
    def device(self) -> torch.device:
        return self.schedule.alphas_cumprod.device

    @property
    def dtype(self) -> torch.dtype:
        """Parameter type of the denoiser."""
        return self.unet.conv_in.weight.dtype

    # --- names

    def projections(
        self, roles: Sequence[Role] = ("q", "k", "v"), networks: Sequence[str] = ("unet",)
    ) -> dict[str, Projection]:
        found = [*unet_projections(self.unet)] if "unet" in networks else []
        if "text_encoder" in networks:
            found += text_projections(self.text_encoder)
        return {p.name: p for p in found if p.role in roles}

    def attention_sites(self, per: Site) -> dict[str, nn.Module]:
        return dict(attention_sites(self.unet, per))

    def text_attentions(self) -> dict[str, TextAttention]:
        return {site.name: site for site in text_attentions(self.unet)}

    def denoiser_parameters(self) -> dict[str, nn.Parameter]:
        named = ((stable_name(name), p) for name, p in self.unet.named_parameters())
        return {name: p for name, p in named if name in self._parameter_names}

    # --- text

    def text_parameters(self) -> dict[str, nn.Parameter]:
        named = ((stable_name(name), p) for name, p in self.text_encoder.named_parameters())
        return {f"text_model.{name.removeprefix('text_model.')}": p for name, p in named}

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        whole = self.tokenizer(list(prompts), verbose=False)["input_ids"]  # it warns of length; we count below
        ids = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=self.max_tokens, return_tensors="pt"
        )["input_ids"]
        kept = (ids == self.placeholder_id).sum(dim=1).tolist()
        for prompt, full, count in zip(prompts, whole, kept, strict=True):
            if full.count(self.placeholder_id) > count:
                raise UsageError(
                    f"the prompt {prompt!r} has {len(full)} tokens; the model reads {self.max_tokens}, and the cut "
                    f"would drop {self.placeholder}: shorten it or move {self.placeholder} to the front"
                )
        return ids.to(self.device)

    def token_embedding(self, word: str) -> Tensor:
        ids = self.tokenizer(word, add_special_tokens=False)["input_ids"]
        if not ids or self.placeholder_id in ids:
            raise UsageError(f"{word!r} has no embedding of its own in this text encoder; name a plain word")
        return self.token_table[ids].mean(dim=0)

    @property
    def token_table(self) -> Tensor:
        return self.text_encoder.get_input_embeddings().weight

    def token_words(self, ids: Sequence[int]) -> list[str]:
        return [self.tokenizer.decode([int(i)]).strip() for i in ids]

    def encode_text(self, ids_BT: Tensor, spliced: Tensor | None = None) -> Tensor:
        if spliced is None:
            if (ids_BT == self.placeholder_id).any():
                raise ValueError(f"the ids hold {self.placeholder}, but no embedding to put in its place was given")
            return self.text_encoder(ids_BT).last_hidden_state
        with token_splice(self.text_encoder.get_input_embeddings(), self.placeholder_id, spliced):
            return self.text_encoder(ids_BT).last_hidden_state

    @torch.no_grad()
    def _encode_empty(self) -> Tensor:
        ids = self.tokenizer("", padding="max_length", max_length=self.max_tokens, return_tensors="pt")["input_ids"]
        return self.text_encoder(ids.to(self.token_table.device)).last_hidden_state

    # --- denoiser

    def features(self, x_t_BChw: Tensor, t_B: Tensor, *, grad: bool = False) -> Tensor:
        with torch.set_grad_enabled(grad and torch.is_grad_enabled()):
            outputs = self._down_and_mid(x_t_BChw.to(self.dtype), t_B)
            pooled = [output.mean(dim=(2, 3), dtype=torch.float32) for output in outputs]
            return torch.cat(pooled, dim=1).to(x_t_BChw.dtype)

    @torch.no_grad()
    def mid_features(self, x_t_BChw: Tensor, t_B: Tensor) -> Tensor:
        return self._down_and_mid(x_t_BChw.to(self.dtype), t_B)[-1].to(x_t_BChw.dtype)

    def _down_and_mid(self, x_BChw: Tensor, t_B: Tensor) -> list[Tensor]:
        """Outputs of conv_in, of every down block layer, and of the mid block, under the empty prompt."""
        unet, text = self.unet, self._empty_text_1TD.expand(len(x_BChw), -1, -1)
        temb = unet.time_embedding(unet.get_time_embed(sample=x_BChw, timestep=t_B))
        hidden = unet.conv_in(x_BChw)
        outputs = [hidden]
        for block in unet.down_blocks:
            states = {"encoder_hidden_states": text} if getattr(block, "has_cross_attention", False) else {}
            hidden, skips = block(hidden_states=hidden, temb=temb, **states)
            outputs += skips
        return [*outputs, unet.mid_block(hidden, temb, encoder_hidden_states=text)]

    def denoise(self, x_t_BChw: Tensor, t_B: Tensor, text_BTD: Tensor) -> Tensor:
        out = self.unet(x_t_BChw.to(self.dtype), t_B, encoder_hidden_states=text_BTD.to(self.dtype), return_dict=False)
        return out[0].to(x_t_BChw.dtype)

    def enable_gradient_checkpointing(self) -> None:
        self.unet.enable_gradient_checkpointing()

    # --- images

    def to_moments(self, images_B3HW: Tensor) -> Tensor:
        return self.autoencoder.to_moments(images_B3HW)

    def to_latent(self, moments_B2Chw: Tensor, noise_BChw: Tensor | None = None) -> Tensor:
        return self.autoencoder.to_latent(moments_B2Chw, noise_BChw)

    def to_image(self, latents_BChw: Tensor) -> Tensor:
        return self.autoencoder.to_image(latents_BChw)

    def identity(self) -> Mapping[str, str]:
        return dict(self._identity)


def _check_unet(unet: Any, vae: Any) -> None:
    """Refuse denoisers of other families, which need inputs that this interface does not give."""
    config = unet.config
    extra = [k for k in ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type") if config.get(k)]
    if extra:
        raise UserError(
            f"this UNet needs {', '.join(extra)} ({config.get(extra[0])}); it is not Stable Diffusion 1.x or 2.x"
        )
    latent_channels = int(vae.config.latent_channels)
    if int(config.in_channels) != latent_channels:
        raise UserError(
            f"this UNet takes {config.in_channels} channels; text-to-image with this VAE needs {latent_channels}"
        )


def _special_ids(tokenizer: CLIPTokenizer, placeholder_id: int, rows: int) -> tuple[int, ...]:
    return tuple(sorted(i for i in {*tokenizer.all_special_ids, placeholder_id} if i < rows))


def _feature_dims(unet: Any) -> tuple[int, ...]:
    dims = [unet.conv_in.out_channels]
    for block in unet.down_blocks:
        dims += [layer.out_channels for layer in (*block.resnets, *(block.downsamplers or ()))]
    return (*dims, unet.mid_block.resnets[-1].out_channels)
