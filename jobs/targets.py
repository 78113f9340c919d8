"""Make the columns that take an optimization for each sample: what a hypernetwork learns to predict."""

from __future__ import annotations

import argparse
from typing import Any

from e4t_core.errors import UsageError
from jobs._job import Job
from jobs._preprocess import TARGETS, bring_up_to_date, makes_columns

HELP = "tune the weights that a hypernetwork learns to predict, one optimization a sample; does only what is missing"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of this job."""
    parser.add_argument("--retry-quarantined", action="store_true", help="try quarantined samples once more")


def run(job: Job) -> dict[str, Any]:
    """Do what is missing, the columns that ``preprocess`` makes included.

    Raises:
        UsageError: the recipe has no such column.
    """
    recipe = job.recipe
    if makes_columns(recipe) != TARGETS:
        raise UsageError(
            f"recipe '{recipe.name}' has no column that is tuned: add stages.lidb; it has {', '.join(recipe.stages)}"
        )
    return bring_up_to_date(job, TARGETS)
