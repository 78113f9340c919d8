"""One page: what was scored, what it looks like, what it cost, where it comes from.

It holds everything, pictures too, while these are few; of more the small pictures that the gallery pages through lie in
``report_files/`` beside it, and the page says so. Figures, plots, tables and the best and worst are always inside.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from typing import Any

from e4t_core.errors import UsageError
from jobs._job import Job
from jobs._lineage import command_line
from jobs._report.grid import Grid
from jobs._report.inputs import Entry, Shards, load_entries
from jobs._report.page import render
from jobs._report.pictures import FOLDER, Pictures, collect
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
    for flag, kind, default, metavar, text in (
        ("--identities", int, 12, "N", "best and worst that the gallery begins with (default 12)"),
        ("--pictured", int, None, "N", "most identities with pictures, from both ends of the ranking (default: all)"),
        ("--embed-mb", float, 12, "MB", f"pictures go into the page up to this size, else to {FOLDER}/ (default 12)"),
    ):
        parser.add_argument(flag, type=kind, default=default, metavar=metavar, help=text)
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
    return {**summary, **synced, **_write(job, entries, shards)}


def _write(job: Job, entries: Sequence[Entry], shards: Shards) -> dict[str, Any]:
    """The page, what lies beside it, and their copies in MLflow."""
    most, grid = max(job.args.identities, 1), Grid.of(entries)
    pictures = _pictures(job, entries, grid, shards)
    command = command_line("report", job.args)
    page = render(entries, shards, grid, pictures, most, job.store.uri, command).encode()
    files = {PAGE: page, SHEET: sheet(entries, shards, most)}
    for name, data in files.items():
        job.store.put(name, data)
    told = f"{len(page) / 1e6:.1f} MB in {job.store.url(PAGE)}"
    if not pictures.inside:
        told += f", {pictures.size / 1e6:.0f} MB of pictures in {job.store.url(FOLDER)}: keep the two together"
    job.say(f"report: {told}")
    return {
        "sheet": job.store.url(SHEET),
        "bytes": len(page),
        "pictures": None if pictures.inside else job.store.url(FOLDER),
        "mlflow": _attach(job, entries, {**files, PLOT: trade_off(entries)}),
    }


def _pictures(job: Job, entries: Sequence[Entry], grid: Grid, shards: Shards) -> Pictures:
    """Of all identities that have any, or of as many from both ends of the ranking as were asked for."""
    kept = grid.pictured()
    most = max(job.args.pictured or len(kept), min(job.args.identities, len(kept)), 1)
    numbers = kept if most >= len(kept) else [*kept[: (most + 1) // 2], *kept[len(kept) - most // 2 :]]
    with job.progress(len(numbers), "pictures", "identity") as bar:
        return collect(entries, grid, shards, numbers, job.store, int(job.args.embed_mb * 1e6), bar.update)


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
