"""Ingest images/s through Ray Data and the commit protocol, against a bare PIL loop on the same cores."""

from __future__ import annotations

import io
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from PIL import Image, ImageOps

from e4t_core.storage import Store
from jobs import _ray
from jobs._recipe import load
from jobs._sections import RayConfig
from pipelines import executor
from tests.benchmarks.data import photo_folder
from tests.benchmarks.measure import Figure, peak_memory, ratio, seconds

SIZE = 256


def bare_loop(paths: list[Path]) -> int:
    """What anyone would write: open, orient, crop, resize, encode."""
    written = 0
    for path in paths:
        with Image.open(path) as opened:
            opened.draft("RGB", (SIZE, SIZE))
            image = ImageOps.exif_transpose(opened).convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.resize(
            (SIZE, SIZE), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side), reducing_gap=3.0
        )
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=95)
        written += len(buffer.getvalue())
    return written


def _bare(paths: list[Path], cores: int) -> float:
    if cores == 1:
        return seconds(lambda: bare_loop(paths))
    with ProcessPoolExecutor(cores) as pool:
        list(pool.map(abs, range(cores)))  # processes are up before the clock starts
        return seconds(lambda: list(pool.map(bare_loop, [paths[i::cores] for i in range(cores)])))


def _ours(folder: Path, out: Path, cores: int, shard: int) -> executor.Summary:
    recipe = load(
        "sd15",
        [
            f"source.path={folder}",
            f"stages.ingest.size={SIZE}",
            "stages.ingest.min_size=1",
            f"stages.ingest.resources.actors={cores}",
        ],
    )
    stages = [s for s in recipe.build_stages() if s.name == "ingest"]
    summary = executor.preprocess(
        Store(out), recipe.build_source(), stages, samples_per_shard=shard, recipe=recipe.dump()
    )
    assert summary.quarantined == 0
    return summary


def run(quick: bool) -> list[Figure]:
    """Figures for one core and for two."""
    count = 400 if quick else 3000
    figures = []
    with tempfile.TemporaryDirectory() as temp, _ray.session(RayConfig(address="local", num_cpus=2)):
        folder = photo_folder(Path(temp) / "photos", count)
        paths = sorted(folder.iterdir())
        _ours(photo_folder(Path(temp) / "few", 64), Path(temp) / "warm", 1, 64)
        for cores in (1, min(2, os.cpu_count() or 1)):
            with peak_memory() as peak:
                summary = _ours(folder, Path(temp) / f"out{cores}", cores, 128)
            ours = summary.stages["ingest"].seconds  # processes are up before this clock starts, as in the bare loop
            bare = _bare(paths, cores)
            figures += [
                Figure(f"ingest, bare PIL loop, {cores} process(es)", count / bare, "images/s"),
                Figure(
                    f"ingest, committed shards, {cores} worker(s)",
                    count / ours,
                    "images/s",
                    note=f"peak {peak[0]:.0f} MB with Ray",
                ),
                Figure(
                    f"ingest, all of preprocess, {cores} worker(s)",
                    count / summary.seconds,
                    "images/s",
                    note=f"plan, starting of workers and manifest too, for {count} images",
                ),
                ratio(f"ingest: ours / bare, {cores} core(s)", bare / ours, ">= 0.85"),
            ]
    return figures
