"""Parquet files as Hugging Face and pandas write them: bytes and paths, row groups, damage, refusals."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import pickle
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from e4t_core.errors import DataError, StorageError, UsageError
from e4t_core.storage import Store
from pipelines.shards.plan import listing
from pipelines.sources import Source, SourceItem
from pipelines.stages import Bad
from pipelines.stages.ingest import Ingest, IngestConfig
from tests.stages.helpers import MODELS, batch_of
from tests.support.sources import open_source

HUGGING_FACE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
ROWS = 6


def photo(level: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40), (level, 100, 50)).save(buffer, "PNG")
    return buffer.getvalue()


def source(path: str | Path | None, image: str = "image", **fields: Any) -> Source:
    return open_source("parquet", path, image=image, **fields)


def put(uri: str, columns: dict[str, Any] | pa.Table, rows_a_group: int = 2) -> None:
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=rows_a_group)
    folder, _, name = uri.rpartition("/")
    Store(folder).put(name, buffer.getvalue())


def by_id(parquet: Source) -> dict[str, SourceItem]:
    return {item.id: item for item in parquet.items()}


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "set") if request.param == "local" else f"memory://{uuid.uuid4().hex}/set"


class Watched:
    """A file that counts what is read of it."""

    def __init__(self, file: IO[bytes], log: Reads) -> None:
        self._file, self._log = file, log

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, *size: int) -> bytes:
        data = self._file.read(*size)
        self._log.bytes += len(data)
        return data


class Reads:
    """How many files were opened, and how many bytes read."""

    def __init__(self) -> None:
        self.opened = self.bytes = 0


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    log, opening = Reads(), Store.open

    @contextlib.contextmanager
    def watch(self: Store, key: str) -> Iterator[Any]:
        with opening(self, key) as file:
            log.opened += 1
            yield Watched(file, log)

    monkeypatch.setattr(Store, "open", watch)
    return log


# --- layouts


def test_hugging_face_layout(root: str) -> None:
    for shard in range(2):
        images = [{"bytes": photo(10 * shard + row), "path": f"{row}.png"} for row in range(ROWS)]
        columns = {
            "image": pa.array(images, HUGGING_FACE),
            "label": [shard] * ROWS,
            "text": [f"row {r}" for r in range(ROWS)],
        }
        put(f"{root}/data/train-0000{shard}-of-00002.parquet", columns)
    Store(root).put("README.md", b"about")
    parquet = source(root, caption="text", labels=["label"])
    items = by_id(parquet)
    assert sorted(items) == [f"data/train-0000{s}-of-00002/0000000{r}" for s in range(2) for r in range(ROWS)]
    item = items["data/train-00001-of-00002/00000003"]
    assert item.labels == {"label": 1}
    raw = parquet.read(item)
    assert (raw.image, raw.caption, raw.mask) == (photo(13), "row 3", None)


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
def test_a_file_of_bytes(root: str, kind: pa.DataType) -> None:
    put(f"{root}/a.parquet", {"jpg": pa.array([photo(r) for r in range(ROWS)], kind)})
    put(f"{root}/b.parquet", {"jpg": [photo()]})
    parquet = source(f"{root}/a.parquet", "jpg")
    items = by_id(parquet)
    assert sorted(items) == [f"a/0000000{r}" for r in range(ROWS)]
    assert [parquet.read(items[i]).image for i in sorted(items)] == [photo(r) for r in range(ROWS)]


def test_a_file_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put("./a.parquet", {"image": ["x.png"]})
    (tmp_path / "x.png").write_bytes(photo())
    parquet = source("a.parquet")
    assert parquet.read(by_id(parquet)["a/00000000"]).image == photo()


def test_a_folder_that_is_named_like_a_file(root: str) -> None:
    put(f"{root}/all.parquet/part-0.parquet", {"image": [photo()]})
    assert list(by_id(source(f"{root}/all.parquet"))) == ["part-0/00000000"]


def test_a_bucket(moto_s3: Callable[[], str]) -> None:
    bucket = moto_s3()
    Store(bucket).put("images/a.png", photo(1))
    put(
        f"{bucket}/lists/x.parquet", {"image": [f"{bucket}/images/a.png", "../images/a.png"], "caption": ["one", "two"]}
    )
    put(f"{bucket}/bytes/y.parquet", {"image": [photo(2)]})
    paths = source(f"{bucket}/lists/x.parquet", caption="caption", outside=True)
    raws = [paths.read(item) for item in paths.items()]
    assert [(raw.image, raw.caption) for raw in raws] == [(photo(1), "one"), (photo(1), "two")]
    everything = source(f"{bucket}/bytes")
    assert [everything.read(item).image for item in everything.items()] == [photo(2)]
    with pytest.raises(OSError, match="no-such-bucket-here"):
        paths.read(SourceItem("x", f"{bucket}/lists/x.parquet#0:s3://no-such-bucket-here/a.png", ""))


def test_captions_and_masks(root: str) -> None:
    columns = {"image": [photo()] * 3, "text": [" a face ", "  ", None], "mask": [photo(9), None, photo(8)]}
    put(f"{root}/a.parquet", columns)
    parquet = source(root, caption="text", mask="mask")
    raws = [parquet.read(item) for item in parquet.items()]
    assert [(raw.caption, raw.mask) for raw in raws] == [("a face", photo(9)), (None, None), (None, photo(8))]


# --- ids, etags, labels


def test_rows_and_ids_have_one_order(root: str) -> None:
    put(f"{root}/b.parquet", {"image": [photo()] * 12})
    put(f"{root}/a.parquet", {"image": [photo()]})
    ids = [item.id for item in source(root).items(5)]
    assert ids == ["a/00000000", "b/00000000", "b/00000001", "b/00000002", "b/00000003"]
    assert [item.id for item in source(root, limit=1).items(3)] == ids[:1]


def test_a_column_of_ids(root: str) -> None:
    put(f"{root}/a.parquet", {"image": [photo(r) for r in range(3)], "key": ["z", "x", "y"], "number": [30, 4, 5]})
    named = source(root, id="key")
    assert [item.id for item in named.items(2)] == ["x", "y"]
    assert named.read(by_id(named)["y"]).image == photo(2)
    assert sorted(by_id(source(root, id="number"))) == ["30", "4", "5"]


def test_ids_must_be_there_and_differ(root: str) -> None:
    put(f"{root}/a.parquet", {"image": [photo()] * 3, "key": ["x", None, "y"], "same": ["x", "y", "x"]})
    with pytest.raises(DataError, match=r"a\.parquet, row 1: source\.id 'key' is null"):
        list(source(root, id="key").items())
    with pytest.raises(DataError, match="lists the id 'x' twice"):
        listing(source(root, id="same"), None)


def test_an_etag_is_the_files_and_the_rows(root: str) -> None:
    def tags() -> list[str]:
        return [item.etag for item in source(root).items()] + [i.etag for i in source(f"{root}/a.parquet").items()]

    put(f"{root}/a.parquet", {"image": [photo(1)] * 2})
    before = tags()
    assert tags() == before
    assert len(set(before[:2])) == len(set(before[2:])) == 2
    put(f"{root}/a.parquet", {"image": [photo(1), photo(2)] * 40})
    assert not set(tags()) & set(before)


def test_labels_are_json(root: str) -> None:
    columns = {
        "number": [1, 2, None],
        "float": pa.array([0.5, math.nan, -math.inf], pa.float32()),
        "flag": [True, False, None],
        "text": ["a", "ä", ""],
        "category": pa.array(["cat", "dog", "cat"]).dictionary_encode(),
        "none": pa.nulls(3),
    }
    put(f"{root}/a.parquet", {"image": [photo()] * 3, **columns})
    labels = [dict(item.labels) for item in source(root, labels=list(columns)).items()]
    assert json.loads(json.dumps(labels, allow_nan=False)) == [
        {"number": 1, "float": 0.5, "flag": True, "text": "a", "category": "cat", "none": None},
        {"number": 2, "float": None, "flag": False, "text": "ä", "category": "dog", "none": None},
        {"number": None, "float": None, "flag": None, "text": "", "category": "cat", "none": None},
    ]


# --- what is read, and how often


@pytest.mark.parametrize("fields", [{}, {"id": "key", "labels": ["label"]}])
def test_listing_reads_no_images(root: str, reads: Reads, fields: dict[str, Any]) -> None:
    images = [os.urandom(200_000) for _ in range(10)]
    struct = pa.array([{"bytes": image, "path": "x.png"} for image in images], HUGGING_FACE)
    columns = {"image": struct, "plain": images, "key": [f"{r}" for r in range(10)], "label": [0] * 10}
    put(f"{root}/a.parquet", columns)
    for image in ("image", "plain"):
        assert len(list(source(root, image, **fields).items())) == 10
    assert reads.opened == 2
    assert 0 < reads.bytes < 200_000  # of 4 MB; a footer is looked for in the last 64 KiB


def test_listing_reads_the_paths_alone(root: str, reads: Reads) -> None:
    put(f"{root}/a.parquet", {"image": ["x.png"] * 4, "thumbnail": [os.urandom(200_000) for _ in range(4)]})
    assert len(list(source(root).items())) == 4
    assert 0 < reads.bytes < 100_000


def test_listing_opens_a_file_when_it_gets_there(root: str, reads: Reads) -> None:
    for name in "abc":
        put(f"{root}/{name}.parquet", {"image": [photo()]})
    next(source(root).items())
    assert reads.opened == 1


def test_a_row_group_is_fetched_once_for_all_threads(root: str, reads: Reads) -> None:
    images = [os.urandom(100_000) for _ in range(8)]
    put(f"{root}/a.parquet", {"image": images}, rows_a_group=4)
    parquet = source(root)
    items = sorted(parquet.items(), key=lambda item: item.id)
    reads.opened = reads.bytes = 0
    with ThreadPoolExecutor(8) as pool:
        assert [raw.image for raw in pool.map(parquet.read, items * 5)] == images * 5
    assert reads.opened == 3  # the footer, two groups
    assert 800_000 < reads.bytes < 900_000


def test_only_the_last_row_groups_are_kept(root: str, reads: Reads) -> None:
    put(f"{root}/a.parquet", {"image": [photo(r) for r in range(10)]})
    parquet = source(root)
    items = sorted(parquet.items(), key=lambda item: item.id)
    for item in items:
        parquet.read(item)
    fetched = reads.opened
    for item in reversed(items[-4:]):
        parquet.read(item)
    assert reads.opened == fetched
    assert parquet.read(items[0]).image == photo(0)
    assert reads.opened == fetched + 1


def test_images_named_by_path_need_no_row(root: str, reads: Reads) -> None:
    put(f"{root}/a.parquet", {"image": ["x.png"]})
    Store(root).put("x.png", photo())
    parquet = source(root)
    items = list(parquet.items())
    assert (parquet.read(items[0]).image, reads.opened) == (photo(), 1)


def test_pickles_without_what_it_holds(root: str) -> None:
    put(f"{root}/a.parquet", {"image": [os.urandom(100_000), photo(1)]})
    parquet = source(root)
    running = parquet.items()
    first = next(running)
    parquet.read(first)
    data = pickle.dumps(parquet)
    assert len(data) < 2000
    again = pickle.loads(data)
    assert again.read(list(again.items())[1]).image == parquet.read(next(running)).image == photo(1)


# --- paths


@pytest.fixture
def images(root: str) -> str:
    """A folder with images beside and above the folder of the parquet file, ``lists``."""
    for key in ("lists/near/a.png", "lists/b.png", "above/c.png", "lists-2/d.png"):
        Store(root).put(key, key.encode())
    return root


def read_path(folder: str, path: str | None, **fields: Any) -> bytes:
    put(f"{folder}/lists/x.parquet", {"image": pa.array([path], pa.string())})
    parquet = source(f"{folder}/lists", **fields)
    (item,) = parquet.items()
    return parquet.read(item).image


@pytest.mark.parametrize("path", ["near/a.png", "./near/a.png", "near/../near/a.png"])
def test_relative_paths(images: str, path: str) -> None:
    assert read_path(images, path) == b"lists/near/a.png"


def test_paths_start_at_their_files_folder(images: str) -> None:
    put(f"{images}/lists/x.parquet", {"image": ["b.png"]})
    parquet = source(images)
    assert parquet.read(by_id(parquet)["lists/x/00000000"]).image == b"lists/b.png"


def test_absolute_paths_and_uris(images: str, tmp_path: Path) -> None:
    (tmp_path / "e.png").write_bytes(b"e")
    assert read_path(images, str(tmp_path / "e.png")) == b"e"
    assert read_path(images, f"file://{tmp_path}/e.png") == b"e"
    elsewhere = f"memory://{uuid.uuid4().hex}"
    Store(elsewhere).put("f.png", b"f")
    assert read_path(images, f"{elsewhere}/f.png") == b"f"


@pytest.mark.parametrize(
    ("path", "key"), [("../above/c.png", "above/c.png"), ("near/../../lists-2/d.png", "lists-2/d.png")]
)
def test_paths_that_lead_out(images: str, path: str, key: str) -> None:
    with pytest.raises(OSError, match=r"leads out of .*/lists; set source\.outside=true"):
        read_path(images, path)
    assert read_path(images, path, outside=True) == key.encode()


def test_a_uri_that_leads_out(images: str) -> None:
    with pytest.raises(OSError, match="leads out"):
        read_path(images, f"{images}/lists/../above/c.png")


def test_the_uri_ends_like_the_image(images: str) -> None:
    put(f"{images}/lists/x.parquet", {"image": ["near/a.parquet#1:2.png"]})
    Store(images).put("lists/near/a.parquet#1:2.png", photo())
    parquet = source(images)
    (item,) = parquet.items()
    assert item.uri == f"{images}/lists/x.parquet#0:near/a.parquet#1:2.png"
    assert parquet.read(item).image == photo()


def test_hugging_face_paths_without_bytes(images: str) -> None:
    rows = [{"bytes": None, "path": "b.png"}, {"bytes": None, "path": None}, None]
    put(f"{images}/lists/x.parquet", {"image": pa.array(rows, HUGGING_FACE)})
    parquet = source(images)
    items = sorted(parquet.items(), key=lambda item: item.id)
    assert parquet.read(items[0]).image == b"lists/b.png"
    for item in items[1:]:
        with pytest.raises(OSError, match="'image' holds no image"):
            parquet.read(item)


def test_a_gone_image_has_vanished(images: str) -> None:
    with pytest.raises(FileNotFoundError):
        read_path(images, "near/gone.png")


@pytest.mark.parametrize("path", ["nul\0.png", "no-such-scheme://x/y.png", "s3:/", "b.png/c.png", "near", "x" * 300])
def test_names_that_are_no_path_are_the_rows_fault(tmp_path: Path, path: str) -> None:
    (tmp_path / "lists" / "near").mkdir(parents=True)
    (tmp_path / "lists" / "b.png").write_bytes(photo())
    with pytest.raises(OSError, match=r".") as error:
        read_path(str(tmp_path), path)
    assert not isinstance(error.value, ConnectionError | TimeoutError)


def test_a_lost_connection_is_nobodys_fault(images: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(self: Store, key: str) -> bytes:
        raise StorageError("lost") from ConnectionResetError()

    monkeypatch.setattr(Store, "read", lose)
    with pytest.raises(StorageError, match="lost"):
        read_path(images, "near/a.png")


# --- refusals


@pytest.mark.parametrize("column", [pa.array([None], pa.binary()), pa.array([None]).cast(pa.string()), pa.array([""])])
def test_rows_without_an_image_are_quarantined(root: str, column: pa.Array) -> None:
    put(f"{root}/a.parquet", {"image": column})
    (bad,) = Ingest(IngestConfig(size=64), MODELS)(batch_of(source(root)))
    assert isinstance(bad, Bad)
    assert bad.reason == "unreadable"
    assert "a.parquet#0 cannot be read: the column 'image' holds no image" in bad.message


@pytest.mark.parametrize("field", ["image", "id", "caption", "labels", "mask"])
def test_a_missing_column_is_named(root: str, field: str) -> None:
    put(f"{root}/a.parquet", {"image": [photo()], "subject": ["x"]})
    fields = {"image": "image", field: ["subjekt"] if field == "labels" else "subjekt"}
    with pytest.raises(
        UsageError, match=rf"source\.{field} 'subjekt' is no column of .*did you mean 'subject'.*image, subj"
    ):
        list(source(root, **fields).items())


@pytest.mark.parametrize(
    ("field", "column", "kind", "right"),
    [
        ("image", [1], "int64", "must be binary, a struct"),
        ("image", [{"path": "x"}], "struct", "must be binary, a struct"),
        ("id", [1.5], "double", "must be text or whole numbers"),
        ("id", [True], "bool", "must be text or whole numbers"),
        ("caption", [["a", "b"]], "list", "must be text"),
        ("labels", [["a", "b"]], "list", "must be text, numbers or booleans"),
        ("labels", [{"a": 1}], "struct", "must be text, numbers or booleans"),
        ("labels", [b"x"], "binary", "must be text, numbers or booleans"),
        ("mask", ["x.png"], "string", "must be binary"),
    ],
)
def test_a_column_of_another_type(root: str, field: str, column: list[Any], kind: str, right: str) -> None:
    put(f"{root}/a.parquet", {"image": [photo()], "odd": column})
    fields = {"image": "image", field: ["odd"] if field == "labels" else "odd"}
    with pytest.raises(DataError, match=rf"a\.parquet: source\.{field} 'odd' is of type {kind}.* it {right}"):
        list(source(root, **fields).items())


def test_every_file_is_checked(root: str) -> None:
    put(f"{root}/a.parquet", {"image": [photo()], "text": ["x"]})
    put(f"{root}/b.parquet", {"image": [photo()], "caption": ["x"]})
    with pytest.raises(UsageError, match=r"'text' is no column of .*b\.parquet"):
        list(source(root, caption="text").items())


@pytest.mark.parametrize("damage", ["empty", "no parquet", "cut off"])
def test_damaged_files_are_named(root: str, damage: str) -> None:
    put(f"{root}/a.parquet", {"image": [photo()] * 50})
    whole = Store(root).read("a.parquet")
    Store(root).put("a.parquet", {"empty": b"", "no parquet": b"text" * 100, "cut off": whole[:-100]}[damage])
    with pytest.raises(DataError, match=r"/a\.parquet is no parquet file, or is damaged"):
        list(source(root).items())


def test_damaged_columns(root: str) -> None:
    put(f"{root}/a.parquet", {"label": ["x" * 50], "image": [photo()]})
    good = list(source(root, labels=["label"]).items())
    whole = Store(root).read("a.parquet")
    Store(root).put("a.parquet", whole[:4] + b"\xff" * (len(whole) // 2 - 4) + whole[len(whole) // 2 :])
    with pytest.raises(DataError, match=r"/a\.parquet is no parquet file, or is damaged"):
        list(source(root, labels=["label"]).items())
    with pytest.raises(OSError, match=r"/a\.parquet is no parquet file, or is damaged"):
        source(root, labels=["label"]).read(good[0])


def test_text_that_is_not_utf8(root: str) -> None:
    odd = pa.array([b"\xff\xfe"]).view(pa.string())
    put(f"{root}/a.parquet", {"image": [photo()], "odd": odd})
    with pytest.raises(DataError, match=r"/a\.parquet is no parquet file, or is damaged: .*utf-8"):
        list(source(root, id="odd").items())
    parquet = source(root, caption="odd")
    with pytest.raises(OSError, match="utf-8"):
        parquet.read(next(parquet.items()))


def test_a_lost_connection_is_no_damage(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put(f"{root}/a.parquet", {"image": [photo()]})
    item = next(source(root).items())

    def lose(self: Watched, *size: int) -> bytes:
        raise ConnectionResetError(104, "reset by peer")

    monkeypatch.setattr(Watched, "read", lose)
    opening = Store.open

    @contextlib.contextmanager
    def watch(self: Store, key: str) -> Iterator[Any]:
        with opening(self, key) as file:
            yield Watched(file, Reads())

    monkeypatch.setattr(Store, "open", watch)
    for act in (lambda: list(source(root).items()), lambda: source(root).read(item)):
        with pytest.raises(StorageError, match="reset by peer"):
            act()


def test_what_is_gone_since_the_listing(root: str) -> None:
    put(f"{root}/a.parquet", {"image": [photo()] * 4})
    items = sorted(source(root).items(), key=lambda item: item.id)
    put(f"{root}/a.parquet", {"image": [photo()] * 2})
    assert source(root).read(items[1]).image == photo()
    with pytest.raises(FileNotFoundError, match="has 2 rows now"):
        source(root).read(items[2])
    Store(root).delete("a.parquet")
    with pytest.raises(FileNotFoundError):
        source(root).read(items[0])


def test_a_link_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").symlink_to(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"a\.parquet was listed but is gone"):
        list(source(tmp_path).items())


def test_no_parquet_there(root: str) -> None:
    Store(root).put("images/a.png", photo())
    with pytest.raises(DataError, match=r"no parquet file in '.*set' or its subfolders; looked for \*\.parquet"):
        list(source(root).items())
    for gone in (f"{root}/nowhere", f"{root}/nowhere/x.parquet"):
        with pytest.raises(DataError, match="nowhere"):
            list(source(gone).items())
    with pytest.raises(UsageError, match=r"source\.path"):
        list(source(None).items())


def test_an_empty_table_has_no_items(root: str) -> None:
    put(f"{root}/a.parquet", {"image": pa.array([], pa.binary())})
    with pytest.raises(
        DataError, match=r"source 'parquet' has no items .* A file \*\.parquet, or all of them in a folder"
    ):
        listing(source(root), None)
