"""Turn a source into committed shards."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from jobs._job import Job
from jobs._preprocess import ensure_shards, plan_shards

HELP = "turn images into committed shards (masks, captions, CLIP features, latents)"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of this job."""
    parser.add_argument("--retry-quarantined", action="store_true", help="try quarantined samples once more")


def run(job: Job) -> dict[str, Any]:
    """Do what is missing; a second run has nothing to do."""
    if job.dry_run:
        return _plan(job)
    store = job.store
    with job.ray():
        return {**asdict(ensure_shards(job, store, job.args.retry_quarantined)), "out": store.uri}


def _plan(job: Job) -> dict[str, Any]:
    rows = plan_shards(job, job.store)
    job.say(f"{'stage':<10} {'shards':>8} {'to do':>8} {'cached':>8} {'est. MB':>10} {'est. s':>10}")
    for row in rows:
        seconds = "unknown" if row["seconds"] is None else f"{row['seconds']:.0f}"
        size = "unknown" if row["bytes"] is None else f"{row['bytes'] / 1e6:.1f}"
        total = row["to_do"] + row["cached"]
        job.say(f"{row['stage']:<10} {total:>8} {row['to_do']:>8} {row['cached']:>8} {size:>10} {seconds:>10}")
    return {"dry_run": True, "out": job.out, "stages": rows}
