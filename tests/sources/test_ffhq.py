"""FFHQ's published layout in miniature."""

from __future__ import annotations

import json
import pickle
import uuid
from functools import partial
from pathlib import Path

import pytest

from e4t_core.errors import DataError, StorageError
from e4t_core.storage import Store
from tests.support.sources import open_source

NUMBERS = (0, 7, 1000, 69999)
SPLITS = {0: "training", 7: "validation", 1000: "training", 69999: "validation"}


source = partial(open_source, "ffhq")


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    uri = str(tmp_path / "ffhq") if request.param == "local" else f"memory://{uuid.uuid4().hex}"
    for kind in ("images1024x1024", "thumbnails128x128"):
        for n in NUMBERS:
            Store(uri).put(f"{kind}/{n // 1000 * 1000:05d}/{n:05d}.png", f"{kind} {n}".encode())
        Store(uri).put(f"{kind}/LICENSE.txt", b"CC BY-NC-SA 4.0")
    return uri


def metadata(path: str, text: str | None = None) -> str:
    folder, _, name = path.rpartition("/")
    tree = {str(n): {"category": split, "image": {"pixel_size": [1024, 1024]}} for n, split in SPLITS.items()}
    Store(folder).put(name, (text or json.dumps(tree)).encode())
    return path


@pytest.mark.parametrize("kind", ["images1024x1024", "thumbnails128x128"])
def test_one_kind_of_images_by_root_or_by_folder(root: str, kind: str) -> None:
    for ffhq in (source(root, images=kind), source(f"{root}/{kind}")):
        items = {item.id: item for item in ffhq.items()}
        assert list(items) == ["00000", "00007", "01000", "69999"]
        assert not items["00007"].labels
        assert pickle.loads(pickle.dumps(ffhq)).read(items["01000"]).image == f"{kind} 1000".encode()


def test_metadata_beside_the_folder_is_found(root: str) -> None:
    metadata(f"{root}/ffhq-dataset-v2.json")
    for path in (root, f"{root}/images1024x1024"):
        assert {int(i.id): i.labels["split"] for i in source(path).items()} == SPLITS
        assert [i.id for i in source(path, split="validation").items()] == ["00007", "69999"]
        assert [i.id for i in source(path, split="validation", limit=1).items()] == ["00007"]


def test_metadata_that_is_named(root: str, tmp_path: Path) -> None:
    uri = metadata(str(tmp_path / "elsewhere" / "meta.json"))
    assert len(list(source(root, metadata=uri, split="training").items())) == 2


def test_a_split_needs_metadata(root: str) -> None:
    with pytest.raises(DataError, match=r"source.split=training needs ffhq-dataset-v2.json"):
        list(source(root, split="training").items())


@pytest.mark.parametrize("text", ["{", "[1]", '{"0": {}}', '{"0": 3}'])
def test_metadata_that_is_none(root: str, text: str) -> None:
    metadata(f"{root}/ffhq-dataset-v2.json", text)
    with pytest.raises(DataError, match=r"should be ffhq-dataset-v2.json as published"):
        list(source(root).items())


def test_metadata_of_other_images(root: str) -> None:
    metadata(f"{root}/ffhq-dataset-v2.json", '{"0": {"category": "training"}}')
    with pytest.raises(DataError, match=r"image 00007 of .* is not in ffhq-dataset-v2\.json"):
        list(source(root).items())


def test_a_folder_without_the_layout(tmp_path: Path) -> None:
    (tmp_path / "images1024x1024" / "01000").mkdir(parents=True)
    (tmp_path / "images1024x1024" / "01000" / "00007.png").write_bytes(b"in another thousand's folder")
    with pytest.raises(DataError, match=r"no '00000/00000.png' in .*one of images1024x1024, thumbnails128x128"):
        list(source(str(tmp_path)).items())


def test_a_path_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Store("images1024x1024").put("00000/00007.png", b"7")
    metadata(f"{tmp_path}/ffhq-dataset-v2.json")
    (item,) = source("images1024x1024").items()
    assert item.labels == {"split": "validation"}


def test_a_parent_that_may_not_be_seen_has_no_metadata(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Store.exists

    def exists(store: Store, key: str) -> bool:
        if store.uri == root:
            raise StorageError(f"cannot look up {key}") from PermissionError("AccessDenied")
        return real(store, key)

    monkeypatch.setattr(Store, "exists", exists)
    metadata(f"{root}/ffhq-dataset-v2.json")
    assert [item.labels for item in source(f"{root}/images1024x1024").items()] == [{}] * len(NUMBERS)
    monkeypatch.setattr(Store, "exists", lambda store, key: _fail("cannot look up: the server is down"))
    with pytest.raises(StorageError, match="the server is down"):
        list(source(f"{root}/images1024x1024").items())


def _fail(message: str) -> bool:
    raise StorageError(message)
