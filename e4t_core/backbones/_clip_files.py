"""The files of an open_clip model, without importing open_clip unless the model is one of its own."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from e4t_core.backbones._fingerprints import file_hash, model_fingerprint
from e4t_core.backbones._locate import model_folder
from e4t_core.backbones.config import ClipConfig
from e4t_core.errors import UsageError, UserError
from e4t_core.record import fingerprint

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors")
PATTERNS = (CONFIG, *WEIGHTS, "vocab.json", "merges.txt", "tokenizer*.json", "special_tokens_map.json")


def weights_fingerprint(cfg: ClipConfig) -> str:
    """Fingerprint of the model's configuration with its weights (or the seed that draws them, or its published tag)."""
    with source(cfg) as (name, folder):
        if folder is not None:
            weights = [weights_file(folder)] if cfg.random_seed is None else []
            return model_fingerprint(read_config(folder), weights, cfg.random_seed)
        tag = cfg.pretrained
        if tag is not None and os.path.isfile(tag):
            tag = file_hash(Path(tag))
        import open_clip

        config = open_clip.get_model_config(name)
        return fingerprint({"config": config, "seed": cfg.random_seed, "pretrained": tag})


@contextlib.contextmanager
def source(cfg: ClipConfig) -> Iterator[tuple[str, Path | None]]:
    """(open_clip's name for the model, its folder if it is not one of open_clip's own)."""
    if not _is_folder(cfg.path) and cfg.path in _library():
        if cfg.pretrained is None and cfg.random_seed is None:
            import open_clip

            tags = ", ".join(open_clip.list_pretrained_tags_by_model(cfg.path))
            raise UsageError(f"clip.path is open_clip's '{cfg.path}': set clip.pretrained (a weights file, or {tags})")
        yield cfg.path, None
        return
    with model_folder(cfg.path, PATTERNS) as folder:
        yield f"local-dir:{folder}", folder


def read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(f"{folder} has no {CONFIG}; it must be an open_clip model folder")
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error


def weights_file(folder: Path) -> Path:
    read_config(folder)
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder} has none of {', '.join(WEIGHTS)}; save the weights as safetensors, or set random_seed")


def _is_folder(path: str) -> bool:
    return ":" in path or "/" in path or Path(path).is_dir()


def _library() -> list[str]:
    import open_clip

    return list(open_clip.list_models())
