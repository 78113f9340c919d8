"""Runs a stage in a process of its own, so that a sample that kills it costs that sample and no more."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from types import TracebackType
from typing import ClassVar

from e4t_core.schema import Sample
from pipelines.shards.memory import Halving
from pipelines.stages.base import Bad, Result, Stage


class IsolatedStage:
    """Calls like the stage it wraps. Batches stay as they are, so their bytes do too; only a batch at which the
    process dies is halved until the samples that kill it are found. Use as a context manager."""

    most: ClassVar[int | None] = None
    """The child keeps to itself how many samples memory holds."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._child: tuple[multiprocessing.process.BaseProcess, Connection] | None = None

    def __enter__(self) -> IsolatedStage:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._child is not None:
            process, pipe = self._child
            pipe.close()  # ends the child's loop
            process.join(10)
            process.kill()
            process.join()

    def prepare(self, batch: Sequence[Sample]) -> None:
        """Nothing: what may kill a process is left to the child."""

    def __call__(self, batch: Sequence[Sample]) -> list[Result]:
        """One result per sample; ``Bad('crash')`` for those that kill the process.

        Raises:
            RuntimeError: the stage raised; the message holds its traceback.
        """
        results = self._try(batch)
        if isinstance(results, list):
            return results
        if len(batch) == 1:
            return [Bad("crash", f"stage '{self._stage.name}' dies on this sample ({results}); it was tried alone")]
        half = len(batch) // 2
        return self(batch[:half]) + self(batch[half:])

    def _try(self, batch: Sequence[Sample]) -> list[Result] | str:
        """Results, or how the process died."""
        process, pipe = self._child = self._child or _start(self._stage)
        try:
            pipe.send(list(batch))
            results, problem = pipe.recv()
        except (EOFError, ConnectionError):
            process.join()
            pipe.close()
            self._child = None
            return _death(process.exitcode)
        if problem:
            raise RuntimeError(problem)
        return list(results)


def _start(stage: Stage) -> tuple[multiprocessing.process.BaseProcess, Connection]:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(stage, theirs), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _serve(stage: Stage, pipe: Connection) -> None:
    """The child: answer batches until the parent closes the pipe."""
    prepared, call = False, Halving(stage)
    while True:
        try:
            batch = pipe.recv()
        except EOFError:
            return
        try:
            if not prepared:
                stage.setup()
                prepared = True
            limit_threads(stage)
            answer = (list(call(batch)), "")
        except Exception:  # noqa: BLE001 - told to the parent, which raises it
            answer = ([], traceback.format_exc())
        pipe.send(answer)


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


def limit_threads(stage: Stage) -> None:
    """Give torch the recipe's number of threads, if the stage has loaded torch."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(stage.config.resources.threads)
