"""Weights drawn from a seed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def private_stream(seed: int) -> Iterator[None]:
    """Libraries that initialise weights read torch's global CPU stream: seed it inside, put it back outside."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the accelerators too
        yield
