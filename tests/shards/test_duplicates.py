"""Near-duplicates: no pair within the distance is missed, none beyond it is made up, and the best copy stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from e4t_core.errors import DataError, UsageError
from e4t_core.schema import Sample, encode_json
from e4t_core.storage import Store
from jobs.__main__ import main
from pipelines.shards import duplicates
from pipelines.shards.duplicates import MAX_DISTANCE, near_duplicates, to_drop
from pipelines.sources import RawSample
from pipelines.stages.base import Bad
from pipelines.stages.ingest import Ingest, IngestConfig
from tests.shards.fakes import FakeStage, Result, folder_source, make, write_texts
from tests.shards.support import build
from tests.stages.helpers import MODELS, MemorySource
from tests.support.corpus import encoded, noise

BASE = 0x0123456789ABCDEF


class Hashes(FakeStage):
    """Text of ``hash width height`` -> the meta that ``ingest`` would write."""

    name: ClassVar[str] = "ingest"
    reads: ClassVar[tuple[str, ...]] = ()
    writes: ClassVar[tuple[str, ...]] = ("meta.json",)

    def one(self, sample: Sample) -> Result:
        text, width, height = sample["__source__"].read(sample["__item__"]).image.decode().split()
        return {"meta.json": encode_json({"phash": text, "width": int(width), "height": int(height)})}


class Picky(FakeStage):
    """A later column that refuses pictures 999 wide."""

    name: ClassVar[str] = "picky"
    reads: ClassVar[tuple[str, ...]] = ("ingest",)
    writes: ClassVar[tuple[str, ...]] = ("picky.json",)

    def one(self, sample: Sample) -> Result:
        wide = json.loads(sample["meta.json"])["width"] == 999
        return Bad("wide", "999 is too wide") if wide else {"picky.json": b"{}"}


def filled(folder: Path, samples: dict[str, tuple[int, int, int]]) -> Store:
    """A store of these (hash, width, height), four to a shard."""
    texts = {f"{name}.txt": f"{value:016x} {width} {height}" for name, (value, width, height) in samples.items()}
    write_texts(folder / "src", texts)
    build(Store(folder / "store"), folder_source(folder / "src"), [make(Hashes), make(Picky)])
    return Store(folder / "store")


def flipped(value: int, *bits: int) -> int:
    for bit in bits:
        value ^= 1 << bit
    return value


# --- a store


def test_groups_name_the_copy_with_most_pixels_first(tmp_path: Path) -> None:
    store = filled(
        tmp_path,
        {
            "a": (BASE, 100, 100),
            "b": (flipped(BASE, 0, 63), 300, 200),
            "c": (flipped(BASE, 0, 63, 5), 200, 300),
            "d": (~BASE & (2**64 - 1), 500, 500),
            "e": (7, 10, 10),
            "f": (7, 10, 10),
            "g": (flipped(BASE, *range(10, 30)), 100, 100),
        },
    )
    report = near_duplicates(store)
    assert report == json.loads(json.dumps(report)), "it is what the command prints as JSON"
    assert report["groups"] == [["b.txt", "a.txt", "c.txt"], ["e.txt", "f.txt"]]
    assert (report["samples"], report["would_go"], report["version"], report["distance"]) == (7, 3, 1, 4)
    assert to_drop(report) == ["a.txt", "c.txt", "f.txt"]
    assert near_duplicates(store, distance=0)["groups"] == [["e.txt", "f.txt"]]
    assert near_duplicates(store, distance=1)["groups"] == [["b.txt", "c.txt"], ["e.txt", "f.txt"]]


def test_a_quarantined_copy_is_not_the_one_that_stays(tmp_path: Path) -> None:
    samples = {"a": (BASE, 100, 100), "b": (BASE, 999, 999), "c": (BASE, 200, 100)}
    report = near_duplicates(filled(tmp_path, samples))
    assert (report["groups"], report["samples"]) == ([["c.txt", "a.txt"]], 2)


def test_a_chain_of_pairs_is_one_group(tmp_path: Path) -> None:
    steps = [flipped(BASE, *range(4 * i)) for i in range(5)]
    store = filled(tmp_path, {f"s{i}": (value, 10, 10) for i, value in enumerate(steps)})
    assert near_duplicates(store)["groups"] == [[f"s{i}.txt" for i in range(5)]]
    assert near_duplicates(store, distance=3)["groups"] == []


def test_older_versions_can_be_asked(tmp_path: Path) -> None:
    store = filled(tmp_path, {"a": (BASE, 10, 10), "b": (BASE, 10, 10)})
    filled(tmp_path, {"c": (BASE, 10, 10)})
    assert near_duplicates(store)["groups"] == [["a.txt", "b.txt", "c.txt"]]
    assert near_duplicates(store, version=1)["groups"] == [["a.txt", "b.txt"]]


def test_a_shard_is_read_a_few_images_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(tmp_path, {f"s{i:02d}": (BASE, 10, 10) for i in range(11)})
    monkeypatch.setattr(duplicates, "_AT_ONCE", 3)
    asked: list[int] = []
    real = duplicates.ShardDataset.samples

    def counted(self: duplicates.ShardDataset, rows: list[int], columns: list[str]) -> list[Sample]:
        asked.append(len(rows))
        return real(self, rows, columns)

    monkeypatch.setattr(duplicates.ShardDataset, "samples", counted)
    assert near_duplicates(store)["would_go"] == 10
    assert max(asked) <= 3


def test_real_pictures_and_their_copies(tmp_path: Path) -> None:
    pictures = [noise(64, seed=i).resize((96, 96), Image.Resampling.BICUBIC) for i in range(3)]
    files = {f"p_{i}.png": RawSample(encoded(picture, "PNG")) for i, picture in enumerate(pictures)}
    files["copy_0.jpg"] = RawSample(encoded(pictures[0].resize((200, 200), Image.Resampling.BICUBIC), "JPEG"))
    files["copy_2.jpg"] = RawSample(encoded(pictures[2], "JPEG", quality=60))
    store = Store(tmp_path / "store")
    build(store, MemorySource(files), [Ingest(IngestConfig(size=64), MODELS)])
    assert near_duplicates(store)["groups"] == [["copy_0.jpg", "p_0.png"], ["copy_2.jpg", "p_2.png"]]


# --- the search


def by_force(hashes: NDArray[np.uint64], distance: int) -> set[frozenset[int]]:
    """Groups from all pairs."""
    near = np.bitwise_count(hashes[:, None] ^ hashes[None]) <= distance
    for _ in range(10):
        near = (near.astype(int) @ near.astype(int)) > 0
    return {frozenset(np.flatnonzero(row).tolist()) for row in near if row.sum() > 1}


@pytest.mark.parametrize("distance", [0, 1, 2, 3, 4, 5, 7, MAX_DISTANCE])
def test_no_pair_is_missed_and_none_is_made_up(distance: int) -> None:
    rng = np.random.default_rng(distance)
    hashes = rng.integers(0, 2**64, 150, dtype=np.uint64, endpoint=False)
    copies = []
    for value in hashes[:100].tolist():
        bits = rng.choice(64, rng.integers(max(0, distance - 1), distance + 3), replace=False)
        copies.append(flipped(value, *bits.tolist()))
    crowd = [flipped(BASE, *rng.choice(64, 5, replace=False).tolist()) for _ in range(60)]
    together = np.concatenate([hashes, np.array(copies + crowd, np.uint64)])
    found = {frozenset(rows.tolist()) for rows in duplicates._alike(together, distance)}
    assert found == by_force(together, distance)
    assert distance == 0 or len(found) > 10


def test_many_hashes_do_not_need_all_pairs() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**64, 20_000, dtype=np.uint64, endpoint=False)
    compared = sum(len(a) for mask in duplicates._masks(4) for a, _ in duplicates._pairs(np.sort(hashes) & mask))
    assert compared < len(hashes) ** 2 / 2 / 1000


# --- the command and what it refuses


def test_the_command_writes_what_forget_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = filled(tmp_path, {"a": (BASE, 10, 10), "b": (BASE, 20, 20), "c": (BASE, 10, 10), "d": (5, 1, 1)})
    ids = tmp_path / "ids.txt"
    assert main(["shards", "duplicates", store.uri, "--write", str(ids), "--dry-run"]) == 0
    assert not ids.exists()
    capsys.readouterr()
    assert main(["shards", "duplicates", store.uri, "--write", str(ids), "--json"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out.splitlines()[-1])["groups"] == [["b.txt", "a.txt", "c.txt"]]
    assert ids.read_text() == "a.txt\nc.txt\n"
    assert main(["shards", "forget", store.uri, "--ids", str(ids), "--yes"]) == 0
    assert near_duplicates(store)["groups"] == []


def test_the_command_takes_a_distance_and_tells_the_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = filled(tmp_path, {"a": (BASE, 10, 10), "b": (flipped(BASE, 1, 2), 20, 20)})
    assert main(["shards", "duplicates", store.uri]) == 0
    told = capsys.readouterr()
    assert "b.txt  looks like  a.txt" in told.out + told.err
    assert main(["shards", "duplicates", store.uri, "--distance", "1"]) == 0
    told = capsys.readouterr()
    assert "2 samples, 0 groups" in told.out + told.err


@pytest.mark.parametrize("distance", [-1, MAX_DISTANCE + 1])
def test_a_distance_that_says_nothing_is_refused(distance: int, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"distance {distance} does not fit: 0"):
        near_duplicates(filled(tmp_path, {"a": (BASE, 1, 1)}), distance=distance)


def test_a_column_without_hashes_says_how_to_make_them(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    source = MemorySource({"a_1.png": RawSample(encoded(noise(64), "PNG"))})
    build(store, source, [Ingest(IngestConfig(size=64, phash=False), MODELS)])
    with pytest.raises(DataError, match=r"'a_1\.png' in .* no perceptual hash; run preprocess with .*phash=true"):
        near_duplicates(store)
