"""The parts of a diffusers pipeline folder: loaded from safetensors, or drawn at random from their configurations."""

from __future__ import annotations

import gzip
from pathlib import Path

import open_clip.tokenizer
import torch
import transformers
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from e4t_core.backbones._layout import WEIGHTS, read_config, weight_files
from e4t_core.backbones._pretrained import from_safetensors
from e4t_core.backbones._quiet import quiet
from e4t_core.backbones._random import private_stream
from e4t_core.errors import UserError

_CLASSES = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}


def network(folder: Path, part: str, seed: int | None, dtype: torch.dtype) -> nn.Module:
    """One network: its weights from the folder, or drawn from ``seed`` if that is given."""
    if seed is None:
        return load_network(folder, part, dtype)
    with quiet():
        return draw_network(folder, part, seed).to(dtype)


def load_network(folder: Path, part: str, dtype: torch.dtype) -> nn.Module:
    """One network with its weights.

    Raises:
        UserError: no safetensors weights.
        CheckpointMismatch: weights of another size, or weights with missing or unknown tensors.
    """
    read_config(folder, part)
    weights = weight_files(folder, part)
    if not weights:
        raise UserError(
            f"{folder / part} has no {WEIGHTS[part]}.safetensors; convert the weights to safetensors, "
            "or set random_seed to draw them"
        )
    return from_safetensors(_CLASSES[part], folder / part, dtype)


def build_network(folder: Path, part: str, device: str = "cpu") -> nn.Module:
    """One network from its configuration alone, with the library's initial weights (none on ``meta``)."""
    config = read_config(folder, part)
    with torch.device(device), quiet():
        if part == "text_encoder":
            return CLIPTextModel(CLIPTextConfig.from_dict(config))
        return _CLASSES[part].from_config(config)


def draw_network(folder: Path, part: str, seed: int) -> nn.Module:
    """One network with initial weights from ``seed``, the same whatever else was drawn before."""
    with private_stream(seed):
        return build_network(folder, part)


def load_tokenizer(folder: Path, placeholder: str) -> CLIPTokenizer:
    """The folder's tokenizer with ``placeholder`` added as one token.

    A folder with a tokenizer configuration but no vocabulary gets CLIP's own, from the file that open_clip installs.
    """
    config = read_config(folder, "tokenizer")
    if (folder / "tokenizer" / "vocab.json").is_file() or (folder / "tokenizer" / "tokenizer.json").is_file():
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    else:
        vocab, merges = _clip_vocabulary()
        tokenizer = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=config["model_max_length"])
    tokenizer.add_tokens([transformers.AddedToken(placeholder, normalized=False, special=False)])
    return tokenizer


def _clip_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's 49,408 tokens in their published order, and their merges."""
    with gzip.open(open_clip.tokenizer.default_bpe(), "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")
    letters = list(open_clip.tokenizer.bytes_to_unicode().values())
    merges = [(left, right) for left, right in (line.split() for line in lines[1 : 49408 - 2 * len(letters) - 1])]
    tokens = [*letters, *(a + "</w>" for a in letters), *(a + b for a, b in merges), "<|startoftext|>", "<|endoftext|>"]
    return {token: i for i, token in enumerate(tokens)}, merges
