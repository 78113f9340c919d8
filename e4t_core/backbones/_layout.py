"""The files of a diffusers pipeline folder, without the libraries that load them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from e4t_core.backbones._fingerprints import file_hash, model_fingerprint
from e4t_core.backbones._locate import model_folder
from e4t_core.backbones.config import BackboneConfig
from e4t_core.errors import UserError
from e4t_core.record import fingerprint

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


def backbone_fingerprint(cfg: BackboneConfig) -> str:
    """All that a prediction depends on, without loading the model: every network as
    :meth:`~e4t_core.backbones.base.Backbone.identity` names it, the vocabulary and the noise schedule."""
    with model_folder(cfg.path, patterns()) as folder:
        words = [folder / "tokenizer" / name for name in ("vocab.json", "merges.txt", "tokenizer.json")]
        facts = {part: network_fingerprint(folder, part, cfg.random_seed) for part in WEIGHTS}
        facts["tokenizer"] = fingerprint({path.name: file_hash(path) for path in words if path.is_file()})
        facts["scheduler"] = model_fingerprint(read_config(folder, "scheduler"), [], None)
    return fingerprint(facts)
