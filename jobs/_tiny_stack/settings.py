"""Comparing the settings that something on disk was made with to those of this run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from e4t_core.errors import UsageError

_SHOWN = 6


def require_same(there: Mapping[str, Any], here: Mapping[str, Any], what: str, hint: str) -> None:
    """Refuse to mix.

    Raises:
        UsageError: a setting differs; names each with both values, then ``hint``.
    """
    theirs, ours = _flat(there), _flat(here)
    lines = [
        f"{name} is {theirs.get(name, 'not set')!r} there and {ours.get(name, 'not set')!r} here"
        for name in sorted({*theirs, *ours})
        if theirs.get(name) != ours.get(name)
    ]
    if lines:
        more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
        raise UsageError(f"{what} of another recipe: {'; '.join(lines[:_SHOWN])}{more}. {hint}")


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix: list(value) if isinstance(value, tuple) else value}
    parts = [_flat(item, f"{prefix}.{name}" if prefix else str(name)) for name, item in value.items()]
    return {name: item for part in parts for name, item in part.items()}
