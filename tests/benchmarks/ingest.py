"""Ingest images/s through Ray Data and the commit protocol, against loops without either on the same cores."""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import webdataset
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


def _picture(path: Path) -> tuple[bytes, str]:
    """What anyone would write for the same: open, orient, crop, resize, hash, encode."""
    with Image.open(path) as opened:
        opened.draft("RGB", (SIZE, SIZE))
        image = ImageOps.exif_transpose(opened).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.resize(
        (SIZE, SIZE), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side), reducing_gap=3.0
    )
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue(), perceptual_hash(image)


def bare_loop(paths: list[Path]) -> int:
    """The pictures alone; nothing is kept."""
    return sum(len(_picture(path)[0]) for path in paths)


def whole_by_hand(paths: list[Path], folder: Path) -> None:
    """All that ingest does, in one process: tars of pictures and their facts, hashed, and on the disk for certain."""
    folder.mkdir(parents=True)
    for start in range(0, len(paths), SHARD):
        with open(folder / f"{start}.tar", "wb") as file:
            tar = io.BytesIO()
            with webdataset.TarWriter(tar) as writer:
                for path in paths[start : start + SHARD]:
                    picture, phash = _picture(path)
                    facts = {"id": path.stem, "uri": str(path), "bytes": path.stat().st_size, "phash": phash}
                    writer.write({"__key__": path.stem, "image.jpg": picture, "meta.json": json.dumps(facts).encode()})
            file.write(tar.getvalue())
            os.fsync(file.fileno())
        digest = hashlib.sha256(tar.getvalue()).hexdigest()
        (folder / f"{start}.sha256").write_text(digest)


def _in_processes(loop: Callable[..., object], paths: list[Path], cores: int, *folder: Path) -> float:
    """Seconds of a loop over all paths, each process with its part of them; where it writes, in a folder of its own."""
    if cores == 1:
        return seconds(lambda: loop(paths, *folder))
    # spawned: a fork of a process in which Ray runs leaves its connections unusable
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(time.sleep, [3.0] * cores))
        list(pool.map(bare_loop, [paths[:1]] * cores))  # processes are up, and have imported this, before the clock
        parts = [[paths[i::cores] for i in range(cores)], *([one / str(i) for i in range(cores)] for one in folder)]
        return seconds(lambda: list(pool.map(loop, *parts)))


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
        (bare, hand), ours = (figure.value for figure in one[:2]), two[2].value
        return [
            *one,
            *two,
            ratio("ingest: ours on 2 cores / the bare loop in one process", ours / bare, ">= 1.6"),
            ratio("ingest: ours on 2 cores / all of it by hand in one process", ours / hand, ">= 1.6"),
        ]


def _compared(folder: Path, out: Path, cores: int, rounds: int) -> list[Figure]:
    """All in turns, so that a busy moment of the machine hits all."""
    paths = sorted(folder.iterdir())
    count = len(paths) * rounds
    bare, hand, stage, whole, peaks = 0.0, 0.0, 0.0, 0.0, []
    for turn in range(rounds):
        bare += _in_processes(bare_loop, paths, cores)
        hand += _in_processes(whole_by_hand, paths, cores, out / f"hand{turn}")
        with peak_memory() as peak:
            summary = _ours(folder, out / str(turn), cores, SHARD)
        stage += summary.stages["ingest"].seconds  # processes are up before this clock starts, as in the bare loop
        whole += summary.seconds
        peaks += peak
    start = f"plan, starting of workers and manifest too, for {len(paths)} images"
    return [
        Figure(f"ingest, bare PIL loop, {cores} process(es)", count / bare, "images/s"),
        Figure(f"ingest, all of it by hand, {cores} process(es)", count / hand, "images/s"),
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
