"""The training loop that all parts share: averaged weights, checkpoints, exact resuming."""

from __future__ import annotations

import math
import os
import pickle
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from e4t_core.errors import DataError, UserError
from e4t_core.training import TrainingDiverged
from jobs._tiny_stack.files import NETWORKS
from jobs._tiny_stack.part import Part, Step
from jobs._tiny_stack.provenance import made_with
from jobs._tiny_stack.settings import require_same
from jobs._tiny_stack.stopping import StopRequest

CHECKPOINT = "checkpoint.pt"


class Stopped(UserError):
    """A signal asked the run to end; its checkpoint is written."""

    exit_code = 130


@dataclass
class Outcome:
    """What came of a part's training.

    Attributes:
        step: steps done. ``steps``: of how many.
        history: log lines: ``step``, ``lr``, ``seconds`` and the means of the loss terms since the line before.
        begun_from: hashes of the weights it began with; empty if it began with drawn ones.
        made_with: command, hardware and versions of its last steps.
        facts: what the part's export tells.
    """

    step: int
    steps: int
    history: list[dict[str, float]]
    begun_from: dict[str, str]
    made_with: dict[str, Any]
    facts: dict[str, Any]


class Training:
    """One part's module, optimizer, schedule and average."""

    def __init__(self, part: Part) -> None:
        self.part, self.config, self.work = part, part.config, part.work
        self.module = part.drawn().to(self.work.device)
        self.begun_from: dict[str, str] = {}
        self.made_with = made_with(self.work, part.name)
        if self.work.init is not None:
            part.warm_start(self.module, self.work.init)
            self.begun_from = {network: self.work.init.hash(network) for network in NETWORKS[part.name]}
        self.optimizer = _adamw(self.module, self.config)
        self.schedule = OneCycleLR(
            self.optimizer,
            max_lr=self.config.learning_rate,
            total_steps=self.config.steps + 1,
            pct_start=self.config.warmup,
            cycle_momentum=False,
            final_div_factor=100,
        )
        decay = self.config.ema_decay
        self.ema = None if decay is None else EMAModel(self.module.parameters(), decay=decay, foreach=True)
        self.step, self.seconds = 0, 0.0
        self.history: list[dict[str, float]] = []
        self.sums: dict[str, float] = {}
        self.counted = 0

    # --- steps

    def one_step(self) -> float:
        """One optimizer step; returns its loss."""
        step = Step(self.work.seed, self.part.name, self.step, self.config.steps)
        self.optimizer.zero_grad(set_to_none=True)
        with self.autocast():
            terms = self.part.losses(self.module, step)
        terms["loss"].backward()
        nn.utils.clip_grad_norm_(self.module.parameters(), self.config.grad_clip)
        values = {name: float(value.detach()) for name, value in terms.items()}
        if not math.isfinite(values["loss"]):
            raise TrainingDiverged(f"{self.part.name}, step {self.step}: {values}; lower its learning_rate")
        self.optimizer.step()
        self.schedule.step()
        if self.ema is not None:
            self.ema.step(self.module.parameters())
        self.step += 1
        self._count(values)
        return values["loss"]

    def autocast(self) -> torch.autocast:
        """bfloat16 where the recipe asks for it."""
        kind = self.work.device.type
        return torch.autocast(kind, dtype=torch.bfloat16, enabled=self.config.precision == "bf16")

    def _count(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.counted += 1

    def log_line(self) -> dict[str, float]:
        """Means since the last line."""
        means = {name: total / self.counted for name, total in self.sums.items()}
        rate = float(self.schedule.get_last_lr()[0])
        line = {"step": self.step, "lr": rate, "seconds": self.seconds, **means}
        self.history.append(line)
        self.sums, self.counted = {}, 0
        return line

    @contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """The module in evaluation mode with its averaged weights, for the time of the context."""
        parameters = list(self.module.parameters())
        if self.ema is not None:
            self.ema.store(parameters)
            self.ema.copy_to(parameters)
        try:
            yield self.module.eval()
        finally:
            if self.ema is not None:
                self.ema.restore(parameters)
            self.module.train()

    # --- state

    def save(self, path: Path) -> None:
        """Write a checkpoint whole or not at all; its content loads with ``weights_only``."""
        state = {
            "settings": self.part.settings(), "step": self.step, "seconds": self.seconds, "history": self.history,
            "sums": self.sums, "counted": self.counted, "begun_from": self.begun_from,
            "made_with": self.made_with, "module": self.module.state_dict(), "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(), "ema": None if self.ema is None else self.ema.state_dict(),
        }  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".partial")
        torch.save(state, temporary)
        os.replace(temporary, path)

    def resume(self, path: Path) -> None:
        """Take over a checkpoint.

        Raises:
            UsageError: it was made with other settings. DataError: it is damaged.
        """
        state = read_checkpoint(path)
        hint = mixing_hint(self.work.out)
        require_same(state["settings"], self.part.settings(), f"the checkpoint {path} is", hint)
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
            self.ema.to(self.work.device)
        for name in ("step", "seconds", "history", "sums", "counted", "begun_from"):
            setattr(self, name, state[name])


