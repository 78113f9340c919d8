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
    job.say(f"{'stage':<10} {'shards':>8} {'to do':>8} {'cached':>8} {'est. MB':>10} {'est. s':>10} {'est. GPU-h':>10}")
    for row in rows:
        shards = f"{row['to_do'] + row['cached']:>8} {row['to_do']:>8} {row['cached']:>8}"
        size = _amount(row["bytes"], 1e-6, 1)
        job.say(f"{row['stage']:<10} {shards} {size} {_amount(row['seconds'], 1, 0)} {_amount(row['gpu_hours'], 1, 2)}")
    for row in rows:
        reasons = [*row["changes"], *(f"{n} shards: {why}" for why, n in row["why"].items())]
        if reasons:
            job.say(f"{row['stage']}: {'; '.join(reasons)}")
    return {"dry_run": True, "out": job.out, "stages": rows}


def _amount(value: float | None, scale: float, digits: int) -> str:
    return f"{'unknown' if value is None else f'{value * scale:.{digits}f}':>10}"
