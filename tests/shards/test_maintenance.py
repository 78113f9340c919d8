"""ls, verify and gc."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from e4t_core.errors import DataError
from e4t_core.storage import Store
from pipelines.loader import ShardDataset
from pipelines.shards import layout
from pipelines.shards.maintenance import gc, ls, verify
from pipelines.shards.manifest import load_manifest
from tests.shards.fakes import Join, Read, Upper, chain, folder_source, make, write_texts
from tests.shards.support import build

DAY = 86400.0


def keys(store: Store) -> set[str]:
    return {e.key for e in store.list(unfinished=True)}


def age(store: Store, seconds: float, *only: str) -> None:
    """Make local objects older."""
    for entry in store.list(unfinished=True):
        if not only or entry.key.startswith(only):
            then = entry.modified - seconds
            os.utime(f"{store.uri}/{entry.key}", (then, then))


def test_ls_sums_up_the_newest_version(store: Store, src: Path) -> None:
    write_texts(src, {"q-bad.txt": "bad"})
    build(store, folder_source(src), chain())
    summary = ls(store)
    assert (summary["version"], summary["versions"]) == (2, [1, 2])
    assert (summary["planned"], summary["samples"], summary["quarantined"]) == (11, 10, 1)
    assert summary["reasons"] == {"bad_text": 1}
    assert summary["stages"]["upper"] == {"shards": 4, "samples": 10, "quarantined": 0, "bytes": 4 * 10240}
    with pytest.raises(DataError, match="no manifest"):
        ls(Store(store.uri + "/nothing"))


# --- verify


def test_verify_finds_nothing_in_a_sound_store(store: Store) -> None:
    report = verify(store)
    assert (report["problems"], report["orphans"], report["objects"]) == ([], [], 10)
    assert report["bytes"] > 9 * 10240


@pytest.mark.parametrize("place", ["local", "s3"])
def test_verify_names_every_damage(place: str, store: Store, src: Path, moto_s3: Callable[[], str]) -> None:
    if place == "s3":
        store = Store(moto_s3() + "/x")
        build(store, folder_source(src), chain())
    manifest = load_manifest(store)
    flipped, cut, gone = manifest.refs("read")[0].key, manifest.refs("upper")[1].key, manifest.refs("join")[2].key
    data = bytearray(store.read(flipped))
    data[600] ^= 1
    store.put(flipped, bytes(data))
    store.put(cut, store.read(cut)[:5000])
    store.delete(gone)
    store.put(f"{layout.DATA}/read/000000-0123456789abcdef.tar", b"an orphan")
    report = verify(store)
    problems = sorted(report["problems"])
    assert len(problems) == 3
    for problem, key, words in zip(
        problems, (gone, flipped, cut), ("is missing", "is damaged: SHA-256", "has 5000 bytes, 10240 were"), strict=True
    ):
        assert store.url(key) in problem
        assert words in problem
        assert "preprocess again" in problem
    assert report["orphans"] == ["data/read/000000-0123456789abcdef.tar"]


def test_what_verify_says_to_do_mends_the_store(store: Store, src: Path) -> None:
    key = load_manifest(store).refs("read")[0].key
    store.put(key, bytes(store.size(key) or 0))
    [problem] = verify(store)["problems"]
    store.delete(problem.split("delete ")[1].split(" and run")[0].removeprefix(store.uri + "/"))
    manifest, made = build(store, folder_source(src), chain())
    assert made == [("read", 0)]
    assert manifest.version == 1
    assert verify(store)["problems"] == []


def test_verify_misses_a_deleted_commit_of_a_version(store: Store) -> None:
    ref = load_manifest(store).refs("upper")[1]
    store.delete(layout.commit_key("upper", 1, ref.fingerprint))
    [problem] = verify(store)["problems"]
    assert f"commits/upper/000001-{ref.fingerprint}.json" in problem


def test_verify_names_a_damaged_index_and_commit(store: Store) -> None:
    store.put(load_manifest(store).head["index"]["key"], b"x")
    ref = load_manifest(store).refs("upper")[1]
    store.put(layout.commit_key("upper", 1, ref.fingerprint), b"{}")
    problems = verify(store)["problems"]
    assert any("indexes/" in p and "damaged" in p for p in problems)
    assert any("000001-" in p and "not a commit" in p for p in problems)


# --- gc


def test_gc_keeps_all_that_versions_need(store: Store, src: Path) -> None:
    (src / "p00-000.txt").write_text("other")
    build(store, folder_source(src), chain())
    before = keys(store)
    age(store, 10 * DAY)
    assert gc(store, DAY)["objects"] == 0
    assert gc(store, 0)["objects"] == 0
    assert keys(store) == before
    for version in (1, 2):
        dataset = ShardDataset.open(store.uri, version)
        assert len(dataset.samples(list(range(10)), ("read", "upper", "join"))) == 10


def test_gc_takes_what_nothing_needs_once_it_is_old(store: Store, src: Path) -> None:
    needed = keys(store)
    build(store, folder_source(src), [make(Read), make(Upper, text="!"), make(Join)])
    store.delete(layout.numbered_key(layout.MANIFESTS, 2))  # the second version is withdrawn
    store.put("attempts/read/000000-dead.json", b"{}")
    store.put("data/read/000009-orphan.tar", b"x" * 100)
    Path(store.uri, "data/read/000001-x.tar.tmp-abc").write_bytes(b"half")
    rubbish = keys(store) - needed
    assert len(rubbish) == 16
    assert gc(store, DAY)["objects"] == 0  # too young
    age(store, 2 * DAY)
    listed = gc(store, DAY, dry_run=True)
    assert set(listed["keys"]) == rubbish
    assert listed["bytes"] > 6 * 10240
    assert keys(store) == needed | rubbish
    assert gc(store, DAY)["objects"] == 16
    assert keys(store) == needed
    assert verify(store)["problems"] == []


def test_gc_spares_a_long_run_that_is_under_way(store: Store, src: Path) -> None:
    manifest = layout.numbered_key(layout.MANIFESTS, 1)
    store.delete(manifest)  # as if the run had not got that far
    age(store, 3 * DAY, "commits/read", "data", "indexes", "plans")
    left = gc(store, DAY)["keys"]
    assert [k for k in left if k.startswith(("commits", "data", "plans"))] == []
    age(store, 3 * DAY)
    assert {k.split("/")[0] for k in gc(store, DAY)["keys"]} == {"commits", "data"}


def test_gc_leaves_what_was_made_young_again_meanwhile(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "data/read/000009-orphan.tar"
    store.put(key, b"x")
    age(store, 3 * DAY, key)
    from pipelines.shards import maintenance

    real = maintenance._delete_if_unchanged

    def rewritten(store: Store, entry: object) -> None:
        store.put(key, b"x")
        real(store, entry)  # type: ignore[arg-type]

    monkeypatch.setattr(maintenance, "_delete_if_unchanged", rewritten)
    gc(store, DAY)
    assert store.exists(key)


def test_gc_on_s3(src: Path, moto_s3: Callable[[], str]) -> None:
    store = Store(moto_s3() + "/x")
    build(store, folder_source(src), chain())
    store.put("data/read/000009-orphan.tar", b"x" * 100)
    assert gc(store, 3600)["objects"] == 0
    time.sleep(2.1)  # S3 tells times in seconds
    assert gc(store, 1)["keys"] == ["data/read/000009-orphan.tar"]
    assert verify(store)["problems"] == verify(store)["orphans"] == []
