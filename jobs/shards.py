"""Look after a shard store."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from e4t_core.errors import DataError, UsageError
from e4t_core.storage import Store
from jobs._job import Job
from pipelines.shards import maintenance

HELP = "ls, verify, diff or gc a shard store"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of this job."""
    parser.add_argument("action", choices=sorted(_ACTIONS))
    parser.add_argument("store", metavar="STORE", help="URI that preprocess wrote to")
    parser.add_argument("versions", nargs="*", type=int, metavar="VERSION", help="for diff: two manifest versions")
    parser.add_argument("--grace-hours", type=float, default=24.0, help="for gc: keep anything younger (default 24)")


def run(job: Job) -> dict[str, Any]:
    """Dispatch to the action."""
    return _ACTIONS[job.args.action](job, Store(job.args.store))


def _ls(job: Job, store: Store) -> dict[str, Any]:
    summary = maintenance.ls(store)
    for key, value in summary.items():
        job.say(f"{key:<12} {value}")
    return summary


def _verify(job: Job, store: Store) -> dict[str, Any]:
    report = maintenance.verify(store)
    for problem in report["problems"]:
        job.say(problem)
    if report["problems"]:
        raise DataError(
            f"{len(report['problems'])} problems in {store.uri}; the first: {report['problems'][0]}", **report
        )
    job.say(f"{store.uri}: {report['objects']} objects, {report['bytes'] / 1e6:.1f} MB, every hash is right")
    return report


def _diff(job: Job, store: Store) -> dict[str, Any]:
    if len(job.args.versions) != 2:
        raise UsageError("shards diff STORE A B: give two manifest versions, e.g. `shards diff out/shards 1 2`")
    report = maintenance.diff(store, *job.args.versions)
    for line in report["text"]:
        job.say(line)
    return report


def _gc(job: Job, store: Store) -> dict[str, Any]:
    grace = job.args.grace_hours * 3600
    found = maintenance.gc(store, grace, dry_run=True)
    job.say(
        f"{found['objects']} unreferenced objects, {found['bytes'] / 1e6:.1f} MB, older than {job.args.grace_hours} h"
    )
    if job.dry_run or not found["objects"]:
        return found
    if not job.args.yes and not _confirmed(f"delete them from {store.uri}? [y/N] "):
        raise UsageError("nothing was deleted; give --yes to delete without being asked")
    return maintenance.gc(store, grace, dry_run=False)


def _confirmed(question: str) -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and input(question).strip().lower() == "y"


_ACTIONS = {"ls": _ls, "verify": _verify, "diff": _diff, "gc": _gc}
