"""Ingest images/s through Ray Data and the commit protocol, against a bare PIL loop on the same cores."""

from __future__ import annotations

import io
import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from PIL import Image, ImageOps

from e4t_core.storage import Store
from jobs import _ray
from jobs._recipe import load
from jobs._sections import RayConfig
from pipelines import executor
from pipelines.stages._quality import perceptual_hash
from tests.benchmarks.data import photo_folder
from tests.benchmarks.measure import Figure, peak_memory, ratio, seconds

SIZE, SHARD = 256, 125


def bare_loop(paths: list[Path]) -> int:
    """What anyone would write for the same: open, orient, crop, resize, hash, encode."""
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
        perceptual_hash(image)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=95, subsampling=0)
        written += len(buffer.getvalue())
    return written


def _bare(paths: list[Path], cores: int) -> float:
    if cores == 1:
        return seconds(lambda: bare_loop(paths))
    # spawned: a fork of a process in which Ray runs leaves its connections unusable
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(time.sleep, [3.0] * cores))
        list(pool.map(bare_loop, [paths[:1]] * cores))  # processes are up, and have imported this, before the clock
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
    count = 400 if quick else 4500  # long enough that a worker's later start is not what is measured
    with tempfile.TemporaryDirectory() as temp, _ray.session(RayConfig(address="local", num_cpus=2)):
        folder = photo_folder(Path(temp) / "photos", count)
        _ours(photo_folder(Path(temp) / "few", 64), Path(temp) / "warm", 1, 64)
        one, two = (
            _compared(folder, Path(temp) / f"out{cores}", cores, 1 if quick else 2)
            for cores in (1, min(2, os.cpu_count() or 1))
        )
        return [*one, *two, ratio("ingest: ours on 2 cores / one bare process", two[1].value / one[0].value, ">= 1.6")]


def _compared(folder: Path, out: Path, cores: int, rounds: int) -> list[Figure]:
    """Both in turns, so that a busy moment of the machine hits both."""
    paths = sorted(folder.iterdir())
    count = len(paths) * rounds
    bare, stage, whole, peaks = 0.0, 0.0, 0.0, []
    for turn in range(rounds):
        bare += _bare(paths, cores)
        with peak_memory() as peak:
            summary = _ours(folder, out / str(turn), cores, SHARD)
        stage += summary.stages["ingest"].seconds  # processes are up before this clock starts, as in the bare loop
        whole += summary.seconds
        peaks += peak
    start = f"plan, starting of workers and manifest too, for {len(paths)} images"
    return [
        Figure(f"ingest, bare PIL loop, {cores} process(es)", count / bare, "images/s"),
        Figure(
            f"ingest, committed shards, {cores} worker(s)",
            count / stage,
            "images/s",
            note=f"peak {max(peaks):.0f} MB with Ray",
        ),
        Figure(f"ingest, all of preprocess, {cores} worker(s)", count / whole, "images/s", note=start),
        ratio(f"ingest: ours / bare, {cores} core(s)", bare / stage, ">= 0.85"),
        ratio(f"ingest: all of preprocess / bare, {cores} core(s)", bare / whole, ">= 0.85"),
    ]
