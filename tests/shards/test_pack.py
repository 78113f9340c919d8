"""Packs: which samples go in, under which names, the same bytes again, resumed where they stopped."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from e4t_core.errors import DataError, UsageError
from e4t_core.schema import Sample
from e4t_core.storage import Store
from pipelines.loader import ShardDataset
from pipelines.shards.manifest import load_manifest
from pipelines.shards.pack import Packing, pack
from pipelines.shards.plain import plain
from tests.shards.fakes import chain, folder_source, write_texts
from tests.shards.support import build


def packing(
    store: Store, columns: Sequence[str] = (), most: int = 4, mb: float = 1.0, version: int | None = None
) -> Packing:
    return Packing.of(store, version, columns, most, mb)


def content(to: Store) -> dict[str, bytes]:
    return {entry.key: to.read(entry.key) for entry in to.list(unfinished=True)}


def files(to: Store) -> dict[str, bytes]:
    """Member name -> bytes of all tars, in order."""
    out: dict[str, bytes] = {}
    for name in sorted(key for key in content(to) if key.endswith(".tar")):
        with tarfile.open(fileobj=io.BytesIO(to.read(name))) as tar:
            for info in tar.getmembers():
                assert info.name not in out
                out[info.name] = tar.extractfile(info).read()  # type: ignore[union-attr]
    return out


class Stopped(Exception):
    pass


def stop_after(tars: int) -> Callable[[int], None]:
    left = iter(range(tars))

    def stop(samples: int) -> None:
        if next(left) == tars - 1:
            raise Stopped

    return stop


# --- what goes in


def test_every_good_sample_is_in_once_with_all_its_members(store: Store, src: Path, tmp_path: Path) -> None:
    write_texts(src, {"q-bad.txt": "bad", "r-none.txt": "no upper"})
    build(store, folder_source(src), chain())
    to = Store(tmp_path / "to")
    head = pack(packing(store), to)
    assert (head["samples"], head["quarantined"], head["columns"]) == (10, 2, ["read", "upper", "join"])
    found = files(to)
    assert len(found) == 10 * 5
    first = "p00-000~2Etxt"
    assert found[f"{first}.body.txt"] == b"text 0"
    assert found[f"{first}.join.txt"] == b"text 0|TEXT 0"
    about = {"id": "p00-000.txt", "key": first, "identity": "p00", "labels": {"identity": "p00"}}
    assert json.loads(found[f"{first}.json"]) == about
    assert not any("bad" in name or "none" in name for name in found)


def test_only_the_chosen_columns_go_in(store: Store, tmp_path: Path) -> None:
    to = Store(tmp_path / "to")
    assert pack(packing(store, ["upper"]), to)["columns"] == ["upper"]
    assert {name.split(".", 1)[1] for name in files(to)} == {"upper.txt", "json"}


def test_an_older_version_can_be_packed(store: Store, src: Path, tmp_path: Path) -> None:
    (src / "p00-000.txt").write_text("changed")
    build(store, folder_source(src), chain())
    for version, text in [(1, b"text 0"), (2, b"changed")]:
        to = Store(tmp_path / f"to{version}")
        assert pack(packing(store, version=version), to)["version"] == version
        assert files(to)["p00-000~2Etxt.body.txt"] == text


def test_columns_and_versions_that_are_not_there_are_refused_with_those_that_are(store: Store) -> None:
    with pytest.raises(UsageError, match="no column 'lower'; it has read, upper, join"):
        packing(store, ["read", "lower"])
    with pytest.raises(UsageError, match="no version 7; it has 1"):
        packing(store, version=7)
    with pytest.raises(UsageError, match="0 samples per shard"):
        packing(store, most=0)


def test_a_store_of_bad_samples_only_is_refused(tmp_path: Path) -> None:
    write_texts(tmp_path / "src", {"q-bad.txt": "bad"})
    store = Store(tmp_path / "store")
    build(store, folder_source(tmp_path / "src"), chain())
    with pytest.raises(DataError, match="no good samples"):
        packing(store)


def test_members_get_the_names_that_other_tools_look_for() -> None:
    sample: Sample = {
        "__key__": "a", "__id__": "A", "__identity__": None, "__labels__": {"class": "cat"},
        "image.jpg": b"J", "mask.png": b"M", "clip_cls.npy": b"N",
        "meta.json": b'{"id":"A","labels":{"class":"cat","style":"ink"},"width":9}',
        "caption.json": '{"text":"größe","template":"{}","attributes":["tall"]}'.encode(),
    }  # fmt: skip
    members, row = plain(sample)
    assert set(members) == {"jpg", "mask.png", "clip_cls.npy", "txt", "json"}
    assert (members["jpg"], members["txt"].decode()) == (b"J", "größe")
    labels = {"class": "cat", "style": "ink"}
    about = json.loads(members["json"])
    assert about == {
        "key": "a", "id": "A", "identity": None, "labels": labels, "meta": {"width": 9},
        "caption": "größe", "template": "{}", "attributes": ["tall"],
    }  # fmt: skip
    assert json.loads(row.pop("labels_json")) == labels
    assert row == {"key": "a", "id": "A", "identity": None, "caption": "größe"}


def test_two_members_of_one_name_are_refused() -> None:
    sample: Sample = {"__key__": "a", "__id__": "A", "__identity__": None, "__labels__": {}, "json": b"{}"}
    with pytest.raises(DataError, match="json is taken in a pack"):
        plain(sample)


# --- bytes


def test_the_same_samples_give_the_same_bytes_however_the_store_grew(store: Store, src: Path, tmp_path: Path) -> None:
    grown = Store(tmp_path / "grown")
    late = {p: p.read_text() for p in sorted(src.rglob("*.txt"))[::3]}
    for path in late:
        path.unlink()
    build(grown, folder_source(src), chain(), samples_per_shard=3)
    for path, text in late.items():
        path.write_text(text)
    build(grown, folder_source(src), chain(), samples_per_shard=3)
    a, b = Store(tmp_path / "a"), Store(tmp_path / "b")
    pack(packing(store), a)
    pack(packing(grown), b)
    tars = {key: data for key, data in content(a).items() if key != "pack.json"}
    assert len(tars) == 4
    assert {key: data for key, data in content(b).items() if key != "pack.json"} == tars


def test_head_and_index_tell_the_truth(store: Store, tmp_path: Path) -> None:
    to = Store(tmp_path / "to")
    pack(packing(store), to)
    head = to.read_json("pack.json")
    assert [(t["name"], t["samples"]) for t in head["tars"]] == [
        ("000000.tar", 4),
        ("000001.tar", 4),
        ("000002.tar", 2),
    ]
    for file in [*head["tars"], head["index"]]:
        data = to.read(file["name"])
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file["bytes"], file["sha256"])
    rows = pq.read_table(io.BytesIO(to.read("index.parquet"))).to_pylist()
    assert len(rows) == 10
    for row in rows:
        cut = to.read(row["tar"])[row["offset"] : row["offset"] + row["size"]]
        with tarfile.open(fileobj=io.BytesIO(cut + bytes(1024))) as tar:
            assert {name.split(".", 1)[0] for name in tar.getnames()} == {row["key"]}


def test_no_tar_is_larger_than_allowed_unless_one_sample_is(store: Store, src: Path, tmp_path: Path) -> None:
    (src / "p01-004.txt").write_text("x" * 50_000)
    build(store, folder_source(src), chain())
    to = Store(tmp_path / "to")
    head = pack(packing(store, most=100, mb=0.02048), to)
    assert sum(t["samples"] for t in head["tars"]) == 10
    assert [t["samples"] for t in head["tars"] if t["bytes"] > 20480] == [1]
    assert max(t["samples"] for t in head["tars"]) > 1


def test_few_samples_are_in_memory_beside_the_tar(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    real = ShardDataset.samples

    def counting(dataset: ShardDataset, rows: Sequence[int], columns: Sequence[str]) -> list[Sample]:
        asked.append(len(rows))
        return real(dataset, rows, columns)

    monkeypatch.setattr(ShardDataset, "samples", counting)
    monkeypatch.setattr("pipelines.shards.pack._AT_ONCE", 3)
    pack(packing(store, most=100), Store(tmp_path / "to"))
    assert asked == [3, 3, 3, 1]


# --- the place


def test_a_stopped_pack_goes_on_and_keeps_its_tars(store: Store, tmp_path: Path) -> None:
    whole, to = Store(tmp_path / "whole"), Store(tmp_path / "to")
    pack(packing(store), whole)
    with pytest.raises(Stopped):
        pack(packing(store), to, stop_after(2))
    assert not to.exists("pack.json")
    before = {e.key: e.etag for e in to.list() if e.key.endswith(".tar")}
    assert sorted(before) == ["000000.tar", "000001.tar"]
    head = pack(packing(store), to)
    assert (head["made"], head["kept"]) == (1, 2)
    assert {e.key: e.etag for e in to.list() if e.key in before} == before
    assert content(to) == content(whole)


@pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
def test_a_tar_that_is_not_what_was_written_is_made_anew(damage: str, store: Store, tmp_path: Path) -> None:
    whole, to = Store(tmp_path / "whole"), Store(tmp_path / "to")
    pack(packing(store), whole)
    with pytest.raises(Stopped):
        pack(packing(store), to, stop_after(2))
    data = to.read("000000.tar")
    if damage == "delete":
        to.delete("000000.tar")
    else:
        to.put("000000.tar", data[:-1] if damage == "cut" else bytes([data[0] ^ 1]) + data[1:])
    head = pack(packing(store), to)
    assert (head["made"], head["kept"]) == (2, 1)
    assert content(to) == content(whole)


def test_a_finished_pack_has_nothing_left_to_do(store: Store, tmp_path: Path) -> None:
    to = Store(tmp_path / "to")
    pack(packing(store), to)
    before = [(e.key, e.etag) for e in to.list(unfinished=True)]
    head = pack(packing(store), to)
    assert (head["made"], head["kept"]) == (0, 3)
    assert [(e.key, e.etag) for e in to.list(unfinished=True)] == before
    to.delete("000001.tar")
    assert pack(packing(store), to)["made"] == 3
    assert {key for key, _ in before} == set(content(to))


def test_another_pack_or_anything_else_is_not_written_over(store: Store, src: Path, tmp_path: Path) -> None:
    to, half, other = Store(tmp_path / "to"), Store(tmp_path / "half"), Store(tmp_path / "other")
    pack(packing(store), to)
    with pytest.raises(UsageError, match="holds a pack that differs in columns, samples_per_shard;"):
        pack(packing(store, ["read"], most=5), to)
    with pytest.raises(Stopped):
        pack(packing(store), half, stop_after(1))
    (src / "p00-000.txt").write_text("changed")
    build(store, folder_source(src), chain())
    with pytest.raises(UsageError, match="holds an unfinished pack that differs in index, version;"):
        pack(packing(store), half)
    other.put("photos/mine.jpg", b"x")
    with pytest.raises(UsageError, match=r"is not empty \(photos/mine.jpg is there\)"):
        pack(packing(store), other)
    assert content(other) == {"photos/mine.jpg": b"x"}


def test_a_damaged_store_is_told_and_leaves_no_head(store: Store, tmp_path: Path) -> None:
    key = load_manifest(store).refs("upper")[1].key
    data = bytearray(store.read(key))
    data[600] ^= 1
    store.put(key, bytes(data))
    to = Store(tmp_path / "to")
    with pytest.raises(DataError, match="not what was committed"):
        pack(packing(store), to)
    assert not to.exists("pack.json")


def test_s3_gets_the_same_bytes_and_resumes(store: Store, tmp_path: Path, moto_s3: Callable[[], str]) -> None:
    local, s3 = Store(tmp_path / "to"), Store(moto_s3() + "/packs/a")
    pack(packing(store), local)
    with pytest.raises(Stopped):
        pack(packing(store), s3, stop_after(1))
    head: dict[str, Any] = pack(packing(store), s3)
    assert (head["made"], head["kept"]) == (2, 1)
    assert content(s3) == content(local)
