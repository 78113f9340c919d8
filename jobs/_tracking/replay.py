"""Sending what waited while no server answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from e4t_core.errors import UsageError
from jobs._tracking.events import Event
from jobs._tracking.link import Link
from jobs._tracking.places import TrackingError, told
from jobs._tracking.spool import Spool

_MASKED = ":***@"


def replay(places: Sequence[str], uri: str | None, say: Callable[[str], None]) -> int:
    """Send all that waits at or below ``places``, with MLflow's own patience; returns the number of events.

    Events go in the order of happening, each is deleted when it has arrived, and each may be sent again: an
    interrupted replay is simply repeated.

    Args:
        uri: tracking URI; None for the one that each folder's events were meant for.

    Raises:
        TrackingError: the store does not serve, or refuses an event; it and all later ones still wait.
        UsageError: an URI was kept without its password.
    """
    sent = 0
    for spool in [spool for place in places for spool in Spool.below(place)]:
        keys = spool.waiting()
        first = spool.read(keys[0]) if keys else None
        if first is not None:
            say(f"{len(keys)} records wait in {spool.uri}")
            sent += _send(spool, uri or _meant(first, spool), sent)
    return sent


def _send(spool: Spool, uri: str, before: int) -> int:
    waited = len(spool.waiting())
    try:
        with told(uri):
            return Link(uri, spool).drain()
    except TrackingError as error:
        left = spool.waiting()
        raise TrackingError(
            f"{len(left)} records still wait in {spool.uri}; the first, {left[0].rpartition('/')[2]}, did not get "
            f"through: {error}",
            sent=before + waited - len(left),
            waiting=len(left),
        ) from error


def _meant(event: Event, spool: Spool) -> str:
    if _MASKED in event.uri:
        raise UsageError(
            f"{spool.uri} is for {event.uri}, whose password is not kept; give the whole URI as MLFLOW_TRACKING_URI or "
            "--set mlflow.uri=URI"
        )
    return event.uri
