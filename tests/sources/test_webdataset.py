"""WebDataset tars as others wrote them: grouped as the library groups them, read by byte ranges."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import re
import tarfile
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import webdataset
from webdataset import tariterators

from e4t_core.errors import DataError, UsageError
from e4t_core.storage import Store
from pipelines.shards.plan import listing
from pipelines.sources import Source
from pipelines.sources._text import MAX_TEXT
from tests.support.sources import open_source
from tests.support.tars import LONG, odd, opening, packed

TRAIN = (
    ("0000.jpg", b"image 0"),
    ("0000.txt", " a dog \n".encode("utf-8-sig")),
    ("0000.json", b'{"caption": "a dog at sea", "width": 64, "similarity": NaN, "tags": ["x", {"y": null}]}'),
    ("0001.seg.png", b"mask 1"),
    ("0001.PNG", b"image 1"),
    ("0001.cls", b"7\n"),
    ("v1.5/0002.jpg", b"image 2"),
)


source = partial(open_source, "webdataset")


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place with TRAIN in ``train/00.tar``, and one sample in ``train-x.tar``."""
    uri = str(tmp_path / "tars") if request.param == "local" else f"memory://{uuid.uuid4().hex}"
    Store(uri).put("train/00.tar", packed(TRAIN))
    Store(uri).put("train-x.tar", packed([("0000.webp", b"another")]))
    Store(uri).put("README.txt", b"about")
    return uri


def ids(webdataset: Source, limit: int | None = None) -> list[str]:
    return [item.id for item in webdataset.items(limit)]


def test_samples_of_every_tar(root: str) -> None:
    place = source(root)
    items = {item.id: item for item in place.items()}
    assert list(items) == ["train-x/0000", "train/00/0000", "train/00/0001", "train/00/v1.5/0002"]
    again = pickle.loads(pickle.dumps(place))
    first = again.read(items["train/00/0000"])
    assert (first.image, first.caption, first.labels) == (b"image 0", "a dog", {})
    second = again.read(items["train/00/0001"])
    assert (second.image, second.caption, second.labels) == (b"image 1", None, {"class": 7})
    assert again.read(items["train/00/v1.5/0002"]).image == b"image 2"
    assert again.read(items["train-x/0000"]).image == b"another"


def test_one_tar(root: str) -> None:
    place = source(f"{root}/train/00.tar")
    items = list(place.items())
    assert [item.id for item in items] == ["00/0000", "00/0001", "00/v1.5/0002"]
    assert pickle.loads(pickle.dumps(place)).read(items[0]).image == b"image 0"
    with pytest.raises(DataError, match=r"no tars at '.*none\.tar'"):
        ids(source(f"{root}/train/none.tar"))


def test_a_folder_that_is_called_like_a_tar(tmp_path: Path) -> None:
    Store(tmp_path).put("a.tar/b.tar", packed([("0.jpg", b"x")]))
    assert ids(source(tmp_path / "a.tar")) == ["b/0"]


def test_what_the_librarys_writer_writes(tmp_path: Path) -> None:
    with webdataset.TarWriter(str(tmp_path / "w.tar")) as writer:
        for i in range(3):
            writer.write({"__key__": f"k/{i}", "jpg": b"%d" % i, "txt": f"photo {i}", "json": {"n": i}, "cls": i})
    place = source(tmp_path, json_labels=["n"])
    found = {item.id: place.read(item) for item in place.items()}
    assert {key: (s.image, s.caption, s.labels) for key, s in found.items()} == {
        f"w/k/{i}": (b"%d" % i, f"photo {i}", {"n": i, "class": i}) for i in range(3)
    }


def test_samples_are_the_librarys(tmp_path: Path) -> None:
    names = [
        "a.jpg", "a.seg.png", "a.TXT", "b", "b.c/d.jpg", "b.c/d.txt", ".hidden.jpg", "__meta__/x.jpg", "__k__.jpg",
        "./e.jpg", "e.jpg", "f..jpg", "g.", LONG, "a.b/",
    ]  # fmt: skip
    data = packed([(name, odd(tarfile.DIRTYPE) if name.endswith("/") else b"x") for name in names])
    (tmp_path / "a.tar").write_bytes(data)
    parts = tariterators.tar_file_expander([{"url": "a.tar", "stream": io.BytesIO(data)}])
    expected = [f"a/{sample['__key__']}" for sample in tariterators.group_by_keys(parts)]
    assert len(expected) == 8
    assert ids(source(tmp_path)) == expected


