"""What a benchmark reports, and how time and memory are taken."""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    Attributes:
        name: what it is of.
        value, unit: the measurement; ratios have unit ``x``.
        bound: what the project holds itself to (``>= 0.85``), or empty for a plain reading.
        ok: whether the bound holds, None without one.
        note: how it was taken.
    """

    name: str
    value: float
    unit: str
    bound: str = ""
    ok: bool | None = None
    note: str = ""

    def line(self) -> str:
        """One line of the table."""
        verdict = "" if self.ok is None else ("  holds" if self.ok else "  MISSES")
        return f"  {self.name:<58} {self.value:>10.3g} {self.unit:<9} {self.bound:<8}{verdict}  {self.note}"


def ratio(name: str, value: float, bound: str, note: str = "") -> Figure:
    """A ratio held to ``bound``, written as ``>= 0.9`` or ``<= 1.1``."""
    sign, number = bound.split()
    ok = value >= float(number) if sign == ">=" else value <= float(number)
    return Figure(name, value, "x", bound, ok, note)


def seconds(call: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def interleaved(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each call, taken in turns so that a busy moment of the machine hits all alike."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            taken[name].append(seconds(call))
    return {name: sorted(times)[len(times) // 2] for name, times in taken.items()}


@contextmanager
def _looking(look: Callable[[], None], every: float) -> Iterator[None]:
    """Inside, ``look`` is called every so many seconds, in a thread."""
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(every):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def peak_memory(every: float = 0.5) -> Iterator[list[float]]:
    """Peak resident MB of this process and its descendants, filled in on leaving.

    Args:
        every: seconds between two looks. Each takes milliseconds of what is measured: look seldom where every core is
            wanted.
    """
    peak, me = [0.0], psutil.Process()

    def look() -> None:
        total = 0
        for process in [me, *me.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):  # ended between listing and reading: it holds nothing
                total += process.memory_info().rss
        peak[0] = max(peak[0], total / 1e6)

    with _looking(look, every):
        yield peak


@contextmanager
def share_beside(worker: str, begun: float = 15.0) -> Iterator[list[float]]:
    """Cores that the descendants of this process take beside those called ``worker``, filled in on leaving; NaN if
    these never worked long enough.

    Args:
        begun: counted from when they have had so many seconds of processor time: all have started by then.
    """
    share = [float("nan")]
    first: list[tuple[float, dict[int, float]]] = []

    def look() -> None:
        used, working = _used(worker)
        if first:
            since, before = first[0]
            share[0] = sum(used[pid] - before.get(pid, 0.0) for pid in used) / (time.perf_counter() - since)
        elif working >= begun:
            first.append((time.perf_counter(), used))

    with _looking(look, every=2):
        yield share


def _used(worker: str) -> tuple[dict[int, float], float]:
    """Processor seconds of every descendant, and of those called ``worker`` instead."""
    others, working = {}, 0.0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # ended between listing and reading
            spent = sum(process.cpu_times()[:2])
            if worker in " ".join(process.cmdline()):
                working += spent
            else:
                others[process.pid] = spent
    return others, working


def cpu_model() -> str:
    """Processor name and how many cores may be used."""
    with open("/proc/cpuinfo") as info:
        model = next(
            (line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), platform.processor()
        )
    return f"{model}, {len(os.sched_getaffinity(0))} cores"
