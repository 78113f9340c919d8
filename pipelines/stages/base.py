"""The stage contract: declared inputs, outputs, version and resources; models load in the worker, not here.

Stages never import Ray. The executor (``pipelines/executor.py``) runs them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from e4t_core.backbones.config import Models
from e4t_core.config import Config
from e4t_core.schema import Sample


class Resources(Config):
    """What one worker of a stage takes. Comes from the recipe, never from looking at the machine.

    Attributes:
        actors: most workers at once.
        cpus: logical CPUs Ray reserves per worker (0 lets workers share a small machine).
        gpus: GPUs per worker.
        threads: ``torch.set_num_threads`` in the worker; fixed, because it can change the last bits of a result.
        batch_size: samples per call.
        device: torch device string the model is put on.
    """

    actors: int = 1
    cpus: float = 0.0
    gpus: float = 0.0
    threads: int = 1
    batch_size: int = 32
    device: str = "cpu"


class StageConfig(Config):
    """Fields every stage has; a stage adds its own."""

    resources: Resources = Resources()


@dataclass(frozen=True)
class Bad:
    """Why one sample is quarantined.

    Attributes:
        reason: a short fixed word (``truncated``, ``bomb``, ``no_mask``...), counted in reports.
        message: the sentence for a person, with the value and what would be right.
        facts: finite figures of the attempt, kept in the commit.
    """

    reason: str
    message: str
    facts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """The members written for one sample, and how good they are.

    Attributes:
        members: as a stage without figures returns them.
        facts: finite figures, kept in the commit and not in the tar: what a clock says may be among them, and a tar's
            bytes must be the same whenever they are made.
    """

    members: Mapping[str, bytes]
    facts: Mapping[str, float]


Result = Mapping[str, bytes] | Measured | Bad
"""The members written for one sample, with figures or without, or why there are none."""


class Stage(ABC):
    """One column.

    Class attributes:
        name: file name under ``pipelines/stages/``.
        version: raised when the code's output changes; part of the fingerprint.
        reads: upstream stages whose members each sample carries (``ingest`` has none: it gets the source).
        writes: member name patterns it may write (``image.*``, ``clip_cls.npy``), for schema checks and packing.
        command: the job that makes it: ``preprocess``, or ``targets`` for what takes an optimization per sample.
        agrees: fields of its section that a method which reads it has too; a recipe must give both one value.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    reads: ClassVar[tuple[str, ...]]
    writes: ClassVar[tuple[str, ...]]
    Config: ClassVar[type[StageConfig]]
    command: ClassVar[str] = "preprocess"
    agrees: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Any, models: Models) -> None:
        self.config = config
        self.models = models

    def settings(self) -> dict[str, Any]:
        """Everything in the configuration that changes the output's bytes (resources do not, but batch size may)."""
        return {k: v for k, v in self.config.dump().items() if k != "resources"}

    def weights(self) -> str:
        """Fingerprint of the model weights it uses (``""`` for none). Called on the driver, loads no model."""
        return ""

    def setup(self) -> None:
        """Load models, once per worker."""

    def prepare(self, batch: Sequence[Sample]) -> None:
        """Work that needs no model, such as decoding, done in another thread while the batch before is computed.

        What it finds goes into the samples under names that begin with two underscores. ``__call__`` must do without it
        as well: a stage that killed its process is run without, and so is a batch at which this raised.
        """

    @abstractmethod
    def __call__(self, batch: Sequence[Sample]) -> Sequence[Result]:
        """Process samples; one result per sample, in order: the written members, or why there are none.

        ``ingest`` samples carry ``"__item__"`` (a SourceItem) and ``"__source__"`` (the Source); others carry the
        members of every stage in ``reads``. An exception fails the shard (a bug or a lost service), so expected
        faults of the data must be returned as :class:`Bad`.
        """
