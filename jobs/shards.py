"""Look after a shard store."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from itertools import islice
from typing import Any

from e4t_core.errors import DataError, UsageError
from e4t_core.storage import Store
from e4t_core.texts import read_text
from jobs import _shard_duplicates as duplicates
from jobs import _shard_exports as exports
from jobs._job import Job
from pipelines.shards import layout, maintenance
from pipelines.shards import pack as packs
from pipelines.shards.changes import diff
from pipelines.shards.forget import forget, would_forget

HELP = "look into a shard store, check it, compare versions, forget samples, collect garbage, pack it, picture it"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of this job."""
    parser.add_argument("action", choices=sorted(_ACTIONS))
    parser.add_argument("store", metavar="STORE", help="URI that preprocess wrote to")
    parser.add_argument("versions", nargs="*", type=int, metavar="VERSION", help="for diff: two manifest versions")
    parser.add_argument("--grace-hours", type=float, default=24.0, help="for gc: keep anything younger (default 24)")
    parser.add_argument("--ids", metavar="FILE", help="for forget: sample ids, one a line")
    exports.arguments(parser)
    duplicates.arguments(parser)


def run(job: Job) -> dict[str, Any]:
    """Dispatch to the action.

    Raises:
        DataError: the store holds something else than shards.
    """
    store = Store(job.args.store)
    if found := _something_else(store):
        raise DataError(f"{store.uri} is no shard store: {found}; give the --out of `python -m jobs preprocess`")
    return _ACTIONS[job.args.action](job, store)


def _something_else(store: Store) -> str:
    """What is there instead of shards, in words; empty for a shard store, also one whose first run is under way."""
    if versions := layout.numbers(store, layout.MANIFESTS):
        kind = store.read_json(layout.numbered_key(layout.MANIFESTS, versions[-1])).get("kind")
        return f"its newest version holds {kind}" if kind else ""
    if next(store.list(layout.PLANS), None):
        return ""
    if store.exists(packs.HEAD):
        return f"it is a pack that was made of one (it has {packs.HEAD})"
    keys = [entry.key for entry in islice(store.list(), 4)]
    more = " and more" if len(keys) > 3 else ""
    return f"it has no manifest and no plan, only {', '.join(keys[:3])}{more}" if keys else "nothing is there"


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
    report = diff(store, *job.args.versions)
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
    _confirm(job, f"delete them from {store.uri}? [y/N] ", "nothing was deleted; give --yes to delete")
    return maintenance.gc(store, grace, dry_run=False)


def _forget(job: Job, store: Store) -> dict[str, Any]:
    if job.args.ids is None:
        raise UsageError("shards forget STORE --ids FILE: a text file with a sample id on each line")
    ids = [line for line in read_text(job.args.ids, "--ids").splitlines() if line]
    found = would_forget(store, ids)
    job.say(
        f"{found.samples} samples in {found.shards} shards would be forgotten; versions that hold them, not to be read "
        f"any more: {', '.join(map(str, found.withdrawn)) or 'none'}"
    )
    if job.dry_run:
        return asdict(found)
    _confirm(job, f"forget them in {store.uri}? [y/N] ", "nothing was changed; give --yes to forget")
    done = forget(store, ids)
    job.say(f"version {done.version} is without them; `python -m jobs shards gc {store.uri}` deletes their bytes")
    return asdict(done)


def _confirm(job: Job, question: str, refusal: str) -> None:
    asked = sys.stdin is not None and sys.stdin.isatty()
    if not job.args.yes and not (asked and input(question).strip().lower() == "y"):
        raise UsageError(f"{refusal} without being asked")


_ACTIONS = {
    "duplicates": duplicates.run_duplicates,
    "forget": _forget,
    "ls": _ls,
    "verify": _verify,
    "diff": _diff,
    "gc": _gc,
    "pack": exports.run_pack,
    "stats": exports.run_stats,
}
