"""The pre-training loop: plain PyTorch, one process. Whoever starts several gives it their all-reduce."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from e4t_core.backbones.base import Backbone
from e4t_core.errors import UserError
from e4t_core.methods.base import Method, ParameterGroup
from e4t_core.training.artifacts import fill, on_cpu
from e4t_core.training.config import TrainConfig
from e4t_core.training.sharded import AllReduce, Broadcast, moments_of, owners, share_out
from e4t_core.training.state import TrainState


class Batches(Protocol):
    """An endless stream of batches that knows its position."""

    def __iter__(self) -> Iterator[dict[str, Any]]: ...
    def __next__(self) -> dict[str, Any]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class TrainingDiverged(UserError):
    """The loss or the gradient is no longer finite."""


def train(
    method: Method,
    module: nn.Module,
    backbone: Backbone,
    batches: Batches,
    cfg: TrainConfig,
    *,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    all_reduce: AllReduce | None = None,
    broadcast: Broadcast | None = None,
    start: TrainState | None = None,
    on_log: Callable[[int, dict[str, float]], None] | None = None,
    on_checkpoint: Callable[[TrainState], None] | None = None,
) -> TrainState:
    """Train ``module`` for ``cfg.steps`` optimizer steps.

    Args:
        method: gives the loss.
        module: what is trained, on the backbone's device; changed in place.
        backbone: the frozen model.
        batches: this rank's batches. When resuming, their position is set from ``start``.
        cfg: the recipe section.
        seed: with step, micro-batch and rank it decides all noise, so resuming needs no generator state.
        rank, world_size: this process and how many there are.
        all_reduce: sums a tensor over ranks in place (``torch.distributed.all_reduce``); called once a step with the
            flattened gradient and the loss terms, which are then divided by ``world_size``.
        broadcast: gives all ranks one rank's tensor; ``cfg.shard_optimizer`` needs it.
        start: where to go on; None starts anew.
        on_log: receives (steps done, means over ranks and micro-batches of the loss terms, ``lr``, ``grad_norm``).
        on_checkpoint: receives the state every ``cfg.checkpoint_every`` steps and after the last.

    Returns:
        The last state.

    Raises:
        TrainingDiverged: names the step and the terms that are not finite.
        CheckpointMismatch: ``start`` does not fit the module.
    """
    run = _Run(method, module, backbone, cfg, seed, rank, world_size, all_reduce, broadcast)
    if start is not None:
        run.resume(start)
        batches.load_state_dict(start.loader)
    module.train()
    if cfg.gradient_checkpointing:
        backbone.enable_gradient_checkpointing()
    state = None
    with method.pretraining(module, backbone):
        while run.done < cfg.steps:
            facts = run.step(batches)
            if on_log and (run.done in (1, cfg.steps) or run.done % cfg.log_every == 0):
                on_log(run.done, facts)
            if on_checkpoint and (run.done == cfg.steps or run.done % cfg.checkpoint_every == 0):
                state = run.state(batches)
                on_checkpoint(state)
    return state if state and state.step == run.done else run.state(batches)


def noise_seed(seed: int, step: int, micro: int, rank: int) -> int:
    """The generator seed of one micro-batch: the same on every machine, unrelated between neighbours."""
    digest = hashlib.sha256(f"e4t/{seed}/{step}/{micro}/{rank}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _in_order(module: nn.Module, groups: Sequence[ParameterGroup]) -> dict[str, nn.Parameter]:
    """What is trained, by name, in the groups' order: the optimizer's own."""
    names = {p: name for name, p in module.named_parameters() if p.requires_grad}
    parameters = [p for group in groups for p in group.parameters]
    if len(parameters) != len(names) or set(parameters) != set(names):
        missing = [name for p, name in names.items() if p not in set(parameters)]
        raise ValueError(f"parameter groups must hold every trained parameter once; {missing or 'some'} are not so")
    return {names[p]: p for p in parameters}


def _laid_out(tensor: Tensor, parameter: nn.Parameter) -> Tensor:
    """A copy in the parameter's own memory layout (channels last or not): a fused optimizer walks both side by side."""
    return torch.empty_like(parameter).copy_(tensor) if tensor.shape == parameter.shape else tensor.clone()


