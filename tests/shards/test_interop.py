"""Other people's readers open what the store holds: WebDataset, pyarrow, open_clip's own training loader."""

from __future__ import annotations

import io
import json
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import torch
import webdataset
from PIL import Image

from e4t_core.backbones._clip_files import source as clip_source
from e4t_core.backbones.config import ClipConfig
from e4t_core.storage import Store
from pipelines.loader import ShardDataset
from pipelines.shards import plan as plans
from pipelines.shards.manifest import load_manifest
from pipelines.shards.pack import Packing, pack
from tests.shards.world import build_world
from tests.support.sources import open_source


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return build_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def dataset(store: Store) -> ShardDataset:
    return ShardDataset(store)


@pytest.fixture(scope="module")
def packed(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    pack(Packing.of(store, None, [], samples_per_shard=4, max_mb=1), Store(folder))
    assert sorted(p.name for p in folder.glob("*.tar")) == ["000000.tar", "000001.tar", "000002.tar"]
    return folder


@pytest.fixture(scope="module")
def samples(dataset: ShardDataset) -> list[dict[str, Any]]:
    """What our own loader reads, in key order."""
    found = dataset.samples(list(range(len(dataset))), dataset.columns)
    return sorted(found, key=lambda sample: str(sample["__key__"]))


def tars(packed: Path) -> str:
    """All of them, as WebDataset names many."""
    return f"{packed}/{{000000..000002}}.tar"


def pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def caption(sample: dict[str, Any]) -> str:
    return str(json.loads(sample["caption.json"])["text"])


# --- WebDataset


def test_webdataset_opens_each_columns_tars_as_they_are(store: Store, samples: list[dict[str, Any]]) -> None:
    manifest = load_manifest(store)
    for stage, member in [("ingest", "image.png"), ("mask", "mask.png"), ("clip", "clip_cls.npy")]:
        urls = [store.url(ref.key) for ref in manifest.refs(stage).values()]
        read = {s["__key__"]: s[member] for s in webdataset.WebDataset(urls, shardshuffle=False)}
        assert read == {s["__key__"]: s[member] for s in samples}


def test_webdataset_decodes_a_columns_captions(store: Store, samples: list[dict[str, Any]]) -> None:
    urls = [store.url(ref.key) for ref in load_manifest(store).refs("caption").values()]
    texts = [s["caption.json"]["text"] for s in webdataset.WebDataset(urls, shardshuffle=False).decode()]
    assert sorted(texts) == sorted(map(caption, samples))


def test_webdataset_reads_a_pack_as_pictures_and_sentences(packed: Path, samples: list[dict[str, Any]]) -> None:
    read = webdataset.WebDataset(tars(packed), shardshuffle=False).decode("pil").to_tuple("png;jpg", "txt")
    pairs = list(read)
    assert [text for _, text in pairs] == [caption(s) for s in samples]
    for (image, _), sample in zip(pairs, samples, strict=True):
        assert np.array_equal(np.asarray(image.convert("RGB")), pixels(sample["image.png"]))


def test_webdataset_decodes_every_member_of_a_pack(packed: Path, samples: list[dict[str, Any]]) -> None:
    read = list(webdataset.WebDataset(tars(packed), shardshuffle=False).decode("pil"))
    assert [s["__key__"] for s in read] == [s["__key__"] for s in samples]
    for found, sample in zip(read, samples, strict=True):
        assert np.array_equal(found["clip_cls.npy"], np.load(io.BytesIO(sample["clip_cls.npy"])))
        assert np.array_equal(np.asarray(found["mask.png"]), pixels(sample["mask.png"]))
        assert found["json"]["id"] == sample["__id__"]
        assert found["json"]["labels"]["identity"] == found["json"]["identity"] == sample["__identity__"]
        assert found["json"]["caption"] == found["txt"]
        assert "{}" in found["json"]["template"]


def test_our_own_webdataset_source_takes_a_pack_back(packed: Path, samples: list[dict[str, Any]]) -> None:
    source = open_source("webdataset", packed, json_labels=["identity"])
    items = sorted(source.items(), key=lambda item: item.id)
    assert len(items) == len(samples)
    for item, sample in zip(items, samples, strict=True):
        raw = source.read(item)
        assert (raw.image, raw.caption) == (sample["image.png"], caption(sample))
        assert raw.labels == {"identity": sample["__identity__"]}


# --- pyarrow


def test_pyarrow_reads_the_index_of_a_version(store: Store) -> None:
    path = store.url(load_manifest(store).head["index"]["key"])
    table = pq.read_table(path)
    spans = [
        f"{stage}.{part}" for stage in ("ingest", "mask", "caption", "clip") for part in ("offset", "size", "crc32")
    ]
    facts = ["id", "key", "shard", "identity", "labels_json", "status", "reason", "message"]
    assert table.column_names == [*facts, *spans]
    rows = pyarrow.dataset.dataset(path).to_table(filter=pc.field("identity") == "face-train-000003")
    assert rows["id"].to_pylist() == ["face/train/000003/000", "face/train/000003/001"]
    assert set(rows["status"].to_pylist()) == {"ok"}


def test_pyarrow_reads_the_plans_items_a_shard_at_a_time(store: Store) -> None:
    plan = plans.latest(store)
    assert plan is not None
    file = pq.ParquetFile(store.url(plan.items_key))
    assert file.schema_arrow.names == ["id", "key", "uri", "etag", "labels", "shard"]
    groups = [set(file.read_row_group(i)["shard"].to_pylist()) for i in range(file.num_row_groups)]
    assert groups == [{0}, {1}, {2}]


def test_a_packs_index_leads_to_the_bytes_of_a_sample(packed: Path, samples: list[dict[str, Any]]) -> None:
    data = pyarrow.dataset.dataset(packed / "index.parquet")
    assert data.schema.names == ["key", "id", "tar", "offset", "size", "caption", "identity", "labels_json"]
    wanted = samples[7]
    [row] = data.to_table(filter=pc.field("caption") == caption(wanted)).to_pylist()
    assert (row["id"], row["identity"]) == (wanted["__id__"], wanted["__identity__"])
    assert json.loads(row["labels_json"])["class"] == "person"
    cut = (packed / row["tar"]).read_bytes()[row["offset"] : row["offset"] + row["size"]]
    [found] = webdataset.WebDataset(_as_tar(cut, packed.parent), shardshuffle=False)
    assert (found["__key__"], found["png"]) == (row["key"], wanted["image.png"])


def _as_tar(cut: bytes, folder: Path) -> str:
    (folder / "cut.tar").write_bytes(cut + bytes(1024))
    return str(folder / "cut.tar")


# --- open_clip


@pytest.fixture(scope="module")
def tiny_clip() -> tuple[Any, Any]:
    """The bundled CLIP's own preprocessing and tokenizer, as open_clip makes them."""
    with clip_source(ClipConfig(path="bundled:clip_tiny")) as (name, _):
        _, _, preprocess = open_clip.create_model_and_transforms(name, load_weights=False)
        return preprocess, open_clip.get_tokenizer(name)


def arguments(packed: Path, count: int) -> Namespace:
    """What open_clip's trainer takes from its command line for data."""
    where = {"train_data": tars(packed), "val_data": tars(packed), "train_data_upsampling_factors": None}
    return Namespace(
        **where, train_num_samples=count, val_num_samples=count, batch_size=4, workers=0, world_size=1, seed=0
    )


def test_open_clips_evaluation_loader_reads_a_pack(
    packed: Path, samples: list[dict[str, Any]], tiny_clip: tuple[Any, Any]
) -> None:
    from open_clip_train.data import get_wds_dataset

    preprocess, tokenizer = tiny_clip
    info = get_wds_dataset(arguments(packed, 10), preprocess, is_train=False, tokenizer=tokenizer)
    batches = list(info.dataloader)
    assert [len(images) for images, _ in batches] == [4, 4, 2]
    images, texts = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert torch.equal(texts, tokenizer([caption(s) for s in samples]))
    right = [preprocess(Image.fromarray(pixels(s["image.png"]))) for s in samples]
    assert torch.equal(images, torch.stack(right))


def test_open_clips_training_loader_reads_a_pack(
    packed: Path, samples: list[dict[str, Any]], tiny_clip: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import open_clip_train.data

    # open_clip asks for webdataset <= 0.2.86; later ones mark the end of every tar, over which its training loader
    # stumbles whatever the tar (open_clip issue 935, which names this cure)
    no_marks = partial(open_clip_train.data.tar_file_expander, eof_value=None)
    monkeypatch.setattr(open_clip_train.data, "tar_file_expander", no_marks)
    preprocess, tokenizer = tiny_clip
    info = open_clip_train.data.get_wds_dataset(arguments(packed, 8), preprocess, is_train=True, tokenizer=tokenizer)
    known = {tuple(row) for row in tokenizer([caption(s) for s in samples]).tolist()}
    texts = [tuple(row) for _, batch in info.dataloader for row in batch.tolist()]
    assert len(texts) == len(set(texts)) == 8  # two whole batches, no sample twice
    assert set(texts) <= known
