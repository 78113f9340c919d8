"""Names of adaptable layers and of the denoiser's own parameters, stable whatever is wrapped around them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from diffusers.models.activations import GEGLU
from diffusers.models.attention import Attention, BasicTransformerBlock, FeedForward
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import nn
from transformers.models.clip.modeling_clip import CLIPAttention

from e4t_core.backbones.base import Projection, Role, Site, TextAttention

_UNET_ATTENTION: tuple[tuple[Role, str], ...] = (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("out", "to_out.0"))
_TEXT_ATTENTION: tuple[tuple[Role, str], ...] = (("q", "q_proj"), ("k", "k_proj"), ("v", "v_proj"), ("out", "out_proj"))
_FEED_FORWARD: tuple[tuple[Role, str], ...] = (("geglu", "net.0.proj"), ("ff_out", "net.2"))
_LOCATIONS: dict[str, Literal["down", "mid", "up"]] = {"down_blocks": "down", "mid_block": "mid", "up_blocks": "up"}
_PARAMETRIZED = "parametrizations."


def unet_projections(unet: nn.Module) -> Iterator[Projection]:
    """Attention and feed-forward layers of the transformer blocks, in module order, found by class."""
    for name, module in unet.named_modules():
        if isinstance(module, Attention):
            attention: Literal["self", "cross"] = "cross" if module.is_cross_attention else "self"
            for role, path in _UNET_ATTENTION:
                yield _unet_projection(name, module, path, role, attention)
        elif isinstance(module, FeedForward) and isinstance(module.net[0], GEGLU):
            for role, path in _FEED_FORWARD:
                yield _unet_projection(name, module, path, role, "none")


def _unet_projection(
    name: str, module: nn.Module, path: str, role: Role, attention: Literal["self", "cross", "none"]
) -> Projection:
    location = _LOCATIONS[name.split(".")[0]]
    return Projection(f"unet.{name}.{path}", _linear(module, path), role, attention, "unet", location)


def attention_sites(unet: nn.Module, per: Site) -> Iterator[tuple[str, nn.Module]]:
    """Attention layers, or the transformers that hold them, in module order, found by class."""
    kind = Attention if per == "attention" else Transformer2DModel
    for name, module in unet.named_modules():
        if isinstance(module, kind):
            yield f"unet.{name}", module


def text_attentions(unet: nn.Module) -> Iterator[TextAttention]:
    """The cross-attention of each transformer block, in module order."""
    for name, block in unet.named_modules():
        if isinstance(block, BasicTransformerBlock) and isinstance(block.attn2, Attention):
            attention = block.attn2
            yield TextAttention(
                f"unet.{name}.attn2", block.norm2, attention, attention.to_q.in_features, attention.heads
            )


def text_projections(text_encoder: nn.Module) -> Iterator[Projection]:
    """Attention layers of the text encoder, named as in Stable Diffusion's files (``text_model.encoder...``)."""
    for name, module in text_encoder.named_modules():
        if isinstance(module, CLIPAttention):
            stable = f"text_encoder.text_model.{name.removeprefix('text_model.')}"
            for role, path in _TEXT_ATTENTION:
                yield Projection(f"{stable}.{path}", _linear(module, path), role, "self", "text_encoder", "text")


def _linear(module: nn.Module, path: str) -> nn.Linear:
    layer = module.get_submodule(path)
    if not isinstance(layer, nn.Linear):
        raise TypeError(f"{path} is a {type(layer).__name__}, not a linear layer")
    return layer


def stable_name(name: str) -> str:
    """A parameter's name without its parametrization: ``x.parametrizations.weight.original`` is ``x.weight``."""
    return name.replace(_PARAMETRIZED, "").removesuffix(".original") if _PARAMETRIZED in name else name
