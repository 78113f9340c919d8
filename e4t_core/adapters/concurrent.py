"""Many identities tuned at once on one frozen backbone, each exactly as it would be alone.

A batch carries samples of K identities, each computed with its own identity's weights. The loss is the mean over an
identity's samples and the sum over identities, so a gradient does not depend on who else is there; noise, clip,
optimizer, learning rate and stopping are each identity's own. Who is ready leaves, and the next one takes the place.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from e4t_core.adapters import streams
from e4t_core.adapters._denoising import Denoising
from e4t_core.adapters._samples import Pool, check_subject
from e4t_core.adapters._slots import AdamW, Rows, Slots, rows_of
from e4t_core.adapters.clock import now
from e4t_core.adapters.subjects import Prior, StopConfig, Subject, TuneConfig, Tuned
from e4t_core.adapters.tunable import Tunable, check_shapes
from e4t_core.backbones.base import Backbone
from e4t_core.memory import Fitting

__all__ = ["Prior", "StopConfig", "Subject", "TuneConfig", "Tuned", "tune", "tuning_fit"]

_LOOK_EVERY = 8
"""Steps between two looks for identities that diverged: a look waits for the device."""


def tuning_fit() -> Fitting:
    """How many identities are computed at once; see :func:`tune`."""
    advice = "one identity alone does not fit into memory; use fewer samples, a lower precision or another device"
    return Fitting("tuning", advice)


def tune(
    backbone: Backbone,
    tunable: Tunable,
    subjects: Iterable[Subject],
    config: TuneConfig,
    fitting: Fitting | None = None,
    pull_P: Tensor | None = None,
    prior: Prior | None = None,
) -> Iterator[Tuned]:
    """Tune every subject; results come as they are ready, in any order.

    What an identity becomes depends on its subject, ``tunable`` and ``config`` alone: not on who else is tuned, on
    ``config.identities`` or on what memory holds (to rounding: 1e-5 relative in float32).

    Args:
        backbone: frozen; untouched.
        tunable: which weights an identity has.
        subjects: read one at a time, when there is room for another.
        config: the recipe section.
        fitting: from :func:`tuning_fit`; keep it from call to call, and what memory did not hold is not tried again.
        pull_P: weights of ``sum_p pull_p (theta_p - start_p)^2``, which holds an identity's numbers near those that it
            starts from. It acts on what is minimized; the losses that are told are without it. None: nothing pulls.
        prior: every step takes as many samples of the class as of the identity, and minimizes ``prior.weight`` times
            their loss as well (Ruiz et al. 2022 eq. 2). The losses that are told are without it. None: nothing is
            preserved.

    Raises:
        MemoryError: one identity alone does not fit.
        DataError, CheckpointMismatch: a subject's tensors do not fit the backbone or the tunable.
    """
    waiting = iter(subjects)
    run = _Tuning(backbone, tunable, config, fitting or tuning_fit(), pull_P, prior)
    while True:
        fresh = list(islice(waiting, config.identities - len(run.seats)))
        if fresh:
            run.enter(fresh)
        if not run.seats:
            return
        run.step()
        yield from run.leave()


@dataclass
class _Seat:
    """What the host knows of one slot.

    Attributes:
        subject: who has it.
        text: (P, T) ids or (P, T, D) text states of the prompts.
        loss_before: on the probe.
        steps: taken.
        seconds: its share.
        best: the lowest loss that a look at the probe found, and ``stale``, the looks since.
    """

    subject: Subject
    text: Tensor
    loss_before: float = math.nan
    steps: int = 0
    seconds: float = 0.0
    best: float = math.inf
    stale: int = 0


class _Tuning:
    """The identities that are being tuned now. ``seats`` and the rows of ``slots`` are in one order."""

    def __init__(
        self,
        backbone: Backbone,
        tunable: Tunable,
        config: TuneConfig,
        fitting: Fitting,
        pull_P: Tensor | None,
        prior: Prior | None,
    ) -> None:
        self.backbone, self.tunable, self.config, self.fitting = backbone, tunable, config, fitting
        self.device = backbone.device
        self.pull_P = None if pull_P is None else pull_P.to(self.device)
        self.prior = prior
        self.denoising = Denoising(backbone, tunable, config.precision)
        self.class_text = None if prior is None else self.denoising.text(prior.ids_1T)
        self.optimizer = AdamW(config, self.device)
        self.seats: list[_Seat] = []
        self.slots: Slots
        self.constants: dict[str, Tensor]
        self.pool: Pool
        self.class_pool: Pool | None = None

    # --- coming and going

    def enter(self, subjects: Sequence[Subject]) -> None:
        """Give each of them a slot, and measure where it starts."""
        started = self._now()
        for subject in subjects:
            check_subject(subject, self.backbone)
        seeds_K = streams.as_seeds([s.seed for s in subjects], self.device)
        fresh = Slots.new(seeds_K, self._start(subjects).to(self.device), self.config.steps)
        constants = self._constants(subjects)
        before = len(self.seats)
        if before:
            fresh = self.slots + fresh
            constants = {name: torch.cat([t, constants[name]]) for name, t in self.constants.items()}
        self.slots, self.constants = fresh, constants
        self.seats += [_Seat(s, self.denoising.text(s.ids_PT)) for s in subjects]
        self._fill_pools()
        arrived = list(range(before, len(self.seats)))
        for row, loss in zip(arrived, self._probe(arrived, self.slots.flat_KP), strict=True):
            self.seats[row].loss_before = self.seats[row].best = loss
        share = (self._now() - started) / len(arrived)
        for row in arrived:
            self.seats[row].seconds = share

    def leave(self) -> list[Tuned]:
        """Those that are ready, out of their slots."""
        ready, known = self._ready()
        if not ready:
            return []
        done = self._results(ready, known)
        rest = [row for row in range(len(self.seats)) if row not in ready]
        self.seats = [self.seats[row] for row in rest]
        if rest:
            rows = rows_of(rest, self.device)
            self.slots = self.slots.of(rows)
            self.constants = {name: t[rows] for name, t in self.constants.items()}
            self._fill_pools()
        return done

    def _start(self, subjects: Sequence[Subject]) -> Tensor:
        """(K, P)."""
        drawn_KP = self.tunable.flat(self.tunable.initial([s.seed for s in subjects])).float()
        for row, subject in enumerate(subjects):
            if subject.start is not None:
                given = {name: t[None].float().cpu() for name, t in subject.start.items()}
                drawn_KP[row] = self.tunable.flat(given)[0]
        return drawn_KP

    def _constants(self, subjects: Sequence[Subject]) -> dict[str, Tensor]:
        for subject in subjects:
            given = {name: t[None] for name, t in subject.constants.items()}
            check_shapes(given, self.tunable.constant_shapes, f"the constants of subject '{subject.id}'")
        return {
            name: torch.stack([s.constants[name] for s in subjects]).to(self.device, torch.float32)
            for name in self.tunable.constant_shapes
        }

    def _fill_pools(self) -> None:
        """Somebody came or went."""
        self.pool = Pool.of(self.backbone, [s.subject for s in self.seats], [s.text for s in self.seats])
        if self.prior is not None and self.class_text is not None:
            self.class_pool = Pool.of_class(self.backbone, self.prior, self.class_text, len(self.seats))

    # --- a step

    def step(self) -> None:
        """One optimizer step of every identity."""
        started = self._now()

        def gradients(rows: slice) -> tuple[Tensor, Tensor]:
            with torch.enable_grad(), contextlib.ExitStack() as scope:
                leaf_KP = self.slots.flat_KP[rows].detach().requires_grad_()
                loss_K = self._losses(leaf_KP, rows, self.config.samples, scope, probe=False)
                total_K = loss_K + self._preserved(leaf_KP, rows)
                (grad_KP,) = torch.autograd.grad(total_K.sum(), leaf_KP)
            return loss_K.detach(), grad_KP

        parts = self.fitting(len(self.seats), gradients)
        loss_K, grad_KP = (torch.cat(list(tensors)) for tensors in zip(*parts, strict=True))
        if self.pull_P is not None:
            grad_KP = grad_KP + 2 * self.pull_P * (self.slots.flat_KP - self.slots.start_KP)
        self.optimizer.step(self.slots, loss_K, grad_KP)
        share = (self._now() - started) / len(self.seats)
        for seat in self.seats:
            seat.steps += 1
            seat.seconds += share

    def _losses(self, flat_KP: Tensor, rows: Rows, count: int, scope: contextlib.ExitStack, *, probe: bool) -> Tensor:
        """(K,) each identity's mean over ``count`` samples, with the weights ``flat_KP`` of the identities ``rows``,
        which are on until ``scope`` ends."""
        constants = {name: t[rows] for name, t in self.constants.items()}
        self.denoising.put_on(flat_KP, constants, scope)
        samples = self.pool.draw(self.slots, rows, count, probe=probe)
        return self.denoising.losses(flat_KP, constants, self.pool, rows, samples)

    def _preserved(self, flat_KP: Tensor, rows: Rows) -> Tensor | float:
        """(K,) the prior preservation term of each identity, whose weights are on; 0 without a prior."""
        if self.prior is None or self.class_pool is None:
            return 0.0
        constants = {name: t[rows] for name, t in self.constants.items()}
        samples = self.class_pool.draw(self.slots, rows, self.config.samples)
        return self.prior.weight * self.denoising.losses(flat_KP, constants, self.class_pool, rows, samples)

    @torch.no_grad()
    def _probe(self, rows: Sequence[int], flat_KP: Tensor) -> list[float]:
        """The loss of the identities ``rows`` with their ``flat_KP`` on samples that are always the same."""

        def measured(part: slice) -> Tensor:
            index = rows_of(rows[part], self.device)
            with contextlib.ExitStack() as scope:
                return self._losses(flat_KP[index], index, self.config.probe, scope, probe=True)

        found: list[float] = torch.cat(self.fitting(len(rows), measured)).tolist()
        return found

    def _now(self) -> float:
        """A budget waits for the device to know its time; nothing else does."""
        return now(self.device if self.config.seconds is not None else torch.device("cpu"))

    # --- who is ready

    def _ready(self) -> tuple[set[int], dict[int, float]]:
        """Rows that have taken their steps or their time, diverged or stopped; and the losses that are known of them
        already."""
        most = self.config.seconds or math.inf
        finished = {
            row for row, seat in enumerate(self.seats) if seat.steps >= self.config.steps or seat.seconds >= most
        }
        stop = self.config.stop
        looked = [
            row
            for row, seat in enumerate(self.seats)
            if stop is not None and row not in finished and seat.steps % stop.every == 0
        ]
        known: dict[int, float] = {}
        stopped = set()
        if looked and stop is not None:
            known = dict(zip(looked, self._probe(looked, self.slots.flat_KP), strict=True))
            stopped = {row for row in looked if _enough(self.seats[row], known[row], stop)}
        if finished or looked or any(seat.steps % _LOOK_EVERY == 0 for seat in self.seats):
            at = self.slots.diverged_K.tolist()
            finished |= {row for row, step in enumerate(at) if step >= 0}
        return finished | stopped, known

    def _results(self, ready: set[int], known: Mapping[int, float]) -> list[Tuned]:
        rows = sorted(ready)
        at = dict(zip(rows, self.slots.of(rows_of(rows, self.device)).diverged_K.tolist(), strict=True))
        after = self._after(rows, at, known)
        return [self._result(row, at[row], after[row]) for row in rows]

    def _after(self, rows: list[int], at: dict[int, int], known: Mapping[int, float]) -> dict[int, float]:
        """Losses on the probe with the weights that are given out; ``at`` learns who turns out to diverge here."""
        fresh = [row for row in rows if at[row] < 0 and row not in known]
        after = {row: known[row] for row in rows if at[row] < 0 and row in known}
        after |= dict(zip(fresh, self._probe(fresh, self.slots.flat_KP), strict=True)) if fresh else {}
        at |= {row: self.seats[row].steps for row, loss in after.items() if not math.isfinite(loss)}
        bad = [row for row in rows if at[row] >= 0]
        return after | (dict(zip(bad, self._probe(bad, self.slots.good_KP), strict=True)) if bad else {})

    def _result(self, row: int, diverged: int, loss_after: float) -> Tuned:
        seat, slots = self.seats[row], self.slots
        bad = diverged >= 0
        flat_1P = (slots.good_KP if bad else slots.flat_KP)[row : row + 1].cpu()
        taken = diverged if bad else seat.steps
        return Tuned(
            id=seat.subject.id,
            tensors={name: t[0].clone() for name, t in self.tunable.unflat(flat_1P).items()},
            steps=max(taken - 1, 0) if bad else taken,
            seconds=seat.seconds,
            loss_before=seat.loss_before,
            loss_after=loss_after,
            losses=slots.losses_KS[row, :taken].tolist(),
            diverged_at=diverged if bad else None,
        )


def _enough(seat: _Seat, loss: float, stop: StopConfig) -> bool:
    """Whether this look is the last: no gain in ``patience`` of them."""
    gained = loss < seat.best * (1 - stop.min_gain)
    seat.stale = 0 if gained else seat.stale + 1
    seat.best = min(seat.best, loss)
    return seat.stale >= stop.patience
