"""What to do when memory runs out: recognise it, and go on with less at a time."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import TypeVar

_LOG = logging.getLogger(__name__)
_SIGNS = ("out of memory", "failed to allocate memory", "can't allocate memory", "bfcarena")
"""How torch's and onnxruntime's allocators put it when they raise a plain RuntimeError."""

T = TypeVar("T")


class Fitting:
    """Calls with as many items at once as memory holds. Where it runs out, halves are tried, and from then on none
    larger is. Counts that fit stay whole.

    Args:
        what: names the work in messages.
        advice: what is said, and what would help, when one item alone does not fit.

    Attributes:
        most: items at once; None while everything fits.
    """

    def __init__(self, what: str, advice: str) -> None:
        self.what, self.advice = what, advice
        self.most: int | None = None

    def __call__(self, count: int, call: Callable[[slice], T]) -> list[T]:
        """``call`` on all of ``range(count)``, in order, in as few slices as fit.

        Raises:
            MemoryError: an item does not fit alone; the cause says whose memory it was.
        """
        return self._run(0, count, call)

    def _run(self, start: int, stop: int, call: Callable[[slice], T]) -> list[T]:
        count = stop - start
        if count <= (self.most or count):
            try:
                return [call(slice(start, stop))]
            except Exception as error:
                if not out_of_memory(error):
                    raise
                self._shrink(count, error)
            # the error is gone here, and with it the tensors that its frames held
            _give_back()
        size = self.most or 1
        parts = [(at, min(at + size, stop)) for at in range(start, stop, size)]
        return [result for part in parts for result in self._run(*part, call)]

    def _shrink(self, tried: int, error: Exception) -> None:
        if tried == 1:
            raise MemoryError(f"{self.advice}: {error}") from error
        self.most = (tried + 1) // 2
        _LOG.warning("%s: memory ran out at a batch of %d; trying %d", self.what, tried, self.most)


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
