"""Batches that memory does not hold are halved, and the worker remembers."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from e4t_core.schema import Sample
from pipelines.stages.base import Result, Stage

_LOG = logging.getLogger(__name__)
_SIGNS = ("out of memory", "failed to allocate memory", "can't allocate memory", "bfcarena")
"""How torch's and onnxruntime's allocators put it when they raise a plain RuntimeError."""


class Halving:
    """Prepares and calls like the stage it wraps. A batch at which memory runs out is tried again in halves, and from
    then on none larger is tried. Sizes that fit stay as they are, so their bytes do too.

    Attributes:
        most: samples that are called at once; None while the recipe's batches fit.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.most: int | None = None

    def prepare(self, batch: Sequence[Sample]) -> None:
        """See :meth:`Stage.prepare`."""
        self._stage.prepare(batch)

    def __call__(self, batch: Sequence[Sample]) -> Sequence[Result]:
        """What the stage answers; answers to parts are put together.

        Raises:
            MemoryError: a sample does not fit alone; the cause says whose memory it was.
        """
        if len(batch) <= (self.most or len(batch)):
            try:
                return self._stage(batch)
            except Exception as error:
                if not out_of_memory(error):
                    raise
                self._shrink(len(batch), error)
            # the error is gone here, and with it the tensors that its frames held
            _give_back()
        size = self.most or 1
        return [result for at in range(0, len(batch), size) for result in self(batch[at : at + size])]

    def _shrink(self, tried: int, error: Exception) -> None:
        if tried == 1:
            raise MemoryError(
                "one sample alone does not fit into memory; use smaller images, a lower precision or another "
                f"device: {error}"
            ) from error
        self.most = (tried + 1) // 2
        _LOG.warning("stage '%s': memory ran out at a batch of %d; trying %d", self._stage.name, tried, self.most)


def out_of_memory(error: BaseException | None) -> bool:
    """Whether an allocator gave up: Python's, torch's on any device, or onnxruntime's."""
    if error is None:
        return False
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    told = isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)
    return told or out_of_memory(error.__cause__)


def _give_back() -> None:
    """What torch's caches hold of the failed try."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
