"""Errors that a user can act on: each message names the thing, its value and what would be right.

The command line prints these without a traceback; anything else is a bug and shows one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, ClassVar


class UserError(Exception):
    """Something outside the program is wrong: a value, a file, a service."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, **facts: Any) -> None:
        """``facts`` are JSON values for a machine that reads the summary (counts, URIs)."""
        super().__init__(message)
        self.facts = facts


class UsageError(UserError):
    """The command or the recipe asks for something that does not exist or does not fit."""

    exit_code = 2


class StorageError(UserError):
    """A location refused a read or a write (permissions, missing bucket, full disk)."""


class DataError(UserError):
    """Stored data is not what its record says (hash, size, schema, duplicate ids, empty source)."""


class CheckpointMismatch(UserError):
    """Weights that belong to another recipe, method or size."""


class TooManyBad(UserError):
    """What was good is committed, but the quarantined share is over what the recipe allows."""

    exit_code = 3


def nearest(name: str, choices: Iterable[str]) -> str:
    """``"; did you mean 'x'? (choose from a, b)"`` for error messages about a misspelt name."""
    known = sorted(choices)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean '{close[0]}'?" if close else ";"
    return f"{hint} (choose from {', '.join(known)})" if known else ""