def test_hidden_files_are_left_out(tmp_path: Path) -> None:
    """The library gives all those of a folder to one sample called ``d/``; macOS packs one beside every file."""
    Store(tmp_path).put("a.tar", packed([(f"d/{x}{i}.jpg", b"x") for i in range(2) for x in ("._", "")]))
    assert ids(source(tmp_path)) == ["a/d/0", "a/d/1"]


def test_limit_takes_the_first_ids(tmp_path: Path) -> None:
    Store(tmp_path).put("a.tar", packed([(f"{i}.jpg", b"%d" % i) for i in (3, 1, 2)]))
    assert ids(source(tmp_path)) == ["a/3", "a/1", "a/2"]
    assert ids(source(tmp_path), 2) == ["a/1", "a/2"]
    assert ids(source(tmp_path, limit=1), 2) == ["a/1"]


def test_the_first_extension_is_the_image(root: str) -> None:
    def image(*exts: str) -> bytes:
        place = source(f"{root}/train/00.tar", image_exts=exts)
        return place.read(list(place.items())[1]).image

    assert image("seg.png", "png") == b"mask 1"
    assert image("jpg", "png", "seg.png") == b"image 1"


def test_captions_and_labels_from_json(root: str) -> None:
    def first(**fields: Any) -> tuple[Any, Any]:
        place = source(f"{root}/train", **fields)
        sample = place.read(next(iter(place.items())))
        return sample.caption, sample.labels

    assert first(json_caption="caption") == ("a dog at sea", {})
    assert first(json_caption="absent") == ("a dog", {})
    assert first(json_caption="absent", caption_ext=None) == (None, {})
    labels = {"width": 64, "similarity": None, "tags": ["x", {"y": None}]}
    assert first(json_labels=["width", "similarity", "tags", "absent"]) == ("a dog", labels)
    assert first(json_ext="txt2", json_labels=["width"]) == ("a dog", {})


@pytest.mark.parametrize(("data", "label"), [(b"12", 12), (b"-1", -1), ("tench ñ".encode(), "tench ñ"), (b" ", None)])
def test_classes(tmp_path: Path, data: bytes, label: Any) -> None:
    Store(tmp_path).put("a.tar", packed([("0.jpg", b"x"), ("0.cls", data), ("0.label", b"other")]))

    def labels(**fields: Any) -> Any:
        place = source(tmp_path, **fields)
        return place.read(next(iter(place.items()))).labels

    assert labels() == ({} if label is None else {"class": label})
    assert labels(class_ext=None) == {}
    assert labels(class_ext="label") == {"class": "other"}


def test_a_listing_reads_headers_one_tar_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = opening(monkeypatch)
    with (tmp_path / "a.tar").open("wb") as file:
        for i in range(3):
            info = tarfile.TarInfo(f"{i}.jpg")
            info.size = 1 << 30
            file.write(info.tobuf())
            file.seek(info.size, io.SEEK_CUR)
        file.write(bytes(1024))
    Store(tmp_path).put("b.tar", packed([("3.jpg", b"x")]))
    items = source(tmp_path).items()
    assert next(items).id == "a/0"
    assert len(opened) == 1
    assert [item.id for item in items] == ["a/1", "a/2", "b/3"]
    assert sum(file.bytes for file in opened) < 200_000


