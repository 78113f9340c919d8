"""Reading: columns joined by key, an order that seeds fix, ranks that share it, and exact resume."""

from __future__ import annotations

import io
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from e4t_core.errors import CheckpointMismatch, DataError, UsageError
from e4t_core.schema import Sample, encode_array, encode_json
from e4t_core.storage import Store
from pipelines.collate import collate
from pipelines.loader import ShardDataset, ShardLoader
from pipelines.shards.manifest import load_manifest
from tests.shards.fakes import FakeStage, Result, chain, folder_source, make, people, write_texts
from tests.shards.support import build

COUNT, BAD = 23, "p90-bad.txt"
COLUMNS = ("ingest", "mask", "caption", "clip", "latent")


def _png(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(array).save(out, "PNG")
    return out.getvalue()


class Ingest(FakeStage):
    """An 8 x 8 image of one grey level, the number in the file."""

    name: ClassVar[str] = "ingest"
    reads: ClassVar[tuple[str, ...]] = ()
    writes: ClassVar[tuple[str, ...]] = ("image.png", "meta.json")

    def one(self, sample: Sample) -> Result:
        level = int(Path(sample["__item__"].uri).read_text().split()[-1])
        return {"image.png": _png(np.full((8, 8, 3), level, np.uint8)), "meta.json": encode_json({"level": level})}


class Column(FakeStage):
    """Reads ``ingest``."""

    reads: ClassVar[tuple[str, ...]] = ("ingest",)


class Mask(Column):
    name: ClassVar[str] = "mask"
    writes: ClassVar[tuple[str, ...]] = ("mask.png",)

    def one(self, sample: Sample) -> Result:
        return {"mask.png": _png(np.full((8, 8), 51, np.uint8))}


class Caption(Column):
    name: ClassVar[str] = "caption"
    writes: ClassVar[tuple[str, ...]] = ("caption.json",)

    def one(self, sample: Sample) -> Result:
        return {"caption.json": encode_json({"text": f"a {sample['__key__']}", "template": "a {}"})}


class Clip(Column):
    name: ClassVar[str] = "clip"
    writes: ClassVar[tuple[str, ...]] = ("clip_cls.npy", "clip_tokens.npy")

    def one(self, sample: Sample) -> Result:
        cls = encode_array(np.full((3, 4), len(sample["__key__"]), np.float16))
        return {"clip_cls.npy": cls, "clip_tokens.npy": encode_array(np.ones((5, 4), np.float16))}


class Latent(Column):
    name: ClassVar[str] = "latent"
    writes: ClassVar[tuple[str, ...]] = ("latent.npy",)

    def one(self, sample: Sample) -> Result:
        return {"latent.npy": encode_array(np.full((8, 2, 2), 0.5, np.float16))}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("loader")
    people(folder / "src", COUNT)
    stages = [make(cls) for cls in (Ingest, Mask, Caption, Clip, Latent)]
    build(Store(folder / "store"), folder_source(folder / "src"), stages, samples_per_shard=5)
    return Store(folder / "store")


@pytest.fixture
def dataset(store: Store) -> ShardDataset:
    return ShardDataset.open(store.uri)


def take(loader: ShardLoader, count: int) -> list[list[str]]:
    return [batch["ids"] for batch in islice(iter(loader), count)]


def order(dataset: ShardDataset, seed: int, samples: int) -> list[str]:
    """The global sequence, by a loader that cannot go wrong: one rank, one sample, no threads."""
    return [b[0] for b in take(ShardLoader(dataset, ("caption",), 1, seed, workers=0), samples)]


def test_a_dataset_names_its_samples(dataset: ShardDataset) -> None:
    assert (dataset.version, dataset.columns, len(dataset)) == (1, list(COLUMNS), COUNT)
    assert dataset.table.column_names == ["row", "key", "id", "shard", "identity", "labels_json"]
    people_of = dataset.identities()
    assert list(people_of) == [f"p{i:02d}" for i in range(8)]
    assert people_of["p01"] == [3, 4, 5]
    assert dataset.table["id"].to_pylist()[3] == "p01-003.txt"
    assert set(dataset.table["shard"].to_pylist()) == set(range(5))


def test_columns_are_joined_by_key_in_the_order_asked(dataset: ShardDataset) -> None:
    rows = [20, 3, 11, 3]
    samples = dataset.samples(rows, COLUMNS)
    for row, sample in zip(rows, samples, strict=True):
        assert sample["__id__"] == dataset.table["id"][row].as_py()
        assert f'{{"level":{row}}}' == sample["meta.json"].decode()
        assert sample["__key__"] in sample["caption.json"].decode()
        assert sample["__identity__"] == sample["__labels__"]["identity"] == f"p{row // 3:02d}"
        assert {"image.png", "mask.png", "clip_cls.npy", "clip_tokens.npy", "latent.npy"} <= set(sample)
    assert set(dataset.samples([0], ["mask"])[0]) == {"__key__", "__id__", "__identity__", "__labels__", "mask.png"}


def test_a_batch_has_the_agreed_tensors(dataset: ShardDataset) -> None:
    batch = collate(dataset.samples([4, 0], COLUMNS), COLUMNS)
    assert {k: tuple(v.shape) for k, v in batch.items() if isinstance(v, torch.Tensor)} == {
        "latent_moments": (2, 8, 2, 2),
        "clip_cls": (2, 3, 4),
        "clip_tokens": (2, 5, 4),
        "masks": (2, 1, 8, 8),
        "images": (2, 3, 8, 8),
    }
    assert all(v.dtype == torch.float32 for v in batch.values() if isinstance(v, torch.Tensor))
    assert batch["templates"] == ["a {}"] * 2
    assert batch["texts"][0] == "a " + batch["keys"][0]
    assert batch["identities"] == ["p01", "p00"]
    torch.testing.assert_close(batch["images"][0], torch.full((3, 8, 8), 4 / 127.5 - 1))
    torch.testing.assert_close(batch["masks"], torch.full((2, 1, 8, 8), 0.2))
    assert set(collate(dataset.samples([0], ["mask"]), ["mask"])) == {"keys", "ids", "identities", "parts", "masks"}


def test_samples_that_do_not_fit_are_named(dataset: ShardDataset) -> None:
    samples = dataset.samples([0, 1], COLUMNS)
    odd = {**samples[1], "latent.npy": encode_array(np.zeros((8, 3, 3)))}
    with pytest.raises(DataError, match=r"latent.npy of 'p00-001.txt' is \(8, 3, 3\), of 'p00-000.txt' \(8, 2, 2\)"):
        collate([samples[0], odd], ["latent"])
    del odd["latent.npy"]
    with pytest.raises(DataError, match=r"'p00-001.txt' has no latent.npy; it has"):
        collate([samples[0], odd], ["latent"])


# --- order


def test_an_epoch_is_every_sample_once_and_the_next_another_order(dataset: ShardDataset) -> None:
    sequence = order(dataset, seed=1, samples=3 * COUNT)
    epochs = [sequence[i * COUNT : (i + 1) * COUNT] for i in range(3)]
    assert [sorted(e) for e in epochs] == [sorted(dataset.table["id"].to_pylist())] * 3
    assert len({tuple(e) for e in epochs}) == 3


def test_the_seed_fixes_the_order(dataset: ShardDataset) -> None:
    assert order(dataset, 7, COUNT) == order(dataset, 7, COUNT)
    assert order(dataset, 7, COUNT) != order(dataset, 8, COUNT)


def test_the_order_is_the_same_on_every_machine(dataset: ShardDataset) -> None:
    assert ShardLoader(dataset, ("caption",), 8, seed=3).rows(0) == [8, 7, 0, 12, 9, 15, 5, 21]


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_batches_span_epochs_and_lose_nothing(dataset: ShardDataset, workers: int) -> None:
    batches = take(ShardLoader(dataset, ("caption",), 4, 1, workers=workers), 12)
    assert [i for batch in batches for i in batch] == order(dataset, 1, 48)


@pytest.mark.parametrize("world_size", [1, 2, 3, 6])
def test_ranks_share_one_order(dataset: ShardDataset, world_size: int) -> None:
    size = 6 // world_size
    per_rank = [
        take(ShardLoader(dataset, ("caption",), size, 5, rank=rank, world_size=world_size), 9)
        for rank in range(world_size)
    ]
    merged = [i for step in zip(*per_rank, strict=True) for batch in step for i in batch]
    assert merged == order(dataset, 5, 54)


def test_resume_is_exact_with_other_ranks_and_workers(dataset: ShardDataset) -> None:
    first = [ShardLoader(dataset, ("caption",), 3, 5, rank=r, world_size=2, workers=3) for r in range(2)]
    steps = [list(islice(iter(loader), 7)) for loader in first]
    assert first[0].state_dict() == first[1].state_dict()
    assert len(steps[0]) == 7
    state = first[0].state_dict()
    for world_size, workers in ((1, 0), (3, 1), (6, 5)):
        resumed = [
            ShardLoader(dataset, ("caption",), 6 // world_size, 5, rank=r, world_size=world_size, workers=workers)
            for r in range(world_size)
        ]
        for loader in resumed:
            loader.load_state_dict(state)
        per_rank = [take(loader, 6) for loader in resumed]
        merged = [i for step in zip(*per_rank, strict=True) for batch in step for i in batch]
        assert merged == order(dataset, 5, 78)[42:]


def test_what_was_read_ahead_is_not_counted(dataset: ShardDataset) -> None:
    loader = ShardLoader(dataset, ("caption",), 2, 0, workers=4)
    batches = iter(loader)
    for step in range(1, 4):
        next(batches)
        assert loader.state_dict()["position"] == 2 * step
    assert [b["ids"] for b in islice(iter(loader), 2)] == take_from(dataset, 6, 2)


def take_from(dataset: ShardDataset, position: int, count: int) -> list[list[str]]:
    sequence = order(dataset, 0, position + 2 * count)[position:]
    return [sequence[2 * i : 2 * i + 2] for i in range(count)]


def test_a_state_of_other_data_is_refused(dataset: ShardDataset) -> None:
    loader = ShardLoader(dataset, ("caption",), 2, 0)
    for name, value in (("seed", 1), ("version", 2), ("samples", 5)):
        with pytest.raises(CheckpointMismatch, match=rf"{name} {value} of the data"):
            loader.load_state_dict({**loader.state_dict(), name: value})


def test_more_samples_a_batch_than_there_are(dataset: ShardDataset) -> None:
    [batch] = take(ShardLoader(dataset, ("caption",), 50, 2), 1)
    assert batch == order(dataset, 2, 50)


# --- what is not there


def test_quarantined_samples_are_not_read(tmp_path: Path) -> None:
    people(tmp_path / "src", 5)
    write_texts(tmp_path / "src", {BAD: "bad"})
    build(Store(tmp_path / "store"), folder_source(tmp_path / "src"), chain())
    dataset = ShardDataset.open(str(tmp_path / "store"))
    assert len(dataset) == 5
    assert BAD not in dataset.table["id"].to_pylist()
    (tmp_path / "src" / BAD).write_text("mended")
    build(Store(tmp_path / "store"), folder_source(tmp_path / "src"), chain())
    assert len(ShardDataset.open(str(tmp_path / "store"))) == 6
    assert len(ShardDataset.open(str(tmp_path / "store"), version=1)) == 5


def test_what_cannot_be_opened_says_why(dataset: ShardDataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no manifest; `python -m jobs preprocess --out"):
        ShardDataset.open(str(tmp_path / "empty"))
    with pytest.raises(UsageError, match="has no version 9; it has 1"):
        ShardDataset.open(dataset.store.uri, version=9)
    with pytest.raises(UsageError, match="has no column 'lidb'; it has ingest, mask"):
        ShardLoader(dataset, ("lidb",), 1, 0)
    with pytest.raises(UsageError, match="rank 2 of 2"):
        ShardLoader(dataset, ("mask",), 1, 0, rank=2, world_size=2)


def test_a_store_of_nothing_good_says_so(tmp_path: Path) -> None:
    write_texts(tmp_path / "src", {BAD: "bad"})
    build(Store(tmp_path / "store"), folder_source(tmp_path / "src"), chain())
    dataset = ShardDataset.open(str(tmp_path / "store"))
    with pytest.raises(DataError, match="has no samples: all are quarantined"):
        ShardLoader(dataset, ("read",), 1, 0)


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "index"])
def test_damage_is_named_not_trained_on(damage: str, tmp_path: Path) -> None:
    people(tmp_path / "src", 5)
    store = Store(tmp_path / "store")
    build(store, folder_source(tmp_path / "src"), chain())
    ref = load_manifest(store).refs("upper")[0]
    data = bytearray(store.read(ref.key))
    data[512] ^= 1
    if damage == "gone":
        store.delete(ref.key)
    elif damage == "index":
        store.put(load_manifest(store).head["index"]["key"], b"no parquet")
    else:
        store.put(ref.key, bytes(data) if damage == "flip" else bytes(data[:700]))

    def read() -> None:
        ShardDataset.open(store.uri).samples(list(range(5)), ("upper",))

    with pytest.raises(DataError, match=r"missing.*data/upper|data/upper.*not what was committed|indexes/.*damaged"):
        read()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_reads_from_s3(workers: int, moto_s3: Any, tmp_path: Path) -> None:
    people(tmp_path / "src", 9)
    store = Store(moto_s3() + "/shards")
    build(store, folder_source(tmp_path / "src"), [make(Ingest), make(Caption)])
    dataset = ShardDataset.open(store.uri)
    loader = ShardLoader(dataset, ("ingest", "caption"), 4, 0, workers=workers)
    batches = list(islice(iter(loader), 5))
    assert [i for b in batches for i in b["ids"]] == order(dataset, 0, 20)
    assert batches[0]["images"].shape == (4, 3, 8, 8)
