"""One self-contained page: what was scored, what it looks like, what it cost, where it comes from."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from typing import Any

from e4t_core.errors import UsageError
from jobs._job import Job
from jobs._lineage import command_line
from jobs._report.inputs import Entry, Shards, load_entries
from jobs._report.page import render
from jobs._report.sheet import sheet
from jobs._tracking import Tracker, TrackingError
from jobs._tracking.replay import replay
from jobs._tracking.spool import Spool
from jobs._trade_off import trade_off

HELP = "one self-contained page: trade-off plot, tables with intervals, pictures, cost, lineage"
PAGE, SHEET, PLOT = "report.html", "sheet.png", "trade_off.png"


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
    parser.add_argument(
        "--sync",
        action="append",
        metavar="URI",
        help="send to MLflow what waits in the --out of a job, or in any folder below, because no server answered; "
        "repeatable; alone, it makes no page",
    )


def run(job: Job) -> dict[str, Any]:
    """Write ``report.html`` to ``--out`` and attach it to the evaluations' MLflow runs; ``sheet.png`` beside it has
    the gallery as one picture. With ``--sync``, send what waits for MLflow first."""
    synced = _sync(job) if job.args.sync else {}
    if synced and not job.args.evaluation:
        return synced
    entries = _entries(job)
    first = entries[0].result
    shards = Shards.load(job.args.shards or first["shards"]["uri"], first["shards"]["version"])
    job.say(f"report: {', '.join(entry.label for entry in entries)} -> {job.store.url(PAGE)}")
    summary = {"out": job.out, "report": job.store.url(PAGE), "methods": [entry.label for entry in entries]}
    if job.dry_run:
        return {"dry_run": True, **summary}
    page = render(entries, shards, max(job.args.identities, 1), command_line("report", job.args)).encode()
    job.store.put(PAGE, page)
    pictures = sheet(entries, shards, max(job.args.identities, 1))
    job.store.put(SHEET, pictures)
    job.say(f"report: {len(page) / 1e6:.1f} MB in {job.store.url(PAGE)}")
    attached = _attach(job, entries, {PAGE: page, SHEET: pictures, PLOT: trade_off(entries)})
    return {**summary, **synced, "sheet": job.store.url(SHEET), "bytes": len(page), "mlflow": attached}


def _entries(job: Job) -> list[Entry]:
    uris = job.args.evaluation or []
    images = job.args.images or []
    if not uris:
        raise UsageError("--evaluation is required: what `python -m jobs evaluate --out` wrote")
    if images and len(images) != len(uris):
        raise UsageError(f"{len(uris)} --evaluation and {len(images)} --images: give one --images for each, or none")
    return load_entries(uris, images)


def _attach(job: Job, entries: Sequence[Entry], files: Mapping[str, bytes]) -> list[str]:
    """Ids of the benchmark runs that got the files. The page itself is written already, so a tracking store that is
    gone or was moved costs a line, not the report."""
    attached = []
    for logged in {_benchmark(entry): entry.result["mlflow"] for entry in entries}.values():
        try:
            run = Tracker.again(logged, job.recipe.mlflow, job.out)
        except TrackingError as error:
            job.say(f"report: not attached to MLflow run {logged['parent']}: {error}")
            continue
        for name, data in files.items():
            run.content(name, data)
        job.say(f"report: {run.link.standing(f'MLflow run {run.id}')}")
        attached += [run.id] if run.id else []
    return attached


def _benchmark(entry: Entry) -> tuple[str, str]:
    """Tracking store and run that the entry was logged to, as it was told then."""
    logged = entry.result["mlflow"]
    return logged["uri"], logged.get("benchmark", {}).get("key") or logged["parent"]


def _sync(job: Job) -> dict[str, Any]:
    """Send what waits; the recipe or the environment may know the store by a newer address."""
    uri = job.recipe.mlflow.uri or os.environ.get("MLFLOW_TRACKING_URI")
    if job.dry_run:
        waiting = {spool.uri: len(spool.waiting()) for place in job.args.sync for spool in Spool.below(place)}
        for place, count in waiting.items():
            job.say(f"report: {count} records wait in {place}")
        return {"dry_run": True, "waiting": sum(waiting.values())}
    sent = replay(job.args.sync, uri, lambda line: job.say(f"report: {line}"))
    job.say(f"report: {sent} records sent to MLflow")
    return {"sent": sent, "waiting": 0}
