"""Drawing the pictures once, in parallel and resumable: one array of pixels and one table of labels."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from e4t_core.config import validate
from jobs._job import Job
from jobs._tiny_stack.config import PicturesConfig, StackConfig
from jobs._tiny_stack.settings import require_same
from jobs._tiny_stack.words import phrase_of
from pipelines.english import with_article
from pipelines.sources.tiny_world import VERSION, TinyWorld, TinyWorldConfig, render

PIXELS, LABELS, ABOUT = "pixels.npy", "labels.parquet", "pictures.json"
_CHUNK = 256
"""Pictures that are drawn, or drawn again after an interruption, together."""


@dataclass(frozen=True)
class Spot:
    """The coordinates of one picture; ``kind`` is its identity's class."""

    domain: str
    kind: str
    identity: int
    pose: int
    style: str
    scene: str
    split: str
    seed: int
    size: int


def spots(domain: str, config: PicturesConfig, identities: int, images: int, split: str) -> Iterator[Spot]:
    """Pictures of a domain in the order of the source, which leads each identity through all styles and scenes.

    Raises:
        UsageError: no such domain.
    """
    fields = {
        "name": "tiny_world",
        "domain": domain,
        "split": split,
        "identities": identities,
        "images_per_identity": images,
        "seed": config.seed,
        "image_size": config.size,
    }
    source = validate(TinyWorldConfig, fields, f"stack.pictures.domains.{domain}")
    for item in TinyWorld(source).items():
        identity, pose = map(int, item.id.split("/")[-2:])
        style, scene = item.labels["style"], item.labels["scene"]
        kind = item.labels["class"]
        yield Spot(domain, kind, identity, pose, style, scene, split, config.seed, config.size)


def train_spots(config: PicturesConfig) -> Iterator[Spot]:
    """Every training picture of the recipe, domain by domain."""
    for name, domain in config.domains.items():
        if domain is not None:
            yield from spots(name, config, domain.identities, domain.images_per_identity, "train")


def draw(spot: Spot) -> tuple[np.ndarray, dict[str, Any]]:
    """((H, W, 3) uint8, label) of one picture."""
    picture = render(
        spot.domain, spot.identity, spot.style, spot.scene, spot.pose, split=spot.split, seed=spot.seed, size=spot.size
    )
    return picture.rgb, {
        "domain": spot.domain,
        "identity": spot.identity,
        "style": spot.style,
        "scene": spot.scene,
        "split": spot.split,
        "caption": picture.caption,
        "phrase": phrase_of(picture.caption, picture.template),
        "class": with_article(spot.kind),
        "attributes": list(picture.attributes),
    }


def about(config: PicturesConfig) -> dict[str, Any]:
    """What decides the pictures; shares and class words do not."""
    domains = {
        name: {"identities": d.identities, "images_per_identity": d.images_per_identity}
        for name, d in config.domains.items()
        if d is not None
    }
    return {"world_version": VERSION, "seed": config.seed, "size": config.size, "domains": domains}


def draw_pool(job: Job, stack: StackConfig, folder: Path) -> None:
    """Make ``folder`` hold every training picture of the recipe; does only what is missing.

    Raises:
        UsageError: it holds pictures of other settings, or a domain is unknown.
    """
    if _finished(folder, stack.pictures):
        return
    plan = list(train_spots(stack.pictures))
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / ABOUT, json.dumps({"settings": about(stack.pictures), "pictures": len(plan), "finished": False}))
    _allocate(folder / PIXELS, len(plan), stack.pictures.size)
    chunks = [range(i, min(i + _CHUNK, len(plan))) for i in range(0, len(plan), _CHUNK)]
    missing = [c for c in chunks if not _labels(folder, c).exists()]
    job.say(f"pictures: {len(plan)} in {len(chunks)} chunks, {len(chunks) - len(missing)} are there -> {folder}")
    with job.progress(len(plan), "pictures", "picture") as bar:
        bar.update(len(plan) - sum(map(len, missing)))
        for done in _work(folder, [(c, plan[c.start : c.stop]) for c in missing], stack.run.processes):
            bar.update(done)
    _join(folder, chunks)
    _write(folder / ABOUT, json.dumps({"settings": about(stack.pictures), "pictures": len(plan), "finished": True}))
    shutil.rmtree(folder / "chunks")


def _finished(folder: Path, config: PicturesConfig) -> bool:
    if not (folder / ABOUT).exists():
        return False
    found = json.loads((folder / ABOUT).read_text())
    require_same(found["settings"], about(config), f"the pictures in {folder} are", "Use another --out.")
    return bool(found["finished"])


def _allocate(path: Path, count: int, size: int) -> None:
    if not path.exists():
        temporary = path.with_suffix(".partial")
        np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=(count, size, size, 3)).flush()
        os.replace(temporary, path)


def _work(folder: Path, tasks: Sequence[tuple[range, list[Spot]]], processes: int) -> Iterator[int]:
    """Sizes of the chunks as they are done."""
    if processes == 1:
        yield from (_draw_chunk(folder, *task) for task in tasks)
        return
    # spawned: a fork would copy torch's threads
    with _pool(processes) as pool:
        for future in as_completed([pool.submit(_draw_chunk, folder, *task) for task in tasks]):
            yield future.result()


def _pool(processes: int) -> Executor:
    return ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))


def _draw_chunk(folder: Path, chunk: range, plan: Sequence[Spot]) -> int:
    """Pixels first, then the labels, which say that the chunk is there."""
    drawn = [draw(spot) for spot in plan]
    pixels = np.load(folder / PIXELS, mmap_mode="r+")
    pixels[chunk.start : chunk.stop] = np.stack([rgb for rgb, _ in drawn])
    pixels.flush()
    target = _labels(folder, chunk)
    target.parent.mkdir(exist_ok=True)
    temporary = target.with_suffix(".partial")
    pq.write_table(pa.Table.from_pylist([label for _, label in drawn]), temporary)
    os.replace(temporary, target)
    return len(chunk)


def _labels(folder: Path, chunk: range) -> Path:
    return folder / "chunks" / f"{chunk.start:08d}.parquet"


def _join(folder: Path, chunks: Sequence[range]) -> None:
    table = pa.concat_tables([pq.read_table(_labels(folder, c)) for c in chunks])
    temporary = folder / "labels.partial"
    pq.write_table(table, temporary, compression="zstd")
    os.replace(temporary, folder / LABELS)


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".partial")
    temporary.write_text(text + "\n")
    os.replace(temporary, path)
