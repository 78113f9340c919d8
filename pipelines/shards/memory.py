"""Batches that memory does not hold are halved, and the worker remembers."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence

from e4t_core.schema import Sample
from pipelines.stages.base import Result

_LOG = logging.getLogger(__name__)
_SIGNS = ("out of memory", "failed to allocate memory", "can't allocate memory", "bfcarena")
"""How torch's and onnxruntime's allocators put it when they raise a plain RuntimeError."""


class Halving:
    """Calls like the stage it wraps. A batch at which memory runs out is tried again in halves, and from then on none
    larger is tried. Sizes that fit stay as they are, so their bytes do too.

    Attributes:
        most: samples that are called at once; None while the recipe's batches fit.
    """

    def __init__(self, name: str, call: Callable[[Sequence[Sample]], Sequence[Result]]) -> None:
        self._name, self._call = name, call
        self.most: int | None = None

    def __call__(self, batch: Sequence[Sample]) -> list[Result]:
        """One result per sample.

        Raises:
            MemoryError: a sample does not fit alone; the cause says whose memory it was.
        """
        results: list[Result] = []
        while len(results) < len(batch):
            part = batch[len(results) :][: self.most]
            fault = self._add(part, results)
            if fault is None:
                continue
            if len(part) == 1:
                raise MemoryError(
                    "one sample alone does not fit into memory; use smaller images, a lower precision or another "
                    f"device: {fault}"
                ) from fault
            # the fault, and the tensors that its frames hold, are gone before the next try
            del fault
            self.most = (len(part) + 1) // 2
            _LOG.warning("stage '%s': memory ran out at a batch of %d; trying %d", self._name, len(part), self.most)
            _give_back()
        return results

    def _add(self, part: Sequence[Sample], results: list[Result]) -> Exception | None:
        """Extend ``results`` by the part's; what was raised, if memory ran out."""
        try:
            results += self._call(part)
        except Exception as error:
            if not out_of_memory(error):
                raise
            return error.with_traceback(None)
        return None


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
