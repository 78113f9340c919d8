"""The stack on disk, in the layouts of the libraries that load it: diffusers, open_clip, onnxruntime."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from e4t_core.bundled import SCHEME, bundled_folder
from e4t_core.errors import UsageError, UserError, nearest

BACKBONE, CLIP, IDENTITY = "tiny", "clip_tiny", "identity_tiny"
WEIGHTS = {
    "unet": f"{BACKBONE}/unet/diffusion_pytorch_model.safetensors",
    "vae": f"{BACKBONE}/vae/diffusion_pytorch_model.safetensors",
    "text_encoder": f"{BACKBONE}/text_encoder/model.safetensors",
    "clip": f"{CLIP}/open_clip_model.safetensors",
    "identity": f"{IDENTITY}/model.onnx",
}
"""Network -> its file."""
TRAINING = f"{BACKBONE}/training.json"
"""How the weights came to be."""
CONFIGS = {
    "unet": f"{BACKBONE}/unet/config.json",
    "vae": f"{BACKBONE}/vae/config.json",
    "text_encoder": f"{BACKBONE}/text_encoder/config.json",
    "clip": f"{CLIP}/open_clip_config.json",
    "scheduler": f"{BACKBONE}/scheduler/scheduler_config.json",
}
NETWORKS = {"vae": ("vae",), "clip": ("clip",), "identity": ("identity",), "diffusion": ("text_encoder", "unet")}
"""Part -> the networks it trains."""


@dataclass(frozen=True)
class StackFolder:
    """A folder with ``tiny/``, ``clip_tiny/`` and ``identity_tiny/``: a run's result, or the package's own."""

    root: Path

    def weights(self, network: str) -> Path:
        """The weight file of ``network``."""
        return self.root / WEIGHTS[network]

    def has(self, part: str) -> bool:
        """All weights of a part are there."""
        return all(self.weights(network).is_file() for network in NETWORKS[part])

    def prepare(self, base: str, clip_base: str) -> None:
        """Fill in what is not learned: configurations, tokenizers, the scheduler."""
        for name, source in ((BACKBONE, base), (CLIP, clip_base)):
            target = self.root / name
            if not target.exists():
                ignore = shutil.ignore_patterns("*.safetensors", "*.md", "training.json", "__pycache__")
                shutil.copytree(local(source), target, ignore=ignore)
        (self.root / IDENTITY).mkdir(exist_ok=True)

    def save(self, network: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Write configuration and weights, in half precision, each file whole or not at all."""
        if self.config(network) != config:
            _replace(self.root / CONFIGS[network], (json.dumps(config, indent=2, sort_keys=True) + "\n").encode())
        half = {n: t.detach().to("cpu", torch.float16, copy=True).contiguous() for n, t in tensors.items()}
        target = self.weights(network)
        temporary = target.with_suffix(".partial")
        save_file(half, temporary, metadata={"format": "pt"})
        os.replace(temporary, target)

    def save_bytes(self, network: str, data: bytes) -> None:
        """Write a weight file that a part made itself."""
        _replace(self.weights(network), data)

    def load(self, network: str) -> dict[str, Tensor]:
        """float32 tensors of ``network``.

        Raises:
            UserError: there are none.
        """
        path = self.weights(network)
        if not path.is_file():
            raise UserError(f"there are no weights of the {network} at {path}")
        return {name: t.float() for name, t in load_file(path).items()}

    def config(self, network: str) -> dict[str, Any]:
        """The configuration file of ``network``."""
        return dict(json.loads((self.root / CONFIGS[network]).read_text()))

    def hash(self, network: str) -> str:
        """16 hex digits of the SHA-256 of the network's weights, or of what has a configuration alone."""
        with (self.root / (WEIGHTS.get(network) or CONFIGS[network])).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]

    def hashes(self, part: str) -> dict[str, str]:
        """Network -> hash of its weights, for those of a part that are there."""
        return {n: self.hash(n) for n in NETWORKS[part] if self.weights(n).is_file()}

    def record(self) -> dict[str, Any]:
        """Part -> how the weights that are there came to be; what is told of other weights is left out."""
        path = self.root / TRAINING
        found = json.loads(path.read_text()) if path.exists() else {}
        return {name: made for name, made in found.items() if made["weights"] == self.hashes(name)}


def bundled() -> StackFolder:
    """The package's own stack."""
    return StackFolder(bundled_folder(BACKBONE).parent)


def stack_at(where: str) -> StackFolder:
    """The stack that ``--init`` names: ``bundled``, a run's folder, or a folder with the stack itself.

    Raises:
        UsageError: there is none.
    """
    if where == "bundled":
        return bundled()
    for root in (Path(where) / "stack", Path(where)):
        if any((root / file).is_file() for file in WEIGHTS.values()):
            return StackFolder(root)
    raise UsageError(f"--init {where}: no trained weights there; give 'bundled' or the --out of an earlier run")


def local(base: str) -> Path:
    """The folder of ``bundled:NAME`` or a local path.

    Raises:
        UsageError: it is not there.
    """
    if base.startswith(SCHEME):
        return bundled_folder(base)
    if not Path(base).is_dir():
        raise UsageError(f"there is no folder '{base}'; give {SCHEME}NAME or a local folder with configurations")
    return Path(base)


def overridden(config: Mapping[str, Any], over: Mapping[str, Any], where: str) -> dict[str, Any]:
    """``config`` with the recipe's own values; sections merge.

    Raises:
        UsageError: the configuration has no such key.
    """
    out = dict(config)
    for key, value in over.items():
        if key not in config:
            raise UsageError(f"{where}.{key}: unknown key '{key}'{nearest(key, config)}")
        section = isinstance(value, Mapping) and isinstance(config[key], Mapping)
        out[key] = overridden(config[key], value, f"{where}.{key}") if section else value
    return out


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_suffix(".partial")
    temporary.write_bytes(data)
    os.replace(temporary, path)
