"""Folders of images on local disk, in memory and on S3; sidecars; refusals that say what was looked for."""

from __future__ import annotations

import io
import os
import pickle
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from e4t_core.errors import DataError, StorageError, UsageError
from e4t_core.storage import Store
from tests.support.sources import open_source

FILES = [
    "alice/a.jpg",
    "alice/b.PNG",
    "alice/deep/c.WebP",
    "alice-2/d.tiff",
    "bob/e.jpeg",
    "bob/notes.txt",
    "top.gif",
]


def photo(kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40), (200, 100, 50)).save(buffer, kind)
    return buffer.getvalue()


source = partial(open_source, "image_folder")


@pytest.fixture(params=["local", "memory", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place with FILES in it."""
    places: dict[str, Callable[[], str]] = {
        "local": lambda: str(tmp_path / "photos"),
        "memory": lambda: f"memory://{uuid.uuid4().hex}/photos",
        "s3": lambda: request.getfixturevalue("moto_s3")() + "/photos",
    }
    uri = places[request.param]()
    for name in FILES:
        Store(uri).put(name, b"text" if name.endswith(".txt") else photo())
    return uri


def test_lists_every_image_below_the_folder(root: str) -> None:
    items = {item.id: item for item in source(root).items()}
    assert sorted(items) == sorted(name for name in FILES if name != "bob/notes.txt")
    identities = {name: item.labels["identity"] for name, item in items.items()}
    assert identities["alice/a.jpg"] == "alice"
    assert identities["alice/deep/c.WebP"] == "deep"
    assert identities["top.gif"] == "photos"
    assert all(item.etag for item in items.values())
    again = pickle.loads(pickle.dumps(source(root)))
    assert again.read(items["bob/e.jpeg"]).image == photo()


def test_limit_takes_the_first_ids(root: str) -> None:
    assert [item.id for item in source(root).items(2)] == ["alice-2/d.tiff", "alice/a.jpg"]
    assert [item.id for item in source(root, limit=1).items(3)] == ["alice-2/d.tiff"]


def test_sidecars_belong_to_their_image(root: str) -> None:
    store = Store(root)
    store.put("alice/a.txt", "﻿ a person at sea \n".encode())
    store.put("alice/a.mask.png", photo())
    store.put("alice/b.txt", b"  ")
    with_sidecars = source(root, caption_ext=".txt", mask_suffix=".mask.png")
    items = {item.id: item for item in with_sidecars.items()}
    assert "alice/a.mask.png" not in items
    raw = with_sidecars.read(items["alice/a.jpg"])
    assert (raw.caption, raw.mask) == ("a person at sea", photo())
    assert with_sidecars.read(items["alice/b.PNG"]).caption is None
    bare = with_sidecars.read(items["bob/e.jpeg"])
    assert (bare.caption, bare.mask) == (None, None)
    assert "alice/a.mask.png" in {item.id for item in source(root).items()}


def test_a_changed_caption_changes_the_etag(root: str) -> None:
    def tag() -> dict[str, str]:
        return {item.id: item.etag for item in source(root, caption_ext=".txt").items()}

    Store(root).put("alice/a.txt", b"one")
    before = tag()
    Store(root).put("alice/a.txt", b"another one")
    after = tag()
    assert {name for name in before if before[name] != after[name]} == {"alice/a.jpg"}


def test_captions_must_be_text(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(photo())
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00caption")
    broken = source(tmp_path, caption_ext=".txt")
    with pytest.raises(OSError, match=r"a\.txt is not UTF-8"):
        broken.read(next(broken.items()))


def test_labels_can_be_left_out(root: str) -> None:
    assert all(not item.labels for item in source(root, labels="none").items())


def test_an_empty_place_says_what_was_looked_for(root: str) -> None:
    Store(root).put("only/readme.md", b"text")
    with pytest.raises(DataError, match=r"no images in '.*only' .*\(1 files are there\); looked for \.jpg, \.jpeg"):
        list(source(f"{root}/only").items())


def test_a_missing_place_is_named(root: str) -> None:
    with pytest.raises(DataError, match=r"nowhere"):
        list(source(f"{root}/nowhere").items())


def test_missing_bucket(moto_s3: Callable[[], str]) -> None:
    with pytest.raises((DataError, StorageError), match="s3://no-such-bucket-here"):
        list(source("s3://no-such-bucket-here/x").items())


def test_wrong_paths(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(photo())
    with pytest.raises(DataError, match=r"a\.jpg' is a file; give the folder"):
        list(source(tmp_path / "a.jpg").items())
    with pytest.raises(UsageError, match=r"source\.path"):
        list(source(None).items())


def test_hidden_files_links_and_odd_things(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.jpg").write_bytes(photo())
    (tmp_path / "a" / "._x.jpg").write_bytes(b"resource fork")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "y.jpg").write_bytes(photo())
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "a" / "self.jpg").symlink_to(tmp_path / "a" / "self.jpg")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nothing.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    folder = source(tmp_path)
    items = {item.id: item for item in folder.items()}
    assert sorted(items) == ["a/self.jpg", "a/x.jpg", "gone.jpg"]
    with pytest.raises(FileNotFoundError):
        folder.read(items["gone.jpg"])


def test_a_folder_that_may_not_be_opened_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("open", "closed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.jpg").write_bytes(photo())
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if path.endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StorageError, match=r"cannot list '.*closed'"):
        list(source(tmp_path).items())


def test_names_that_are_not_text(tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9.jpg")
    try:
        with open(path, "wb") as file:
            file.write(photo())
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(DataError, match="not UTF-8"):
        list(source(tmp_path).items())


def test_streams_folder_by_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(5):
        (tmp_path / f"p{i}").mkdir()
        (tmp_path / f"p{i}" / "x.jpg").write_bytes(photo())
    opened = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: opened.append(path) or scandir(path))
    items = source(tmp_path).items()
    next(items)
    assert len(opened) == 2


@pytest.mark.parametrize("name", ["lfw_like", "subjects/cat", "art"])
def test_real_photographs(real_data: Path, name: str) -> None:
    items = list(source(real_data / name).items())
    assert items
    for item in items:
        assert Image.open(io.BytesIO(source(real_data / name).read(item).image)).width > 0
