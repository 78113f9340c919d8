"""Turn a source into committed shards."""

from __future__ import annotations

import argparse
from typing import Any

from jobs._job import Job
from jobs._preprocess import PREPROCESS, bring_up_to_date

HELP = "turn images into committed shards (masks, captions, CLIP features, latents)"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of this job."""
    parser.add_argument("--retry-quarantined", action="store_true", help="try quarantined samples once more")


def run(job: Job) -> dict[str, Any]:
    """Do what is missing; a second run has nothing to do."""
    return bring_up_to_date(job, PREPROCESS)
