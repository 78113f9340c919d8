"""What every job gets: the recipe, the places, a voice, progress bars and Ray."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

from tqdm import tqdm

from e4t_core.errors import UsageError, nearest
from e4t_core.storage import Store
from jobs import _ray
from jobs._progress import progress_bar
from jobs._recipe import Recipe, load


def chosen(only: str | None, known: Sequence[str], what: str) -> tuple[str, ...]:
    """The names of ``--only a,b`` in the order of ``known``; all of them without it.

    Raises:
        UsageError: no ``what`` has that name.
    """
    asked = [word.strip() for word in only.split(",")] if only else list(known)
    for word in asked:
        if word not in known:
            raise UsageError(f"--only {only}: no {what} is called '{word}'{nearest(word, known)}")
    return tuple(name for name in known if name in asked)


@dataclass
class Job:
    """One invocation of a command.

    Attributes:
        args: parsed command line (``recipe``, ``set``, ``out``, ``json``, ``dry_run``, ``yes``, and the job's own).
    """

    args: argparse.Namespace

    @cached_property
    def recipe(self) -> Recipe:
        """The resolved recipe."""
        return load(self.args.recipe, self.args.set)

    @property
    def dry_run(self) -> bool:
        """Print the plan and do nothing."""
        return bool(self.args.dry_run)

    @property
    def out(self) -> str:
        """The ``--out`` URI.

        Raises:
            UsageError: it was not given.
        """
        if not self.args.out:
            raise UsageError("--out is required: a local folder, s3://bucket/prefix or another fsspec URI")
        return str(self.args.out)

    @cached_property
    def store(self) -> Store:
        """The store at :attr:`out`."""
        return Store(self.out)

    def required(self, flag: str, hint: str) -> str:
        """The value of ``--flag``.

        Raises:
            UsageError: it was not given; ``hint`` says how to make one.
        """
        value = getattr(self.args, flag.replace("-", "_"))
        if not value:
            raise UsageError(f"--{flag} is required: {hint}")
        return str(value)

    def say(self, text: str) -> None:
        """One short log line: what, where, how many."""
        tqdm.write(text, file=sys.stderr)

    def progress(self, total: int | None, what: str, unit: str = "it") -> tqdm:
        """A progress bar with rate and ETA on stderr; use as a context manager."""
        return progress_bar(total, what, unit)

    @contextmanager
    def ray(self) -> Iterator[None]:
        """A running Ray: the cluster this job is in, or a local one that ends with it."""
        with _ray.session(self.recipe.ray):
            yield
