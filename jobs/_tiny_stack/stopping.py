"""Stopping between two steps: the first signal asks, a second one ends the process as usual."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether the run was asked to end."""

    asked = False


@contextmanager
def stop_on_signal(say: Callable[[str], None]) -> Iterator[StopRequest]:
    """SIGINT and SIGTERM set :attr:`StopRequest.asked`; outside the main thread signals stay as they are."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def ask(number: int, frame: FrameType | None) -> None:
        request.asked = True
        say("stopping after this step; the checkpoint is written before the end")
        signal.signal(number, before[signal.Signals(number)])

    for number in _SIGNALS:
        signal.signal(number, ask)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
