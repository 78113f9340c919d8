"""``shards duplicates``: which images look alike, and which of them could go."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from e4t_core.errors import DataError
from e4t_core.storage import Store
from jobs._job import Job
from pipelines.shards.duplicates import near_duplicates, to_drop


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of this action."""
    parser.add_argument(
        "--distance", type=int, default=4, metavar="BITS", help="for duplicates: of 64 bits, most that may differ (4)"
    )
    parser.add_argument("--write", metavar="FILE", help="for duplicates: ids that could go, for shards forget --ids")


def run_duplicates(job: Job, store: Store) -> dict[str, Any]:
    """Tell the groups; with ``--write``, list all but the first of each."""
    report = near_duplicates(store, job.args.version, job.args.distance)
    for first, *others in report["groups"]:
        job.say(f"{first}  looks like  {', '.join(others)}")
    job.say(
        f"{store.uri} version {report['version']}: {report['samples']} samples, {len(report['groups'])} groups that "
        f"look alike; {report['would_go']} would go if one of each stays, the one with most pixels"
    )
    if job.args.write and not job.dry_run:
        _write(job.args.write, to_drop(report))
        job.say(f"{report['would_go']} ids are in {job.args.write}: `shards forget STORE --ids FILE` takes them")
    return report


def _write(uri: str, ids: Sequence[str]) -> None:
    for sample_id in ids:
        if len(sample_id.splitlines()) != 1:
            raise DataError(f"the id {sample_id!r} does not fit on one line of {uri}; rename its file in the source")
    folder, _, name = uri.rpartition("/")
    store = Store(folder or ("/" if uri.startswith("/") else "."))
    store.put(name, "".join(f"{sample_id}\n" for sample_id in ids).encode())
