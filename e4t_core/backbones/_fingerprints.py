"""Content fingerprints of model files, equal for equal content wherever it lies; no model is loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from e4t_core.record import fingerprint


def model_fingerprint(config: Mapping[str, Any], weights: Sequence[Path], seed: int | None) -> str:
    """Fingerprint of a model's configuration with its weight files, or with the seed that draws them."""
    # keys with an underscore say who saved the file, not what it holds
    facts = {key: value for key, value in config.items() if not key.startswith("_")}
    return fingerprint({"config": facts, "seed": seed, "weights": [file_hash(path) for path in weights]})


def file_hash(path: Path) -> str:
    """SHA-256 of a file; remembered while size and modification time stay the same."""
    info = path.stat()
    return _file_hash(str(path), info.st_size, info.st_mtime_ns)


@lru_cache(maxsize=64)
def _file_hash(path: str, _size: int, _modified: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
