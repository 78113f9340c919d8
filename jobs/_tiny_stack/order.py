"""The parts in their order: what of a run is finished, and training what is not."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from e4t_core.errors import UsageError
from jobs._tiny_stack.clip import ClipPart
from jobs._tiny_stack.diffusion import DiffusionPart
from jobs._tiny_stack.files import CONFIGS, NETWORKS, WEIGHTS
from jobs._tiny_stack.identity import IdentityPart
from jobs._tiny_stack.part import Part
from jobs._tiny_stack.pictures import draw_pool
from jobs._tiny_stack.settings import require_same
from jobs._tiny_stack.stopping import StopRequest, stop_on_signal
from jobs._tiny_stack.training import CHECKPOINT, Outcome, exported, mixing_hint, opened, read_checkpoint, train
from jobs._tiny_stack.vae import VaePart
from jobs._tiny_stack.work import Work

PARTS: dict[str, type[Part]] = {part.name: part for part in (VaePart, ClipPart, IdentityPart, DiffusionPart)}
PICTURES, ENCODERS = "pictures", "encoders"
ALL = (PICTURES, *PARTS, ENCODERS)
"""What ``--only`` can name, in the order in which it is done."""
DONE = "done.json"
_TOLD = ("settings", "step", "history", "begun_from", "made_with")
"""What a checkpoint tells of a part's training."""


def run_parts(work: Work, only: Sequence[str]) -> None:
    """Train what is not finished, each part from its checkpoint.

    Raises:
        UsageError: something there is of another recipe. Stopped: a signal came.
    """
    torch.set_num_threads(work.stack.run.threads)
    work.trained.root.mkdir(parents=True, exist_ok=True)
    work.trained.prepare(work.stack.base, work.stack.clip_base)
    draw_pool(work.job, work.stack, work.pictures)
    with stop_on_signal(work.job.say) as stop:
        for name in only:
            if name in PARTS:
                _run_part(work, PARTS[name](work), stop)


def _run_part(work: Work, part: Part, stop: StopRequest) -> None:
    if part.name == "diffusion":
        require_part(work, "vae", "the diffusion model")  # it lives in a finished autoencoder's latents
    done = finished(work, part.name)
    if done is not None:
        if "taken" not in done:
            require_same(done["settings"], part.settings(), f"the finished {part.name} is", mixing_hint(work.out))
        work.job.say(f"{part.name}: finished at step {done['step']}")
        return
    outcome = train(part, stop)
    record(work, part, outcome)
    work.job.say(f"{part.name}: finished, {outcome.facts}")


def record(work: Work, part: Part, outcome: Outcome) -> None:
    """Say that a part is finished, and keep its curve."""
    _write_done(work, part.name, {"settings": part.settings(), **asdict(outcome)})


def finished(work: Work, name: str) -> dict[str, Any] | None:
    """What :func:`record` wrote, if the part's weights are there too."""
    path = work.part(name) / DONE
    if not path.exists() or not work.trained.has(name):
        return None
    return dict(json.loads(path.read_text()))


def progress(work: Work) -> dict[str, dict[str, Any]]:
    """Part -> ``steps`` and what :data:`_TOLD` names, from its end or its checkpoint; parts not begun are left out.

    A part that was taken as it is has ``taken`` and ``record`` (of its training, if known) instead.
    """
    out = {}
    for name in PARTS:
        done, path = finished(work, name), work.part(name) / CHECKPOINT
        if done is None and path.exists():
            state = read_checkpoint(path)
            steps = state["settings"]["stack"][name]["steps"]
            done = {**{key: state[key] for key in _TOLD}, "steps": steps}
        if done is not None:
            out[name] = done
    return out


def export_unfinished(work: Work) -> None:
    """Write the averaged weights of parts that have a checkpoint but no end."""
    for name, cls in PARTS.items():
        if finished(work, name) is None and (work.part(name) / CHECKPOINT).exists():
            outcome = exported(opened(cls(work)))
            work.job.say(f"{name}: the weights of step {outcome.step} of {outcome.steps}")


def require_part(work: Work, name: str, needed_by: str) -> None:
    """Make sure that a part is finished: in this run, or by taking it as it is from the stack to begin from.

    Raises:
        UsageError: neither has it.
    """
    if finished(work, name) is not None:
        return
    init = work.init
    if init is None or not init.has(name):
        raise UsageError(f"{needed_by}: part `{name}` must be finished; train it first, or give --init with one")
    for network in NETWORKS[name]:
        for file in (WEIGHTS[network], CONFIGS.get(network)):
            if file is not None:
                shutil.copyfile(init.root / file, work.trained.root / file)
    _write_done(work, name, {"taken": init.hashes(name), "record": init.record().get(name), "step": 0, "steps": 0})
    work.job.say(f"{name}: taken as it is from {init.root}")


def _write_done(work: Work, name: str, content: dict[str, Any]) -> None:
    folder = work.part(name)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / "done.partial"
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(temporary, folder / DONE)
