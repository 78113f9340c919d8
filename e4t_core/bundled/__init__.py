"""Configuration folders that ship with the package, named ``bundled:NAME`` in recipes."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from e4t_core.errors import UsageError, nearest

SCHEME = "bundled:"


def bundled_folder(path: str) -> Path:
    """The folder of ``bundled:NAME`` (or of ``NAME``, or of something below it: ``bundled:NAME/FOLDER``).

    Raises:
        UsageError: nothing of that name is shipped.
    """
    name, _, below = path.removeprefix(SCHEME).partition("/")
    root = Path(str(resources.files(__name__)))
    names = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("_"))
    if name not in names:
        raise UsageError(f"nothing bundled is called '{name}'{nearest(name, names)}")
    return root / name / below
