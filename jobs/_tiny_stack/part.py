"""The contract of a part, and the randomness of one step."""

from __future__ import annotations

import contextlib
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from e4t_core.training import noise_seed
from jobs._tiny_stack.config import TrainingConfig
from jobs._tiny_stack.files import StackFolder
from jobs._tiny_stack.work import Work


class Step:
    """Everything random in one step, a function of (seed, part, step): resuming needs no generator's state.

    Attributes:
        number: 0-based.
        share: of all steps that are done.
        rng: decides what is in the batch. ``noise``: decides torch's draws, on the CPU on every device.
    """

    def __init__(self, seed: int, part: str, number: int, steps: int) -> None:
        digest = hashlib.sha256(f"{part}/{seed}".encode()).digest()
        bits = noise_seed(int.from_bytes(digest[:8], "big"), number, 0, 0)
        self.number, self.share = number, number / steps
        self.rng = np.random.Generator(np.random.PCG64(bits))
        self.noise = torch.Generator().manual_seed(bits)

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal noise in the shape and on the device of ``like``."""
        return torch.randn(like.shape, generator=self.noise).to(like.device)


class Part(ABC):
    """One network, or several that are trained together."""

    name: ClassVar[str]

    def __init__(self, work: Work) -> None:
        self.work = work

    @property
    @abstractmethod
    def config(self) -> TrainingConfig:
        """The part's section."""

    def prepare(self) -> None:
        """Make what training reads beyond the pictures."""

    def inputs(self) -> dict[str, str]:
        """Fingerprints of what it learns from."""
        return {"pictures": self.work.pool.fingerprint}

    def settings(self) -> dict[str, Any]:
        """Everything that decides the result: what a checkpoint must have been made with."""
        stack = self.work.stack
        described = {"seed": self.work.seed, "base": stack.base, "clip_base": stack.clip_base}
        return {
            **described,
            "stack": {"pictures": stack.pictures.dump(), self.name: self.config.dump()},
            "inputs": self.inputs(),
        }

    @abstractmethod
    def build(self) -> nn.Module:
        """The module with initial weights, from torch's global stream (which the caller seeds)."""

    @abstractmethod
    def warm_start(self, module: nn.Module, stack: StackFolder) -> None:
        """Take over the weights of an earlier stack."""

    @abstractmethod
    def losses(self, module: nn.Module, step: Step) -> dict[str, Tensor]:
        """Terms to show; ``loss`` is what is minimised."""

    @abstractmethod
    def export(self, module: nn.Module, stack: StackFolder) -> dict[str, Any]:
        """Write the weights as the libraries load them; returns facts for the record."""

    def drawn(self) -> nn.Module:
        """:meth:`build` from the recipe's seed, with whatever torch drew before untouched."""
        with private_stream(self.work.seed):
            return self.build()


@contextlib.contextmanager
def private_stream(seed: int) -> Iterator[None]:
    """Torch's global CPU stream seeded inside, put back outside."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