class _Run:
    """Optimizer, average and counters of one training run."""

    def __init__(
        self,
        method: Method,
        module: nn.Module,
        backbone: Backbone,
        cfg: TrainConfig,
        seed: int,
        rank: int,
        world_size: int,
        all_reduce: AllReduce | None,
        broadcast: Broadcast | None,
    ) -> None:
        self.method, self.module, self.backbone, self.cfg = method, module, backbone, cfg
        self.seed, self.rank, self.world_size, self.all_reduce = seed, rank, world_size, all_reduce
        groups = method.parameter_groups(module)
        self.named, self.rates = _in_order(module, groups), [group.rate for group in groups]
        self.broadcast = broadcast
        self.owner = self._owners()
        self.mine = {n: p for n, p in self.named.items() if self.owner.get(n, rank) == rank}
        self.optimizer = self._optimizer(groups)
        self.ema = {n: p.detach().clone() for n, p in self.mine.items()} if cfg.ema_decay is not None else None
        self.done = 0

    def _owners(self) -> dict[str, int]:
        """Which rank keeps which parameter's state; empty if each keeps all."""
        if not self.cfg.shard_optimizer or self.world_size == 1:
            return {}
        if self.broadcast is None:
            raise ValueError("train.shard_optimizer needs a broadcast between the ranks")
        return owners({name: p.numel() for name, p in self.named.items()}, self.world_size)

    def _optimizer(self, groups: Sequence[ParameterGroup]) -> torch.optim.AdamW:
        """Of what this rank keeps."""
        lr, mine = self.cfg.learning_rate(0, self.world_size), set(self.mine.values())
        return torch.optim.AdamW(
            [{"params": [p for p in group.parameters if p in mine], "lr": lr * group.rate} for group in groups],
            betas=self.cfg.betas,
            weight_decay=self.cfg.weight_decay,
            fused=True,
        )

    def step(self, batches: Batches) -> dict[str, float]:
        """One optimizer step; returns what is logged."""
        lr = self.cfg.learning_rate(self.done, self.world_size)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = lr * rate
        for parameter in self.named.values():
            parameter.grad = None
        terms = self._gradients(batches)
        norm = self._clip()
        facts = dict(zip([*terms, "grad_norm"], torch.stack([*terms.values(), norm]).tolist(), strict=True))
        self._check(facts, lr)
        self.optimizer.step()
        self._average()
        self._share_out(self.named)
        self.done += 1
        return {**facts, "lr": lr}

    def _gradients(self, batches: Batches) -> dict[str, Tensor]:
        """Accumulate and reduce gradients; returns the mean loss terms."""
        terms: dict[str, Tensor] = {}
        with self.method.step(self.module):
            for micro in range(self.cfg.grad_accum):
                for name, value in self._backward(next(batches), micro).items():
                    terms[name] = terms.get(name, torch.zeros_like(value)) + value / self.cfg.grad_accum
        return self._reduce(terms)

    def _backward(self, batch: Mapping[str, Any], micro: int) -> dict[str, Tensor]:
        device = self.backbone.device
        rng = torch.Generator(device).manual_seed(noise_seed(self.seed, self.done, micro, self.rank))
        there = {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in batch.items()}
        with self._autocast(device):
            losses = self.method.pretrain_loss(self.module, self.backbone, there, rng)
        (losses.total / self.cfg.grad_accum).backward()
        return {"loss": losses.total.detach().float(), **{n: t.detach().float() for n, t in losses.terms.items()}}

    def _autocast(self, device: torch.device) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(device.type, torch.bfloat16, enabled=self.cfg.precision == "bf16")

    def _reduce(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Means over ranks of gradients and terms: one call on one flat tensor."""
        if self.all_reduce is None:
            return terms
        parameters = list(self.named.values())
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([g.flatten() for g in grads] + [torch.stack(list(terms.values()))])
        self.all_reduce(flat)
        flat /= self.world_size
        sizes = [p.numel() for p in parameters]
        *pieces, means = flat.split([*sizes, len(terms)])
        for parameter, piece in zip(parameters, pieces, strict=True):
            grad = piece.view_as(parameter)
            parameter.grad = grad if parameter.is_contiguous() else _laid_out(grad, parameter)
        return dict(zip(terms, means.unbind(), strict=True))

    def _clip(self) -> Tensor:
        """The gradient's norm; gradients are scaled down to ``grad_clip`` if it is larger."""
        norm = nn.utils.get_total_norm(p.grad for p in self.named.values() if p.grad is not None)
        if self.cfg.grad_clip is not None:
            nn.utils.clip_grads_with_norm_(self.named.values(), self.cfg.grad_clip, norm)
        return norm

    def _check(self, facts: Mapping[str, float], lr: float) -> None:
        bad = {name: value for name, value in facts.items() if not math.isfinite(value)}
        if bad:
            shown = ", ".join(f"{name} = {value}" for name, value in bad.items())
            raise TrainingDiverged(
                f"step {self.done}: {shown}; lower train.base_lr ({self.cfg.base_lr:g}, {lr:g} after scaling), set "
                "train.grad_clip, or look for bad samples in this step's batch",
                step=self.done,
            )

    @torch.no_grad()
    def _average(self) -> None:
        if self.ema is not None and self.cfg.ema_decay is not None:
            for name, parameter in self.mine.items():
                self.ema[name].lerp_(parameter, 1 - self.cfg.ema_decay)

    def _share_out(self, tensors: Mapping[str, Tensor]) -> None:
        """Everybody gets what each owner has."""
        if self.owner and self.broadcast is not None:
            share_out(tensors, self.owner, self.broadcast, self.backbone.device)

    def state(self, batches: Batches) -> TrainState:
        """A copy of everything on the CPU, the same on every rank, which must all ask for it."""
        module = on_cpu(self.module.state_dict())
        return TrainState(self.done, module, self._moments(), self._averages(), batches.state_dict())

    def _moments(self) -> dict[str, Tensor]:
        """Each owner's in its turn, so that a device holds one kind of one owner's at a time."""
        kept = self.optimizer.state
        if not self.owner:
            return on_cpu({f"{n}.{key}": t for n, p in self.named.items() for key, t in kept.get(p, {}).items()})
        found = {name: moments_of(kept.get(p, {}), p) for name, p in self.named.items()}
        for key in sorted({key for state in found.values() for key in state}):
            self._share_out({name: state[key] for name, state in found.items()})
        return {f"{name}.{key}": t for name, state in found.items() for key, t in state.items()}

    def _averages(self) -> dict[str, Tensor] | None:
        if self.ema is None:
            return None
        found = on_cpu({name: self.ema.get(name, p) for name, p in self.named.items()})
        self._share_out(found)
        return found

    def resume(self, start: TrainState) -> None:
        """Take over ``start``."""
        fill(self.module, start.module, f"the state at step {start.step}")
        packed = self.optimizer.state_dict()
        packed["state"] = {}
        there: dict[str, dict[str, Tensor]] = {}
        for key, tensor in start.optimizer.items():
            name, _, moment = key.rpartition(".")
            there.setdefault(name, {})[moment] = tensor
        for index, (name, parameter) in enumerate(self.mine.items()):
            if name in there:
                packed["state"][index] = {k: _laid_out(t, parameter) for k, t in there[name].items()}
        self.optimizer.load_state_dict(packed)
        if self.ema is not None:
            for name, average in self.ema.items():
                average.copy_((start.ema or start.module)[name])
        self.done = start.step
