"""LSUN's published layout in miniature: keys and values of an LMDB environment, damage, copies of remote ones."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Barrier
from typing import Any

import lmdb
import pytest
from PIL import Image

from e4t_core.errors import DataError, StorageError, UsageError
from e4t_core.storage import Store
from pipelines.shards.plan import listing
from pipelines.sources import Source, SourceItem, lsun
from pipelines.stages import Bad
from pipelines.stages.ingest import Ingest, IngestConfig
from tests.stages.helpers import MODELS, batch_of
from tests.support.sources import open_source

ROOT = Path(__file__).parents[2]
LAST = b"\xff" * 1_000_000
"""An image of many pages; written last, it is the end of the file."""


def photo(kind: str, level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), (level, 100, 50)).save(buffer, kind)
    return buffer.getvalue()


def key(i: int) -> bytes:
    """Like the published ones: 40 hexadecimal digits."""
    return hashlib.sha1(str(i).encode()).hexdigest().encode()


IMAGES = {key(i): photo("WEBP" if i % 2 else "JPEG", i) for i in range(20)}


def write(folder: str | Path, images: Mapping[bytes, bytes]) -> Path:
    """An environment with its ``data.mdb`` and ``lock.mdb``; as LSUN's, its map is far larger than its data."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    with lmdb.open(str(folder), map_size=1 << 36) as environment, environment.begin(write=True) as transaction:
        for name, image in images.items():
            transaction.put(name, image)
    return Path(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "cat_train_lmdb", IMAGES)


@pytest.fixture
def remote(folder: Path) -> str:
    """The same environment where it cannot be mapped."""
    uri = f"memory://{uuid.uuid4().hex}/cat_train_lmdb"
    Store(uri).put_folder(folder)
    return uri


source = partial(open_source, "lsun")


def contents(place: Source) -> dict[bytes, bytes]:
    return {item.id.encode(): place.read(item).image for item in place.items()}


