"""The files of a diffusers pipeline folder, without the libraries that load them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from e4t_core.backbones._fingerprints import model_fingerprint
from e4t_core.backbones._locate import model_folder
from e4t_core.backbones.config import BackboneConfig
from e4t_core.errors import UserError

WEIGHTS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
}
"""Networks of the folder and the stem of their weight files."""
_CONFIGS = {"tokenizer": "tokenizer_config.json", "scheduler": "scheduler_config.json"}


def patterns(parts: Sequence[str] = (*WEIGHTS, *_CONFIGS)) -> list[str]:
    """The files that ``parts`` need: no other precision, no ``.bin``, no ``.ckpt``."""
    out = []
    for part in parts:
        out += [f"{part}/*.json"] + ([f"{part}/*.txt"] if part == "tokenizer" else [])
        if part in WEIGHTS:
            out += [f"{part}/{WEIGHTS[part]}.safetensors", f"{part}/{WEIGHTS[part]}-*.safetensors"]
    return out


def read_config(folder: Path, part: str) -> dict[str, Any]:
    """The JSON configuration of one part.

    Raises:
        UserError: the part is missing or its configuration is not JSON.
    """
    path = folder / part / _CONFIGS.get(part, "config.json")
    if not path.is_file():
        raise UserError(f"{folder} has no '{part}/{path.name}'; it must be a diffusers pipeline folder")
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error


def weight_files(folder: Path, part: str) -> list[Path]:
    """The safetensors files of one network, sorted; empty if it has none."""
    stem = WEIGHTS[part]
    return sorted([*(folder / part).glob(f"{stem}.safetensors"), *(folder / part).glob(f"{stem}-*.safetensors")])


def network_fingerprint(folder: Path, part: str, seed: int | None) -> str:
    """Fingerprint of one network: its configuration with its weight files, or with the seed that draws them."""
    return model_fingerprint(read_config(folder, part), weight_files(folder, part) if seed is None else [], seed)


def vae_fingerprint(cfg: BackboneConfig) -> str:
    """What :meth:`~e4t_core.backbones.base.Backbone.identity` calls ``vae``, without loading the model."""
    with model_folder(cfg.path, patterns(["vae"])) as folder:
        return network_fingerprint(folder, "vae", cfg.random_seed)
