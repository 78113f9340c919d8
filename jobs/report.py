"""One self-contained page: what was scored, what it looks like, what it cost, where it comes from."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from e4t_core.errors import UsageError
from jobs._job import Job
from jobs._lineage import command_line
from jobs._report.inputs import Entry, Shards, load_entries
from jobs._report.page import render
from jobs._report.sheet import sheet
from jobs._tracking import Tracker, TrackingError

HELP = "one self-contained page: trade-off plot, tables with intervals, pictures, cost, lineage"
PAGE, SHEET = "report.html", "sheet.png"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of this job."""
    parser.add_argument(
        "--evaluation", action="append", metavar="URI", help="what `evaluate` wrote; repeat it to compare methods"
    )
    parser.add_argument(
        "--images", action="append", metavar="URI", help="images of each --evaluation, if they are elsewhere now"
    )
    parser.add_argument("--shards", metavar="URI", help="the real images, if they are elsewhere now")
    parser.add_argument("--identities", type=int, default=12, metavar="N", help="most identities pictured (default 12)")


def run(job: Job) -> dict[str, Any]:
    """Write ``report.html`` to ``--out`` and attach it to the evaluations' MLflow runs; ``sheet.png`` beside it has
    the gallery as one picture."""
    entries = _entries(job)
    first = entries[0].result
    shards = Shards.load(job.args.shards or first["shards"]["uri"], first["shards"]["version"])
    job.say(f"report: {', '.join(entry.label for entry in entries)} -> {job.store.url(PAGE)}")
    summary = {"out": job.out, "report": job.store.url(PAGE), "methods": [entry.label for entry in entries]}
    if job.dry_run:
        return {"dry_run": True, **summary}
    page = render(entries, shards, max(job.args.identities, 1), command_line("report", job.args)).encode()
    job.store.put(PAGE, page)
    job.store.put(SHEET, sheet(entries, shards, max(job.args.identities, 1)))
    job.say(f"report: {len(page) / 1e6:.1f} MB in {job.store.url(PAGE)}")
    return {**summary, "sheet": job.store.url(SHEET), "bytes": len(page), "mlflow": _attach(job, entries, page)}


def _entries(job: Job) -> list[Entry]:
    uris = job.args.evaluation or []
    images = job.args.images or []
    if not uris:
        raise UsageError("--evaluation is required: what `python -m jobs evaluate --out` wrote")
    if images and len(images) != len(uris):
        raise UsageError(f"{len(uris)} --evaluation and {len(images)} --images: give one --images for each, or none")
    return load_entries(uris, images)


def _attach(job: Job, entries: Sequence[Entry], page: bytes) -> list[str]:
    """Ids of the benchmark runs that got the page. The page itself is written already, so a tracking store that is
    gone or was moved costs a line, not the report."""
    attached = []
    with tempfile.TemporaryDirectory(prefix="e4t-") as folder:
        path = Path(folder) / PAGE
        path.write_bytes(page)
        for uri, run_id in {_where(job, entry): None for entry in entries}:
            try:
                Tracker.attach(uri, run_id, path)
                attached.append(run_id)
            except TrackingError as error:
                job.say(f"report: not attached to MLflow run {run_id}: {error}")
    return attached


def _where(job: Job, entry: Entry) -> tuple[str, str]:
    """Tracking URI and parent run; the recipe or the environment may know the store by a newer address."""
    named = job.recipe.mlflow.uri or os.environ.get("MLFLOW_TRACKING_URI")
    logged = entry.result["mlflow"]
    return named or logged["uri"], logged["parent"]