def start(code: str, *arguments: str | Path) -> subprocess.Popen[str]:
    """A process of its own, for what may kill it."""
    preamble = "import sys\nfrom pipelines.sources.lsun import Lsun, LsunConfig\n"
    command = [sys.executable, "-c", preamble + textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def output(process: subprocess.Popen[str]) -> list[str]:
    text, errors = process.communicate(timeout=120)
    assert process.returncode == 0, f"exit code {process.returncode}: {errors}"
    return text.splitlines()


# --- what is published


def test_published_layout(folder: Path) -> None:
    cats = source(folder)
    items = {item.id.encode(): item for item in cats.items()}
    assert set(items) == set(IMAGES)
    for name, item in items.items():
        assert item.labels == {"class": "cat"}
        assert item.uri == f"{folder}/data.mdb#{name.decode()}"
    assert contents(cats) == IMAGES
    assert sorted(os.listdir(folder)) == ["data.mdb", "lock.mdb"]


def test_its_images_are_ingested(folder: Path) -> None:
    (folder / "lock.mdb").unlink()  # some copies come without
    members = Ingest(IngestConfig(size=32), MODELS)(batch_of(source(folder)))
    assert len(members) == len(IMAGES)
    assert not [bad for bad in members if isinstance(bad, Bad)]


@pytest.mark.parametrize(
    ("name", "fields", "label"),
    [
        ("cat", {}, "cat"),
        ("church_outdoor_train_lmdb", {}, "church_outdoor"),
        ("bedroom_val_lmdb", {}, "bedroom"),
        ("test_lmdb", {}, "test"),
        ("download", {"category": "dining_table"}, "dining_table"),
    ],
)
def test_categories(tmp_path: Path, name: str, fields: dict[str, str], label: str) -> None:
    place = source(f"{write(tmp_path / name, IMAGES)}/", **fields)
    assert {item.labels["class"] for item in place.items()} == {label}


def test_limit_takes_the_first_ids(folder: Path) -> None:
    first = sorted(name.decode() for name in IMAGES)[:4]
    assert [item.id for item in source(folder).items(4)] == first
    assert [item.id for item in source(folder, limit=3).items(4)] == first[:3]


def test_listing_reads_no_image(tmp_path: Path) -> None:
    """All but the first page of the last image are cut off below the open environment: a look at them would kill."""
    write(tmp_path / "cat", {b"a": b"x", b"b": LAST})
    code = """
        import os
        items = Lsun(LsunConfig(name="lsun", path=sys.argv[1])).items()
        found = [next(items)]
        file = sys.argv[1] + "/data.mdb"
        os.truncate(file, os.path.getsize(file) - 900_000)
        print(*(item.id for item in [*found, *items]))
        """
    assert output(start(code, tmp_path / "cat")) == ["a b"]


def test_etags_are_the_environments_state(folder: Path, tmp_path: Path) -> None:
    def tags(path: Path) -> set[str]:
        return {item.etag for item in source(path).items()}

    before = tags(folder)
    assert len(before) == 1
    assert tags(Path(shutil.copytree(folder, tmp_path / "elsewhere"))) == before
    states = [before]
    for level in range(5):  # later writes use freed pages, and the file keeps its size
        write(folder, {key(3): bytes([level]) * len(IMAGES[key(3)])})
        states.append(tags(folder))
    assert len(set.union(*states)) == len(states)


# --- one environment in a process


def test_pickles_without_its_environment(folder: Path) -> None:
    cats = source(folder)
    running = cats.items()
    item = next(running)
    cats.read(item)
    again = pickle.loads(pickle.dumps(cats))
    assert again.read(item).image == IMAGES[item.id.encode()]
    assert contents(again) == contents(source(folder)) == IMAGES
    assert len(list(running)) == len(IMAGES) - 1


def test_the_last_source_that_goes_closes_it(folder: Path) -> None:
    one, other = source(folder), source(folder)
    item = next(one.items())
    other.read(item)
    del one
    assert other.read(item).image == IMAGES[item.id.encode()]
    with pytest.raises(lmdb.Error, match="already open"):
        lmdb.open(str(folder), readonly=True, lock=False)
    del other
    lmdb.open(str(folder), readonly=True, lock=False).close()


def test_one_thread_opens_what_another_lets_go_of(folder: Path) -> None:
    """The name is free before the environment is closed, and LMDB opens none twice."""
    start = Barrier(8)

    def first_of(_: int) -> int:
        start.wait()
        return sum(len(list(source(folder).items(1))) for _ in range(400))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(first_of, range(8))) == [400] * 8
    finally:
        sys.setswitchinterval(before)


def test_threads_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, opening = [], lsun._checked

    def slowly(file: str, size: int) -> Any:
        opened.append(file)
        time.sleep(0.05)
        return opening(file, size)

    monkeypatch.setattr(lsun, "_checked", slowly)
    sources = [source(folder) for _ in range(4)]
    items = [SourceItem(name.decode(), "", "") for name in IMAGES]
    together = Barrier(8)

    def read(i: int) -> list[bytes]:
        together.wait(60)
        return [sources[i % 4].read(item).image for item in items * 5]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read, range(8))) == [[*IMAGES.values()] * 5] * 8
    assert len(opened) == 1


def test_a_gone_key_has_vanished(folder: Path) -> None:
    for gone in ("0" * 40, "k" * 600):
        with pytest.raises(FileNotFoundError, match="has no such key"):
            source(folder).read(SourceItem(gone, f"data.mdb#{gone}", "1"))


# --- damage


