"""The store on local disk, in memory and on S3: atomic writes, exclusive creates, refusals that say what to do."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from e4t_core.errors import StorageError, UsageError
from e4t_core.storage import Store


@pytest.fixture(params=["local", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return Store(tmp_path / "store")
    if request.param == "memory":
        return Store(f"memory://{uuid.uuid4().hex}")
    return Store(request.getfixturevalue("moto_s3")() + "/deep/prefix")


def test_what_is_put_is_read(store: Store) -> None:
    store.put("a/b.bin", b"one")
    store.put("a/b.bin", b"two!")
    store.put("a/c.bin", b"")
    assert store.read("a/b.bin") == b"two!"
    assert store.size("a/b.bin") == 4
    assert store.size("a/missing") is None
    assert [(e.key, e.size) for e in store.list("a")] == [("a/b.bin", 4), ("a/c.bin", 0)]
    assert [store.entry(e.key) for e in store.list("a")] == list(store.list("a"))
    assert store.entry("a") is store.entry("a/missing") is None  # a folder, nothing
    assert list(store.list("nothing/here")) == []
    assert store.exists("a/c.bin")
    assert not store.exists("a/d.bin")


def test_missing_objects_are_file_not_found(store: Store) -> None:
    with pytest.raises(FileNotFoundError):
        store.read("nothing")
    with pytest.raises(FileNotFoundError):
        store.read_ranges([("nothing", 0, 1)])
    store.delete("nothing")


def test_ranges_come_in_the_order_asked(store: Store) -> None:
    store.put("x", bytes(range(100)))
    store.put("y", bytes(range(100, 200)))
    ranges = [("y", 5, 9), ("x", 90, 100), ("x", 0, 1), ("y", 0, 3)]
    assert store.read_ranges(ranges) == [bytes(range(105, 109)), bytes(range(90, 100)), b"\0", bytes([100, 101, 102])]
    assert store.read_ranges([]) == []


def test_parts_are_read_through_a_file(store: Store) -> None:
    store.put("x", bytes(range(100)))
    with store.open("x") as file:
        file.seek(40)
        assert file.read(3) == bytes([40, 41, 42])


def test_exactly_one_of_many_creators_wins(store: Store) -> None:
    start = threading.Barrier(8)

    def create(i: int) -> bool:
        start.wait()
        return store.create("only/one", f"writer {i}".encode() * 1000)

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(create, range(8)))
    if store.uri.startswith("memory"):  # fsspec's memory file system checks and writes in two steps
        assert any(won)
    else:
        assert won.count(True) == 1
        assert store.read("only/one") == f"writer {won.index(True)}".encode() * 1000
    assert not store.create("only/one", b"late")


def test_list_follows_other_writers(store: Store) -> None:
    assert list(store.list("a")) == []
    Store(store.uri).put("a/x", b"1")
    assert [e.key for e in store.list("a")] == ["a/x"]
    Store(store.uri).put("a/x", b"123")
    assert [e.size for e in store.list("a")] == [3]


def test_etag_changes_with_content(store: Store) -> None:
    store.put("a/x", b"1")
    before = next(store.list("a"))
    store.put("a/x", b"22")
    assert next(store.list("a")).etag != before.etag
    assert before.modified > 1e9


def test_travels_to_other_processes(store: Store) -> None:
    import pickle

    assert pickle.loads(pickle.dumps(store)).uri == store.uri


def test_a_writer_that_is_killed_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    code = (
        "import os, e4t_core.storage as s\n"
        "os.link = os.replace = lambda *a: os._exit(9)\n"
        f"s.Store({str(tmp_path)!r}).create('a/x', b'data')\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    store = Store(tmp_path)
    assert list(store.list("a")) == []
    assert [e.size for e in store.list("a", unfinished=True)] == [4]
    assert store.create("a/x", b"data")


# --- refusals


def test_a_full_disk_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store = Store(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=rf"cannot write {tmp_path}/a/x: no space is left there; free some"):
        store.put("a/x", b"data")
    monkeypatch.undo()
    assert list(store.list("a", unfinished=True)) == []


def test_a_file_over_the_limit_says_so(tmp_path: Path) -> None:
    code = (
        "import resource, e4t_core.storage as s\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        f"s.Store({str(tmp_path)!r}).put('x', bytes(5000))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "StorageError: cannot write" in done.stderr
    assert "ulimit" in done.stderr
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000


def test_a_file_in_the_way_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file")
    for act in (store.put, store.create):
        with pytest.raises(StorageError, match=r"cannot write .*file/x.*a file is in the way"):
            act("x", b"")


@pytest.mark.parametrize("act", ["put", "create", "list", "read", "size"])
def test_a_missing_bucket_says_so(act: str, moto_s3: Callable[[], str]) -> None:
    moto_s3()
    store = Store("s3://no-such-bucket-here/x")
    acts: dict[str, Callable[[], Any]] = {
        "put": lambda: store.put("k", b""),
        "create": lambda: store.create("k", b""),
        "list": lambda: list(store.list("k")),
        "read": lambda: store.read("k"),
        "size": lambda: store.size("k"),
    }
    with pytest.raises(StorageError, match=r"s3://no-such-bucket-here/x.*no such bucket"):
        acts[act]()


def test_no_server_says_so(moto_s3: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        with pytest.raises(StorageError, match=r"cannot write s3://b/k: .*127\.0\.0\.1:9"):
            Store("s3://b").put("k", b"")
    finally:
        s3fs.S3FileSystem.clear_instance_cache()


class _Refusing:
    """Answers ``pipe_file`` as S3 would, one answer a call; the last one stays."""

    def __init__(self, *codes: str) -> None:
        self.codes, self.calls = list(codes), 0

    def __call__(self, path: str, data: bytes, **_: object) -> None:
        from botocore.exceptions import ClientError
        from s3fs.errors import translate_boto_error

        self.calls += 1
        code = self.codes.pop(0) if len(self.codes) > 1 else self.codes[0]
        if code != "ok":
            raise translate_boto_error(ClientError({"Error": {"Code": code, "Message": f"{code}!"}}, "PutObject"))


def test_a_refused_write_names_place_and_cure(moto_s3: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(moto_s3())
    monkeypatch.setattr(store.fs, "pipe_file", _Refusing("AccessDenied"))
    for act in (store.put, store.create):
        with pytest.raises(StorageError, match=rf"cannot write {store.uri}/k: permission denied \(AccessDenied\)"):
            act("k", b"")


def test_create_understands_412_without_its_condition(
    moto_s3: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(moto_s3())
    monkeypatch.setattr(store.fs, "pipe_file", _Refusing("PreconditionFailed"))
    assert store.create("k", b"") is False


def test_create_tries_again_after_409(moto_s3: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(moto_s3())
    monkeypatch.setattr("time.sleep", lambda _: None)
    conflict = "ConditionalRequestConflict"
    for codes, won in ((("ok",), True), (("PreconditionFailed",), False)):
        answers = _Refusing(conflict, conflict, *codes)
        monkeypatch.setattr(store.fs, "pipe_file", answers)
        assert store.create("k", b"") is won
        assert answers.calls == 3
    monkeypatch.setattr(store.fs, "pipe_file", _Refusing(conflict))
    with pytest.raises(StorageError, match="ConditionalRequestConflict"):
        store.create("k", b"")


def test_what_ships_with_the_package_is_a_store() -> None:
    shipped = Store("bundled:tiny")
    assert shipped.uri == "bundled:tiny"
    assert (shipped / "unet").read("config.json") == shipped.read("unet/config.json")
    with pytest.raises(UsageError, match="did you mean 'tiny'"):
        Store("bundled:tinny")
    writes = (shipped.put, ("x", b"")), (shipped.create, ("x", b"")), (shipped.delete, ("README.md",))
    for write, words in writes:
        with pytest.raises(StorageError, match="it is part of the installed package; use another URI"):
            write(*words)
    assert not shipped.exists("x")
    assert shipped.exists("README.md")


def test_a_bucket_is_listed_page_by_page_as_the_caller_goes(
    moto_s3: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("e4t_core.storage._PAGE", 3)
    bucket = Store(moto_s3())
    names = sorted(["a", "b-1", "b/1", "b/2", "b/c/3", "b.4", "ü", "z/"])
    for name in names:
        bucket.fs.pipe_file(f"{bucket.root}/{name}", name.encode())
    asked = []
    call = type(bucket.fs).call_s3

    def counted(fs: object, method: str, **given: object) -> object:
        asked.append(method)
        return call(fs, method, **given)

    monkeypatch.setattr(type(bucket.fs), "call_s3", counted)
    listing = bucket.list()
    assert next(listing).key == "a"
    assert asked == ["list_objects_v2"]
    assert ["a", *(entry.key for entry in listing)] == [name for name in names if not name.endswith("/")]
    assert len(asked) == 3
    assert [(e.key, e.size) for e in bucket.list("b")] == [("b/1", 3), ("b/2", 3), ("b/c/3", 5)]
    entry = bucket.entry("b/1")
    assert [e for e in bucket.list("b") if e.key == "b/1"] == [entry]
    assert list(bucket.list("nothing")) == []
