"""What a part was made with: noted when it is trained, not when it is installed, which may be elsewhere."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

from e4t_core.record import versions
from jobs._tiny_stack.work import Work

_PACKAGES = ("torch", "diffusers", "transformers", "open_clip_torch")


def made_with(work: Work, part: str) -> dict[str, Any]:
    """Command, hardware and versions."""
    return {"command": _command(work, part), "hardware": hardware(work.device), "versions": versions(*_PACKAGES)}


def _command(work: Work, part: str) -> str:
    args = work.job.args
    words = ["python -m jobs train-tiny"]
    words += [f"--recipe {work.job.recipe.name}"] if work.job.recipe.name != "tiny_stack" else []
    words += [f"--set {text!r}" for text in args.set]
    return " ".join([*words, "--only", part, "--out OUT"])


def hardware(device: torch.device) -> str:
    """The device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{os.cpu_count()} cores, {_processor()}"


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    names = [line for line in path.read_text().splitlines() if line.startswith("model name")] if path.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.machine()
