"""Sources as recipes open them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from e4t_core.config import validate
from pipelines.sources import SOURCES, Source


def open_source(name: str, path: str | Path | None = None, **fields: Any) -> Source:
    """The source with its validated configuration."""
    cls = SOURCES.get(name)
    tree = {key: str(value) if isinstance(value, Path) else value for key, value in fields.items()}
    return cls(validate(cls.Config, {"name": name, "path": path and str(path), **tree}, "source"))
