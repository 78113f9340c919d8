"""What `ablate` would run, for tests of recipes with ablations."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from typing import Any

import pytest

from jobs import _ray
from jobs.__main__ import parser


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[argparse.Namespace]:
    """Nothing runs; the commands that would are noted."""
    commands: list[argparse.Namespace] = []

    def start(command: str, words: Sequence[str]) -> dict[str, Any]:
        commands.append(parser(command).parse_args(list(words)))
        commands[-1].command = command
        return {"scores": {command: 1.0}, "report": "page"}

    monkeypatch.setattr("jobs.ablate.start", start)
    monkeypatch.setattr(_ray, "session", lambda config: contextlib.nullcontext())
    return commands
