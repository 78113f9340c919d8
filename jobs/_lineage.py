"""Where a result comes from: the command, the recipe, the versions."""

from __future__ import annotations

import argparse
import platform
import re
import shlex
from typing import Any

from e4t_core.record import versions

_PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "open_clip_torch",
    "onnxruntime",
    "ray",
    "mlflow",
    "pyarrow",
    "numpy",
)
_COMMON = ("json", "dry_run", "yes")


def shown(uri: str) -> str:
    """``uri`` without its password, for messages, records and reports."""
    return re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:***@", uri)


def command_line(name: str, args: argparse.Namespace) -> str:
    """The command as one would type it again, passwords in URIs masked."""
    words = ["python", "-m", "jobs", name]
    for key, value in vars(args).items():
        flag = f"--{key.replace('_', '-')}"
        if key in _COMMON or value is None or value is False:
            continue
        if value is True:
            words.append(flag)
        else:
            for item in value if isinstance(value, list) else [value]:
                words += [flag, str(item)]
    return shlex.join(shown(word) for word in words)


def lineage(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """What a manifest says of how it was made, beside its recipe and inputs."""
    return {"command": command_line(name, args), "environment": environment()}


def environment() -> dict[str, str]:
    """Versions of what computes."""
    return {"python": platform.python_version(), **versions(*_PACKAGES)}


def public(recipe: dict[str, Any]) -> dict[str, Any]:
    """A dumped recipe that may be shown: passwords in the tracking URI are masked."""
    mlflow = recipe["mlflow"]
    return {**recipe, "mlflow": {**mlflow, "uri": mlflow["uri"] and shown(mlflow["uri"])}}
