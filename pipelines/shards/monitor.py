"""What workers tell of their progress. Imports nothing heavy: the process that holds it starts in no time."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass
class Tally:
    """One stage of one run: shards made, shards found to be there, samples made, the first worker's start on them (its
    models loaded), the last end, and what the workers' seconds went into."""

    made: int = 0
    cached: int = 0
    samples: int = 0
    began: float = 0.0
    ready: bool = False
    ended: float = 0.0
    computing: float = 0.0
    waited: float = 0.0

    @property
    def rate(self) -> float:
        """Samples a second."""
        return self.samples / (self.ended - self.began) if self.ended > self.began else 0.0

    @property
    def waiting(self) -> float:
        """Share of the workers' time that went into waiting for inputs."""
        return self.waited / (self.computing + self.waited) if self.waited else 0.0


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

    def end(self, stage: str, samples: int | None = None, computing: float = 0.0, waited: float = 0.0) -> None:
        """One shard is committed; if it was so before, ``samples`` is None."""
        tally = self._tallies.setdefault(stage, Tally())
        tally.made += samples is not None
        tally.cached += samples is None
        tally.samples += samples or 0
        tally.computing += computing
        tally.waited += waited
        tally.ended = time.time()

    def stop(self) -> None:
        """Let shards in flight finish and start no others."""
        self._stopped = True

    def tallies(self) -> dict[str, Tally]:
        """Counts by stage."""
        return self._tallies
