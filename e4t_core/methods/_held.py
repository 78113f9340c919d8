"""Weights that a loss puts on the backbone, held there until its backward pass is over."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class Held:
    """Of one module. A backward pass computes checkpointed layers again, and must find them as they were; it comes
    after the loss was returned, so what put the weights on cannot take them off."""

    def __init__(self) -> None:
        self._scope: contextlib.ExitStack | None = None

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Surrounds an optimizer step, in which :meth:`fresh` may be called; at its end everything is off."""
        try:
            with contextlib.ExitStack() as self._scope:
                yield
        finally:
            self._scope = None

    def fresh(self) -> contextlib.ExitStack:
        """For the weights of a micro-batch; those of the one before are taken off.

        Raises:
            RuntimeError: outside a step.
        """
        if self._scope is None:
            raise RuntimeError("weights are put on the backbone only inside Method.step()")
        self._scope.close()
        return self._scope
