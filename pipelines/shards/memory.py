"""Batches that memory does not hold are halved, and the worker remembers."""

from __future__ import annotations

from collections.abc import Sequence

from e4t_core.memory import Fitting
from e4t_core.schema import Sample
from pipelines.stages.base import Result, Stage


class Halving:
    """Prepares and calls like the stage it wraps. A batch at which memory runs out is tried again in halves, and from
    then on none larger is tried. Sizes that fit stay as they are, so their bytes do too.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        advice = "one sample alone does not fit into memory; use smaller images, a lower precision or another device"
        self._fitting = Fitting(f"stage '{stage.name}'", advice)

    @property
    def most(self) -> int | None:
        """Samples that are called at once; None while the recipe's batches fit."""
        return self._fitting.most

    def prepare(self, batch: Sequence[Sample]) -> None:
        """See :meth:`Stage.prepare`."""
        self._stage.prepare(batch)

    def __call__(self, batch: Sequence[Sample]) -> Sequence[Result]:
        """What the stage answers; answers to parts are put together.

        Raises:
            MemoryError: a sample does not fit alone; the cause says whose memory it was.
        """
        parts = self._fitting(len(batch), lambda part: self._stage(batch[part]))
        if len(parts) == 1:
            return parts[0]  # as the stage gave it: a wrong answer is the caller's to tell
        return [result for part in parts for result in part]
