"""What every part gets: the recipe's section, the places and the pictures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from jobs._job import Job
from jobs._tiny_stack.config import StackConfig
from jobs._tiny_stack.files import StackFolder
from jobs._tiny_stack.pool import Pool


@dataclass
class Work:
    """One run's surroundings.

    Attributes:
        job: voice and bars.
        stack: the recipe's section.
        seed: the recipe's.
        out: the run's folder.
        init: weights to begin from, or None to begin from nothing.
    """

    job: Job
    stack: StackConfig
    seed: int
    out: Path
    init: StackFolder | None = None

    @property
    def pictures(self) -> Path:
        """Folder of the drawn pictures."""
        return self.out / "pictures"

    @cached_property
    def pool(self) -> Pool:
        """The drawn pictures."""
        return Pool(self.pictures, self.stack.pictures)

    @cached_property
    def trained(self) -> StackFolder:
        """The stack that this run makes."""
        return StackFolder(self.out / "stack")

    @property
    def device(self) -> torch.device:
        """Where parts are trained."""
        return torch.device(self.stack.run.device)

    def part(self, name: str) -> Path:
        """Folder of a part's checkpoint."""
        return self.out / "parts" / name
