"""What workers tell of their progress. Imports nothing heavy: the process that holds it starts in no time."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass
class Tally:
    """One stage of one run: shards made, shards found to be there, samples made, the first worker's start on them (its
    models loaded) and the last end."""

    made: int = 0
    cached: int = 0
    samples: int = 0
    began: float = 0.0
    ready: bool = False
    ended: float = 0.0


class Monitor:
    """Counts what workers finish, and tells them to stop once one has failed."""

    def __init__(self) -> None:
        self._stopped = False
        self._tallies: dict[str, Tally] = {}

    def begin(self, stage: str) -> bool:
        """Whether to start on another shard."""
        tally = self._tallies.setdefault(stage, Tally())
        tally.began = tally.began or time.time()
        return not self._stopped

    def ready(self, stage: str) -> None:
        """A worker has loaded its models: what the first of them took is not the stage's work."""
        tally = self._tallies.setdefault(stage, Tally())
        if not tally.ready:
            tally.began, tally.ready = time.time(), True

    def end(self, stage: str, samples: int, cached: bool) -> None:
        """One shard is committed."""
        tally = self._tallies.setdefault(stage, Tally())
        tally.made += not cached
        tally.cached += cached
        tally.samples += 0 if cached else samples
        tally.ended = time.time()

    def stop(self) -> None:
        """Let shards in flight finish and start no others."""
        self._stopped = True

    def tallies(self) -> dict[str, Tally]:
        """Counts by stage."""
        return self._tallies
