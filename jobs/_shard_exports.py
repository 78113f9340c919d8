"""``shards pack`` and ``shards stats``: what a store gives to other tools and to people."""

from __future__ import annotations

import argparse
import json
import shlex
from typing import Any

from e4t_core.errors import UsageError
from e4t_core.storage import Store
from jobs import _shard_page as page
from jobs._job import Job
from jobs._lineage import shown
from jobs._shard_sheets import drawn, sheets
from pipelines.loader import ShardDataset
from pipelines.shards.manifest import load_manifest
from pipelines.shards.pack import HEAD, Packing, pack
from pipelines.shards.quality import sentence
from pipelines.shards.stats import measure

PAGE, NUMBERS = "stats.html", "stats.json"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the two."""
    parser.add_argument("--to", metavar="URI", help="for pack and stats: where the result goes")
    parser.add_argument("--version", type=int, metavar="N", help="a version of the store (default: the newest)")
    parser.add_argument("--columns", metavar="A,B", help="for pack: columns that go in (default: all)")
    parser.add_argument("--samples-per-shard", type=int, default=1000, metavar="N", help="for pack: most in a tar")
    parser.add_argument("--max-mb", type=float, default=1000.0, metavar="MB", help="for pack: largest tar")
    parser.add_argument("--sheets", type=int, default=16, metavar="N", help="for stats: most contact sheets")


def run_pack(job: Job, store: Store) -> dict[str, Any]:
    """Write the pack to ``--to``."""
    args = job.args
    if not args.to:
        raise UsageError("--to is required: an empty folder or s3://bucket/prefix that the tars go to")
    columns = [word.strip() for word in (args.columns or "").split(",") if word.strip()]
    packing = Packing.of(store, args.version, columns, args.samples_per_shard, args.max_mb)
    version, samples = packing.dataset.version, len(packing.dataset)
    job.say(f"pack: {samples} samples of version {version} ({', '.join(packing.columns)}) -> {args.to}")
    if job.dry_run:
        manifest = load_manifest(store, version)
        size = sum(ref.bytes for name in packing.columns for ref in manifest.refs(name).values())
        job.say(f"pack: about {size / 1e6:.1f} MB")
        return {"dry_run": True, "version": version, "samples": samples, "columns": packing.columns, "bytes": size}
    with job.progress(samples, "pack", "sample") as bar:
        done = pack(packing, Store(args.to), bar.update)
    job.say(f"pack: {len(done['tars'])} tars, {done['bytes'] / 1e6:.1f} MB; {done['kept']} of them were there")
    facts = {key: done[key] for key in ("version", "columns", "samples", "quarantined", "bytes", "made", "kept")}
    return {**facts, "tars": len(done["tars"]), "to": args.to, "head": Store(args.to).url(HEAD)}


def run_stats(job: Job, store: Store) -> dict[str, Any]:
    """Write the page, its numbers and its pictures to ``--to``; without it, only tell the numbers."""
    dataset = ShardDataset(store, job.args.version)
    chosen = drawn(dataset, max(job.args.sheets, 0))
    with job.progress(None, "stats", "shard") as bar:
        figures = {**measure(store, dataset.version, on_shard=bar.update), "uri": shown(store.uri)}
    _tell(job, figures)
    if not job.args.to or job.dry_run:
        return {**({"dry_run": True} if job.dry_run else {}), **figures}
    to, pictures = Store(job.args.to), []
    with job.progress(len(chosen), "stats", "sheet") as bar:
        for sheet in sheets(dataset, chosen):
            key = f"sheets/{sheet.shard:06d}.png"
            to.put(key, sheet.png())
            pictures.append(page.shown(sheet, key))
            bar.update()
    to.put(NUMBERS, (json.dumps(figures, indent=1) + "\n").encode())
    to.put(PAGE, page.render(figures, dataset, pictures, _command(job)).encode())
    job.say(f"stats: {to.url(PAGE)} with {len(pictures)} contact sheets")
    return {**figures, "page": to.url(PAGE), "numbers": to.url(NUMBERS), "sheets": len(pictures)}


def _tell(job: Job, figures: dict[str, Any]) -> None:
    job.say(f"{figures['uri']} version {figures['version']}: {figures['samples']} of {figures['planned']} are good")
    for name, column in figures["columns"].items():
        took = ", ".join(f"{seconds:.1f} s on {device}" for device, seconds in column["seconds"].items())
        job.say(f"{name:<10} {column['shards']:>6} shards {column['bytes'] / 1e6:>10.1f} MB  {took}")
        if column["quality"]:
            job.say(f"{name:<10} {sentence(column['quality'])}")
    for row in figures["quarantine"]:
        job.say(f"{row['count']} quarantined in {row['stage']}: {row['reason']}")


def _command(job: Job) -> str:
    args = job.args
    words = ["python", "-m", "jobs", "shards", args.action, args.store, "--to", args.to]
    words += ["--version", str(args.version)] if args.version is not None else []
    return shlex.join(shown(word) for word in [*words, "--sheets", str(args.sheets)])