def test_only_what_is_needed_is_read(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = opening(monkeypatch)
    place = source(root, caption_ext="txt", json_labels=["width"])
    items = {item.id: item for item in place.items()}
    listed, asked = len(opened), []
    ranges = Store.read_ranges
    monkeypatch.setattr(Store, "read_ranges", lambda store, some: asked.append(list(some)) or ranges(store, some))
    monkeypatch.setattr(Store, "read", None)
    for name in ("train/00/0000", "train/00/0001"):
        place.read(items[name])
    assert len(opened) == listed
    sizes = [sorted(end - start for _, start, end in some) for some in asked]
    by_name = {name: len(data) for name, data in TRAIN}
    assert sizes == [
        sorted(by_name[f"0000.{ext}"] for ext in ("jpg", "txt", "json")),
        sorted(by_name[f"0001.{ext}"] for ext in ("PNG", "cls")),
    ]


def test_addresses_end_like_the_image(root: str) -> None:
    """So that an image whose extension is another format's is noticed."""
    first = next(iter(source(f"{root}/train").items()))
    assert first.uri.startswith(f"{root}/train/00.tar#")
    assert first.uri.endswith(".jpg")


def test_etags_follow_the_tar_and_the_place(tmp_path: Path) -> None:
    def tags(*files: tuple[str, bytes]) -> list[str]:
        Store(tmp_path).put("a.tar", packed(files))
        return [item.etag for item in source(tmp_path).items()]

    one, two = tags(("0.jpg", b"x"), ("1.jpg", b"y"))
    assert one != two
    assert one.rpartition("#")[0] == two.rpartition("#")[0]
    changed, _ = tags(("0.jpg", b"z"), ("1.jpg", b"y"))
    assert changed != one


def test_empty_members_are_not_asked_for(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Object stores refuse an empty range."""
    Store(root).put("0.tar", packed([("0.jpg", b""), ("0.txt", b"")]))
    monkeypatch.setattr(Store, "read_ranges", lambda _, ranges: [] if not ranges else None)
    place = source(root)
    sample = place.read(next(iter(place.items())))
    assert (sample.image, sample.caption) == (b"", None)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([("a.jpg", odd(tarfile.SYMTYPE, "/etc/passwd"))], "'a.jpg' is a symbolic link, and links are never"),
        ([("a.jpg", odd(tarfile.LNKTYPE, "b.jpg"))], "'a.jpg' is a hard link"),
        ([("a.jpg", odd(tarfile.FIFOTYPE))], "'a.jpg' is a named pipe"),
        ([("a.jpg", odd(tarfile.BLKTYPE))], "'a.jpg' is a device"),
        ([("a.jpg", b"x"), ("a.txt", odd(tarfile.SYMTYPE, "/etc/passwd"))], "'a.txt' is a symbolic link"),
        ([("../../a.jpg", b"x")], "'../../a.jpg' leads out of its folder"),
        ([("/etc/a#b&c.jpg", b"x")], "'/etc/a#b&c.jpg' has an absolute name"),
        ([("a.txt", b"x"), ("a.npy", b"x")], "the sample has no image; looked for .jpg, .jpeg, .png"),
        ([("a.jpg", b"x"), ("a.txt", b"caf\xe9")], "its .txt is not UTF-8 text"),
        ([("a.jpg", b"x"), ("a.cls", b"\xff")], "its .cls is not UTF-8 text"),
        ([("a.jpg", b"x"), ("a.txt", b"x" * (MAX_TEXT + 1))], "its .txt has 1048577 bytes; a caption or class has"),
        ([("a.jpg", b"x"), ("a.json", b"{")], "its .json is broken JSON: Expecting"),
        ([("a.jpg", b"x"), ("a.json", b"\xff{}")], "its .json is broken JSON"),
        ([("a.jpg", b"x"), ("a.json", b"[" * 99_999)], "its .json is broken JSON: maximum recursion"),
        ([("a.jpg", b"x"), ("a.json", b"[1]")], "its .json holds a list; it should be a JSON object"),
        ([("a.jpg", b"x"), ("a.json", b'{"c": 5}')], "its .json has 5 as 'c'; a caption is text"),
        ([("a.jpg", b"x"), ("a.json", b'{"c": "\\ud800"}')], "'c' of its JSON cannot be written again"),
        ([("a.jpg", b"x"), ("a.json", b'{"n": 1e999}')], "'n' of its JSON cannot be written again"),
        (
            [("a.jpg", b"x"), ("a.json", json.dumps({"c": "ñ" * MAX_TEXT}).encode())],
            "'c' of its .json has 2097152 bytes",
        ),
    ],
)
def test_samples_that_are_listed_and_not_read(tmp_path: Path, files: Any, message: str) -> None:
    Store(tmp_path).put("a.tar", packed([*files, ("good.jpg", b"good")]))
    place = source(tmp_path, json_caption="c", json_labels=["n"])
    bad, good = place.items()
    assert place.read(good).image == b"good"
    with pytest.raises(OSError, match=f"^{re.escape(message)}") as error:
        place.read(bad)
    assert not isinstance(error.value, FileNotFoundError)


def test_members_that_are_not_taken_may_be_anything(tmp_path: Path) -> None:
    files = [("a.jpg", b"x"), ("a.txt", odd(tarfile.SYMTYPE, "x")), ("a.json", b"{"), ("a.cls", b"\xff")]
    Store(tmp_path).put("a.tar", packed(files))
    place = source(tmp_path, caption_ext=None, class_ext=None)
    assert place.read(next(iter(place.items()))).image == b"x"


def test_the_longest_caption(tmp_path: Path) -> None:
    Store(tmp_path).put("a.tar", packed([("a.jpg", b"x"), ("a.txt", b"y" * MAX_TEXT)]))
    place = source(tmp_path)
    assert len(place.read(next(iter(place.items()))).caption or "") == MAX_TEXT


@pytest.mark.parametrize("second", ["a.jpg", "a.JPG"])
def test_samples_that_would_become_one(root: str, second: str) -> None:
    Store(root).put("00.tar", packed([("a.jpg", b"1"), (second, b"2")]))
    with pytest.raises(DataError, match=rf"00\.tar has 'a\.jpg' and then '{second}', so two samples .* one, 'a';"):
        ids(source(root))


def test_a_key_that_comes_twice_is_left_to_the_plan(root: str) -> None:
    Store(root).put("00.tar", packed([("a.jpg", b"1"), ("b.jpg", b"2"), ("a.txt", b"of a?")]))
    assert ids(source(root)).count("00/a") == 2
    with pytest.raises(DataError, match=r"lists the id '00/a' twice: .*00\.tar#.* and .*00\.tar#"):
        listing(source(root), None)


@pytest.mark.parametrize("name", ["z.tar", "z.tar.gz", "z.tgz"])
def test_gzipped_tars_are_not_passed_over(root: str, name: str) -> None:
    Store(root).put(name, gzip.compress(packed([("a.jpg", b"1")])))
    with pytest.raises(DataError, match=rf"{name} is gzipped, .*; unpack it to a plain \.tar first"):
        ids(source(root))
    with pytest.raises(DataError, match="is gzipped"):
        ids(source(f"{root}/{name}"))


def test_a_truncated_tar(root: str) -> None:
    store = Store(root)
    store.put("z.tar", store.read("train/00.tar")[:1024])
    with pytest.raises(DataError, match=r"z\.tar is truncated"):
        ids(source(root), 1)


def test_a_tar_that_vanished_or_shrank(root: str) -> None:
    place, store = source(f"{root}/train"), Store(root)
    item = list(place.items())[-1]
    store.put("train/00.tar", store.read("train/00.tar")[:1024])
    with pytest.raises(OSError, match="the tar was changed, list it again"):
        place.read(item)
    store.delete("train/00.tar")
    with pytest.raises(FileNotFoundError):
        place.read(item)


def test_wrong_places(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match=r"no tars at .*; source\.path must be a folder with \*\.tar in it, or a tar"):
        ids(source(tmp_path))
    with pytest.raises(DataError, match="nowhere' does not exist"):
        ids(source(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match=r"source\.path"):
        ids(source(None))


@pytest.mark.parametrize("exts", [[".jpg"], ["JPG"], []])
def test_wrong_extensions(exts: list[str]) -> None:
    with pytest.raises(UsageError, match=r"source\.image_exts"):
        source("x", image_exts=exts)
