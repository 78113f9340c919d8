"""Progress with rate and ETA: on a terminal one line that changes, in a log a line now and then."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm

_EVERY = 0.5
_LOG_EVERY = 15.0
"""Seconds between two lines; the logs of ``ray job submit`` are kept, searched and read by people."""


def progress_bar(total: int | None, what: str, unit: str) -> tqdm:
    """On stderr; use as a context manager."""
    kind, every = (tqdm, _EVERY) if sys.stderr.isatty() else (_Lines, _LOG_EVERY)
    return kind(total=total, desc=what, unit=unit, file=sys.stderr, dynamic_ncols=True, mininterval=every)


class _Lines(tqdm):
    """Whole lines, at most one in ``mininterval`` seconds and one at the end, that nothing erases."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """One line, if it is time."""
        now = time.monotonic()
        if now - self.__dict__.setdefault("_shown", now) >= self.mininterval:
            self._shown = now
            self._line()

    def clear(self, nolock: bool = False) -> None:
        """A line that was written stays."""

    def close(self) -> None:
        """The last line."""
        if not self.disable:
            self.disable = True
            self._line()

    def _line(self) -> None:
        facts: dict[str, Any] = {**self.format_dict, "ncols": None}
        self.fp.write(f"{self.format_meter(**facts)}\n")
        self.fp.flush()
