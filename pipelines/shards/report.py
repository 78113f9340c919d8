"""What a preprocessing run tells: progress while it works, a summary at its end."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes:
        done, total: units of one shard of one stage.
        samples: samples made so far, all stages together.
        text: per stage the shards done, samples a second and time spent waiting, for a progress bar.
    """

    done: int
    total: int
    samples: int
    text: str


@dataclass(frozen=True)
class StageReport:
    """What one stage did in this run.

    Attributes:
        shards_done, shards_cached: made now, there already.
        samples: samples made now.
        seconds: wall-clock seconds from its first worker's start, models loaded, to its last shard's end.
        samples_per_s: ``samples / seconds``.
        waiting: share of its workers' time on shards that went into waiting for inputs, from 0 to 1.
    """

    shards_done: int = 0
    shards_cached: int = 0
    samples: int = 0
    seconds: float = 0.0
    samples_per_s: float = 0.0
    waiting: float = 0.0


@dataclass(frozen=True)
class Summary:
    """The result of ``preprocess``.

    Attributes:
        version: the manifest's number.
        planned: samples the source lists; ``samples`` of them are whole, ``quarantined`` are not.
        shards_done, shards_cached: units of one shard of one stage, made now or there already.
        bytes: of all tars of the version.
        seconds: this run took.
        reasons: why samples are quarantined -> how many.
        stages: name -> what it did.
    """

    version: int
    samples: int
    quarantined: int
    planned: int
    shards_done: int
    shards_cached: int
    bytes: int
    seconds: float
    reasons: dict[str, int]
    stages: dict[str, StageReport] = field(default_factory=dict)
