"""Putting a run's stack into the package, with its model card."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from e4t_core.backbones import BackboneConfig, ClipConfig, load_backbone, load_clip
from e4t_core.errors import UsageError, UserError
from e4t_core.metrics._onnx import Embedder
from jobs._tiny_stack.card import write_card, write_record
from jobs._tiny_stack.encoders import install_encoder, ready_encoders
from jobs._tiny_stack.evaluation import figures_of
from jobs._tiny_stack.files import BACKBONE, CLIP, CONFIGS, IDENTITY, NETWORKS, WEIGHTS, StackFolder, bundled
from jobs._tiny_stack.order import PARTS, export_unfinished
from jobs._tiny_stack.work import Work


def install(work: Work, where: str) -> dict[str, Any]:
    """Copy the run's weights and configurations to the package (``bundled``) or to a folder, and write the card with
    the figures of all that is there then.

    Parts that are still in training give the averaged weights of their last checkpoint; parts that were never begun
    leave what is there.

    Raises:
        UsageError: the run has no weights. UserError: too large, or they do not load.
    """
    export_unfinished(work)
    stack, target = work.trained, bundled() if where == "bundled" else StackFolder(Path(where))
    parts, encoders = [name for name in PARTS if stack.has(name)], ready_encoders(work)
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
    configs = [*networks, *(["scheduler"] if "diffusion" in parts else [])]  # the levels the UNet was trained at
    for name in [WEIGHTS[n] for n in networks] + [CONFIGS[n] for n in configs if n in CONFIGS]:
        _copy(stack.root / name, target.root / name)
    for name in encoders:
        install_encoder(work, name, target)
    write_record(work, stack, target)
    card = write_card(work, target, figures_of(work, target))
    work.job.say(f"installed {', '.join([*parts, *encoders])}, {size / 1e6:.1f} MB in all -> {target.root}")
    return {"installed": [*parts, *encoders], "bytes": size, "card": str(card)}


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