def test_cut_off_files_are_refused_before_a_page_is_read(tmp_path: Path) -> None:
    whole = write(tmp_path / "cat", {**IMAGES, b"f" * 40: LAST})
    data = (whole / "data.mdb").read_bytes()
    cuts = [len(data) - 1, len(data) // 2, 8192, 8191, 4096, 100]
    for cut in cuts:
        (tmp_path / f"cut{cut}").mkdir()
        (tmp_path / f"cut{cut}" / "data.mdb").write_bytes(data[:cut])
    code = """
        from e4t_core.errors import DataError
        from pipelines.sources.base import SourceItem
        for path in sys.argv[1:]:
            place = Lsun(LsunConfig(name="lsun", path=path))
            for act in (lambda: list(place.items()), lambda: place.read(SourceItem("f" * 40, "", ""))):
                try:
                    act()
                except DataError as error:
                    print(error)
        """
    lines = output(start(code, *(tmp_path / f"cut{cut}" for cut in cuts)))
    assert len(lines) == 2 * len(cuts)
    assert f"cut8192/data.mdb is cut off: it has 8192 bytes, and its pages need {len(data)}; copy it again" in lines[4]
    assert all("copy it again" in line for line in lines)


@pytest.mark.parametrize(("data", "message"), [(b"", "is empty"), (b"text " * 4000, "cannot be opened as an LMDB")])
def test_files_that_are_no_environment(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "data.mdb").write_bytes(data)
    with pytest.raises(DataError, match=rf"data\.mdb {message}.*copy it again"):
        list(source(tmp_path).items())


def test_a_damaged_page(folder: Path) -> None:
    data = (folder / "data.mdb").read_bytes()
    names = sorted(IMAGES)
    pages = {data.index(name) // 4096 for name in (names[0], names[-1])}
    for page in pages:
        data = data[: page * 4096 + 10] + b"\xff" * 4 + data[page * 4096 + 14 :]
    (folder / "data.mdb").write_bytes(data)
    code = """
        from pipelines.sources.base import SourceItem
        place = Lsun(LsunConfig(name="lsun", path=sys.argv[1]))
        for act in (lambda: list(place.items()), lambda: place.read(SourceItem(sys.argv[2], "", ""))):
            try:
                act()
            except Exception as error:
                print(type(error).__name__, error)
        """
    listed, read = output(start(code, folder, names[0].decode()))
    assert listed.startswith(f"DataError {folder}/data.mdb is damaged: ")
    assert read.startswith("OSError the environment is damaged: ")


def test_keys_that_are_not_text(tmp_path: Path) -> None:
    write(tmp_path / "cat", {b"a": b"x", b"\xff\xfe": b"x"})
    with pytest.raises(DataError, match=r"data\.mdb has the key b'\\xff\\xfe', which is not UTF-8"):
        list(source(tmp_path / "cat").items())


def test_an_empty_environment_has_no_items(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"source 'lsun' has no items .* A folder with data\.mdb"):
        listing(source(write(tmp_path / "cat", {})), None)


# --- nothing there


def test_a_folder_of_environments_names_them(tmp_path: Path) -> None:
    for name in ("cat", "dog_lmdb"):
        write(tmp_path / "local" / name, IMAGES)
    uri = f"memory://{uuid.uuid4().hex}/lsun"
    Store(uri).put_folder(tmp_path / "local")
    for place in (source(tmp_path / "local"), source(uri, cache=tmp_path / "cache")):
        with pytest.raises(
            DataError, match=r"no data\.mdb in '.*'; .*; environments are in its folders cat, dog_lmdb$"
        ):
            list(place.items())


def test_wrong_paths(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "photos").mkdir()
    for place in (source(tmp_path / "photos"), source(f"memory://{uuid.uuid4().hex}/x", cache=tmp_path)):
        with pytest.raises(
            DataError, match=r"no data\.mdb in .* the folder of one LMDB environment, such as cat_train"
        ):
            list(place.items())
    with pytest.raises(DataError, match="nowhere' does not exist"):
        list(source(tmp_path / "nowhere").items())
    with pytest.raises(DataError, match=r"data\.mdb' is a file; give the folder"):
        list(source(folder / "data.mdb").items())
    with pytest.raises(UsageError, match=r"source\.path"):
        list(source(None).items())


# --- copies


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Where the pieces start that are copied; they are small."""
    starts: list[int] = []
    reading = Store.read_ranges

    def watch(self: Store, ranges: Any) -> list[bytes]:
        starts.extend(begin for _, begin, _ in ranges)
        return reading(self, ranges)

    monkeypatch.setattr(lsun, "_PIECE", 10_000)
    monkeypatch.setattr(Store, "read_ranges", watch)
    return starts


def test_a_remote_environment_needs_a_cache(remote: str) -> None:
    with pytest.raises(UsageError, match=r"is remote, and LMDB maps local files: --set source\.cache="):
        list(source(remote).items())
    with pytest.raises(UsageError, match=r"source\.cache: 's3://b/c' .*must be a local folder"):
        source(remote, cache="s3://b/c")


def test_a_remote_environment_is_copied_once(remote: str, tmp_path: Path, pieces: list[int]) -> None:
    cats = source(remote, cache=tmp_path / "new" / "cache")
    assert contents(cats) == IMAGES
    item = next(cats.items())
    assert (item.labels, item.uri) == ({"class": "cat"}, f"{remote}/data.mdb#{item.id}")
    size = Store(remote).size("data.mdb")
    assert size is not None
    assert pieces == list(range(0, size, 10_000))
    again = pickle.loads(pickle.dumps(cats))
    del cats
    assert contents(again) == contents(source(remote, cache=tmp_path / "new" / "cache")) == IMAGES
    assert len(pieces) == len(range(0, size, 10_000))


def test_threads_copy_once(remote: str, tmp_path: Path, pieces: list[int]) -> None:
    together = Barrier(6)

    def copy(_: int) -> dict[bytes, bytes]:
        together.wait(60)
        return contents(source(remote, cache=tmp_path / "cache"))

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(copy, range(6))) == [IMAGES] * 6
    assert len(pieces) == len(set(pieces))
    (name,) = [path.name for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"]
    assert name.startswith("cat_train_lmdb-")


def test_processes_copy_once(folder: Path, tmp_path: Path, moto_s3: Callable[[], str]) -> None:
    uri = f"{moto_s3()}/lsun/cat_train_lmdb"
    Store(uri).put_folder(folder)
    code = """
        from e4t_core.storage import Store
        from pipelines.sources import lsun
        lsun._PIECE = 4096
        reading, pieces = Store.read_ranges, []
        Store.read_ranges = lambda self, ranges: pieces.extend(ranges) or reading(self, ranges)
        place = Lsun(LsunConfig(name="lsun", path=sys.argv[1], cache=sys.argv[2]))
        print("ready", flush=True)
        sys.stdin.readline()
        print(len([place.read(item) for item in place.items()]), len(pieces))
        """
    processes = [start(code, uri, tmp_path / "cache") for _ in range(2)]
    results = [[int(number) for number in output(process)[-1].split()] for process in processes]
    assert [images for images, _ in results] == [len(IMAGES)] * 2
    assert sum(pieces for _, pieces in results) == -(-(folder / "data.mdb").stat().st_size // 4096)


def test_a_changed_environment_is_copied_anew(remote: str, tmp_path: Path, folder: Path) -> None:
    assert contents(source(remote, cache=tmp_path / "cache")) == IMAGES
    more = {**IMAGES, b"0" * 40: b"new"}
    Store(remote).put("data.mdb", (write(tmp_path / "more", more) / "data.mdb").read_bytes())
    assert contents(source(remote, cache=tmp_path / "cache")) == more


def test_a_copy_that_was_killed_leaves_nothing_to_trust(remote: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert contents(source(remote, cache=cache)) == IMAGES
    (copy,) = cache.glob("*.mdb")
    copy.rename(f"{copy}.part")
    os.truncate(f"{copy}.part", 5000)
    assert contents(source(remote, cache=cache)) == IMAGES
    assert sorted(path.suffix for path in cache.iterdir()) == [".lock", ".mdb"]


def test_a_copy_is_whole_or_not_there(remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, reading = tmp_path / "cache", Store.read_ranges

    def changed(self: Store, ranges: Any) -> list[bytes]:
        data = reading(self, ranges)
        Store(remote).put("data.mdb", b"other")
        return data

    for lie in (lambda self, ranges: [data[:-1] for data in reading(self, ranges)], changed):
        monkeypatch.setattr(Store, "read_ranges", lie)
        with pytest.raises(StorageError, match=r"data\.mdb changed while it was copied; run the same command again"):
            list(source(remote, cache=cache).items())
        assert {path.suffix for path in cache.iterdir()} == {".lock"}


def test_a_cut_off_remote_is_refused_after_the_copy(remote: str, tmp_path: Path) -> None:
    data = Store(remote).read("data.mdb")
    Store(remote).put("data.mdb", data[:-4096])
    with pytest.raises(DataError, match="is cut off"):
        list(source(remote, cache=tmp_path / "cache").items())


def test_a_cache_that_cannot_be_written(remote: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"cannot copy memory://.*data\.mdb to source\.cache '.*file'"):
        list(source(remote, cache=tmp_path / "file").items())