def mixing_hint(out: Path) -> str:
    """What to do when settings differ."""
    return (
        "--set what differs back to go on with it; for other settings (a longer course too, since the learning rate "
        f"follows it) give another --out, where --init {out} begins from the weights that are here"
    )


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU.

    Raises:
        DataError: it is damaged.
    """
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(f"{path} is no whole checkpoint ({error}); move it away to train this part anew") from error


def train(part: Part, stop: StopRequest) -> Outcome:
    """Train a part to its end, going on from its checkpoint, and export its weights.

    Raises:
        Stopped: a signal came; the checkpoint is written.
    """
    part.prepare()
    training = opened(part)
    _loop(training, stop)
    return exported(training)


def opened(part: Part) -> Training:
    """A part's training where its checkpoint left it."""
    training, path = Training(part), part.work.part(part.name) / CHECKPOINT
    if path.exists():
        training.resume(path)
    return training


def exported(training: Training) -> Outcome:
    """Write the averaged weights into the run's stack."""
    with training.averaged() as module, torch.no_grad():
        facts = training.part.export(module, training.work.trained)
    return Outcome(
        training.step, training.config.steps, training.history, training.begun_from, training.made_with, facts
    )


def _loop(training: Training, stop: StopRequest) -> None:
    part, run, job = training.part, training.work.stack.run, training.work.job
    path = training.work.part(part.name) / CHECKPOINT
    parameters = sum(p.numel() for p in training.module.parameters())
    begin = f"going on from step {training.step}" if training.step else "from the start"
    job.say(f"{part.name}: {parameters / 1e6:.2f} M parameters, {training.config.steps} steps, {begin}")
    training.module.train()
    saved, began, before = time.monotonic(), time.monotonic(), training.seconds
    with job.progress(training.config.steps, part.name, "step") as bar:
        bar.update(training.step)
        while training.step < training.config.steps and not stop.asked:
            bar.set_postfix_str(f"loss {training.one_step():.4f}", refresh=False)
            bar.update(1)
            training.seconds = before + time.monotonic() - began
            if training.step % run.log_every == 0 or training.step == training.config.steps:
                job.say(_line(part.name, training.log_line(), training.step))
            if time.monotonic() - saved > 60 * run.checkpoint_minutes:
                training.save(path)
                saved = time.monotonic()
    training.save(path)
    if training.step < training.config.steps:
        raise Stopped(f"{part.name} stopped at step {training.step}; run the same command again to go on")


def _line(name: str, line: dict[str, float], step: int) -> str:
    terms = ", ".join(f"{k} {v:.4f}" for k, v in line.items() if k not in ("step", "lr", "seconds"))
    return f"{name}: step {step}, {terms}, lr {line['lr']:.1e}, {line['seconds'] / max(step, 1):.2f} s a step"


def _adamw(module: nn.Module, config: Any) -> torch.optim.AdamW:
    """Weight decay acts on matrices and kernels; biases, norms and scales have none."""
    trained = [p for p in module.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas)
