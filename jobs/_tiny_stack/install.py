"""Putting a run's stack into the package, with its model card."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import torch

from e4t_core.backbones import BackboneConfig, ClipConfig, load_backbone, load_clip
from e4t_core.errors import UsageError, UserError
from e4t_core.metrics._onnx import Embedder
from e4t_core.record import versions
from jobs._tiny_stack.evaluation import FIGURES
from jobs._tiny_stack.files import BACKBONE, CLIP, CONFIGS, IDENTITY, NETWORKS, WEIGHTS, StackFolder, bundled
from jobs._tiny_stack.order import PARTS, export_unfinished, progress
from jobs._tiny_stack.pictures import about
from jobs._tiny_stack.work import Work

CARD = f"{BACKBONE}/README.md"
_PACKAGES = ("torch", "diffusers", "transformers", "open_clip_torch")


def install(work: Work, where: str) -> dict[str, Any]:
    """Copy the run's weights and configurations to the package (``bundled``) or to a folder, and write the card.

    Parts that are still in training give the averaged weights of their last checkpoint; parts that were never begun
    leave what is there.

    Raises:
        UsageError: the run has no weights. UserError: too large, or they do not load.
    """
    export_unfinished(work)
    stack, target = work.trained, bundled() if where == "bundled" else StackFolder(Path(where))
    parts = [name for name in PARTS if stack.has(name)]
    if not parts:
        raise UsageError(f"there is nothing to install in {work.out}: train a part first")
    _check_loads(work, stack, parts)
    networks = [network for part in parts for network in NETWORKS[part]]
    size = _size_after(target, stack, networks)
    if size > work.stack.max_megabytes * 1e6:
        raise UserError(
            f"the stack would take {size / 1e6:.1f} MB, over stack.max_megabytes = {work.stack.max_megabytes:g}"
        )
    target.prepare(str(stack.root / BACKBONE), str(stack.root / CLIP))
    for name in [WEIGHTS[n] for n in networks] + [CONFIGS[n] for n in networks if n in CONFIGS]:
        _copy(stack.root / name, target.root / name)
    (target.root / CARD).write_text(card(work, target))
    work.job.say(f"installed {', '.join(parts)}, {size / 1e6:.1f} MB in all -> {target.root}")
    return {"installed": parts, "bytes": size, "card": str(target.root / CARD)}


def _check_loads(work: Work, stack: StackFolder, parts: list[str]) -> None:
    if {"vae", "diffusion"} <= set(parts):
        load_backbone(BackboneConfig(path=str(stack.root / BACKBONE), resolution=work.stack.pictures.size))
    if "clip" in parts:
        load_clip(ClipConfig(path=str(stack.root / CLIP)))
    if "identity" in parts:
        Embedder(str(stack.weights("identity")), "nchw", "cpu")


def _size_after(target: StackFolder, stack: StackFolder, networks: list[str]) -> int:
    """Bytes of the three folders once ``networks`` are there."""
    files = {
        path.relative_to(root.root): path.stat().st_size
        for root in (target, stack)
        for folder in (BACKBONE, CLIP, IDENTITY)
        for path in (root.root / folder).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    files.update({Path(WEIGHTS[n]): stack.weights(n).stat().st_size for n in networks})
    return sum(files.values())


def _copy(source: Path, target: Path) -> None:
    temporary = target.with_suffix(".partial")
    shutil.copyfile(source, temporary)
    os.replace(temporary, target)


# --- the card


def card(work: Work, stack: StackFolder) -> str:
    """The model card, from the run's own records."""
    template = jinja2.Template(
        (resources.files("jobs._tiny_stack") / "card.md.jinja").read_text(),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    measured, parts = _measured(work, stack), _parts(work)
    return template.render(
        pictures=about(work.stack.pictures),
        seed=work.seed,
        stack=work.stack,
        parts=parts,
        missing=[name for name in PARTS if name not in {part["name"] for part in parts}],
        sizes=_sizes(stack),
        total=sum(size for _, size, _ in _sizes(stack)),
        figures=measured,
        command=_command(work),
        hardware=hardware(work.device),
        versions=versions(*_PACKAGES),
    )


def _parts(work: Work) -> list[dict[str, Any]]:
    out = []
    for name, made in progress(work).items():
        last: Mapping[str, float] = made["history"][-1] if made["history"] else {}
        terms = ", ".join(f"{k} {v:.4f}" for k, v in last.items() if k not in ("step", "lr", "seconds"))
        minutes = last.get("seconds", 0.0) / 60
        batch = getattr(work.stack, name).batch_size
        out.append({**made, "name": name, "terms": terms, "minutes": minutes, "batch": batch})
    return out


def _sizes(stack: StackFolder) -> list[tuple[str, int, str]]:
    """(file, bytes, hash) of the weights that are there."""
    there = [n for n in WEIGHTS if stack.weights(n).is_file()]
    return [(WEIGHTS[n], stack.weights(n).stat().st_size, stack.hash(n)) for n in there]


def _measured(work: Work, stack: StackFolder) -> dict[str, Any]:
    """The figures, if they are of these very weights."""
    path = work.out / "evaluation" / FIGURES
    if not path.exists():
        return {}
    found = json.loads(path.read_text())
    same = all(stack.weights(n).is_file() and stack.hash(n) == digest for n, digest in found["weights"].items())
    return dict(found["figures"]) if same else {}


def _command(work: Work) -> str:
    args = work.job.args
    words = ["python -m jobs train-tiny"]
    words += [f"--recipe {work.job.recipe.name}"] if work.job.recipe.name != "tiny_stack" else []
    words += [f"--set {text!r}" for text in args.set]
    return " ".join([*words, "--out OUT"])


def hardware(device: torch.device) -> str:
    """What it was trained on, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{os.cpu_count()} cores, {_processor()}"


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    names = [line for line in path.read_text().splitlines() if line.startswith("model name")] if path.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.machine()
