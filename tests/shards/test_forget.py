"""Forgetting: no byte of the samples stays, nothing else changes, and they do not come back."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from e4t_core.errors import DataError, UsageError
from e4t_core.storage import Store
from pipelines.loader import ShardDataset
from pipelines.shards import forgotten, layout
from pipelines.shards import plan as plans
from pipelines.shards.forget import forget, would_forget
from pipelines.shards.maintenance import gc, ls, verify
from pipelines.shards.manifest import load_manifest, publish, versions
from pipelines.shards.survey import survey
from pipelines.shards.work import Job, ShardWorker
from tests.shards.fakes import chain, folder_source, write_texts
from tests.shards.support import assert_exactly_once, build, content, statuses

GONE = ["p00-002.txt", "p01-005.txt"]
"""Of shards 0 and 1; shard 2 has none of them."""


def every_byte(store: Store) -> dict[str, bytes]:
    """Key -> its bytes, with what parquet compresses beside it."""
    found = {}
    for entry in store.list(unfinished=True):
        data = store.read(entry.key)
        if entry.key.endswith(".parquet"):
            data += repr(pq.read_table(io.BytesIO(data)).to_pydict()).encode()
        found[entry.key] = entry.key.encode() + data
    return found


def traces(store: Store, *words: bytes) -> list[str]:
    return [key for key, data in every_byte(store).items() if any(word in data for word in words)]


def collect(store: Store) -> None:
    for entry in store.list(unfinished=True):
        os.utime(f"{store.uri}/{entry.key}", (entry.modified - 1, entry.modified - 1))
    gc(store, 0)


def test_after_gc_no_byte_of_them_is_left_anywhere(store: Store, src: Path) -> None:
    secret = (src / "p00-002.txt").read_bytes()
    assert traces(store, b"p00-002", secret, secret.upper())
    forget(store, GONE)
    collect(store)
    assert traces(store, b"p00-002", b"p01-005", secret, secret.upper()) == []
    assert verify(store) == {**verify(store), "problems": [], "orphans": []}


def test_the_rest_is_what_a_run_without_them_would_have_made(store: Store, src: Path) -> None:
    before = content(store)
    report = forget(store, GONE)
    assert (report.samples, report.shards, report.withdrawn, report.version) == (2, 2, [1], 2)
    assert_exactly_once(store, {f"p{n // 3:02d}-{n:03d}.txt" for n in range(10)} - set(GONE))
    after = content(store)
    assert {name for name in before if before[name] != after[name]} == {
        f"{stage}/{shard}" for stage in load_manifest(store).stages for shard in (0, 1)
    }
    for name in GONE:
        (src / name).unlink()
    assert build(store, folder_source(src), chain())[1] == []


def test_a_run_over_the_same_source_leaves_them_out_and_has_nothing_to_do(store: Store, src: Path) -> None:
    forget(store, GONE)
    manifest, made = build(store, folder_source(src), chain())
    assert (manifest.version, made) == (2, [])
    write_texts(src, {"p77.txt": "new"})
    manifest, made = build(store, folder_source(src), chain())
    assert set(statuses(store)) == {f"p{n // 3:02d}-{n:03d}.txt" for n in [0, 1, 3, 4, 6, 7, 8, 9]} | {"p77.txt"}


def test_a_changed_stage_is_remade_without_them(store: Store, src: Path) -> None:
    forget(store, GONE)
    build(store, folder_source(src), chain(text="?"))
    collect(store)
    assert traces(store, b"p00-002") == []


def test_versions_that_hold_them_cannot_be_read_any_more(store: Store) -> None:
    assert len(ShardDataset.open(store.uri, 1)) == 10
    forget(store, GONE)
    with pytest.raises(DataError, match=r"version 1 was withdrawn: 2 of its samples were forgotten; use version 2"):
        ShardDataset.open(store.uri, 1)
    assert len(ShardDataset.open(store.uri)) == 8
    assert ls(store)["versions"] == versions(store) == [2]
    collect(store)
    with pytest.raises(DataError, match="withdrawn"):
        ShardDataset.open(store.uri, 1)


def test_an_old_version_may_be_the_only_one_that_holds_them(store: Store, src: Path) -> None:
    (src / "p00-002.txt").unlink()
    build(store, folder_source(src), chain())
    report = forget(store, GONE[:1])
    assert (report.shards, report.withdrawn, report.version) == (0, [1], 2)
    collect(store)
    assert traces(store, b"p00-002") == []


def test_whole_shards_go_when_all_of_theirs_do(store: Store, src: Path) -> None:
    forget(store, ["p02-008.txt", "p03-009.txt"])
    assert list(load_manifest(store).refs("read")) == [0, 1]
    assert build(store, folder_source(src), chain())[1] == []


def test_quarantined_samples_are_forgotten_too(store: Store, src: Path) -> None:
    write_texts(src, {"q-bad.txt": "bad"})
    build(store, folder_source(src), chain())
    forget(store, ["q-bad.txt"])
    assert load_manifest(store).head["quarantined"] == 0
    collect(store)
    assert traces(store, b"q-bad") == []


def test_repeating_it_changes_nothing_and_a_second_person_adds_to_the_list(store: Store) -> None:
    forget(store, GONE[:1])
    before = {e.key for e in store.list()}
    assert forget(store, GONE[:1]).version == 2
    assert {e.key for e in store.list()} == before
    assert forget(store, GONE[1:]).version == 3
    assert versions(store) == [3]
    assert forgotten.digests(store) == {forgotten.digest(name) for name in GONE}


def test_killed_half_way_it_is_finished_by_the_same_command(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.shards.forget.propose", _killed)
        with pytest.raises(KeyboardInterrupt):
            forget(store, GONE)
    assert len(ShardDataset.open(store.uri, 1)) == 10
    assert forget(store, GONE).version == 2
    collect(store)
    assert traces(store, b"p00-002", b"p01-005") == []


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_run_that_planned_before_publishes_nothing_with_them(store: Store, src: Path) -> None:
    write_texts(src, {"p77.txt": "new"})
    plan = plans.resolve(store, folder_source(src), 4)
    forget(store, GONE)
    found = survey(store, plan, chain())
    with pytest.raises(DataError, match=r"2 of the planned samples .* were forgotten while this ran"):
        publish(store, plan, found.stages, {stage.name: {} for stage in chain()}, {})
    collect(store)
    assert traces(store, b"p00-002") == []
    build(store, folder_source(src), chain())
    assert "p77.txt" in statuses(store)


def test_ids_that_the_store_never_held_are_refused_and_nothing_is_done(store: Store) -> None:
    before = every_byte(store)
    with pytest.raises(UsageError, match=r"1 of the ids are in no version of .*'p2.txt'.*nothing was changed"):
        forget(store, [GONE[0], "p2.txt"])
    with pytest.raises(UsageError, match=r"all 10 samples.*delete the whole store"):
        forget(store, statuses(store))
    with pytest.raises(UsageError, match="no ids"):
        forget(store, [])
    assert every_byte(store) == before
    assert would_forget(store, GONE).samples == 2
    assert every_byte(store) == before
    assert layout.numbers(store, layout.FORGOTTEN) == []


def test_what_a_stopped_run_had_made_of_them_goes_too(store: Store, src: Path) -> None:
    """Its commits hold them, and no version names these."""
    write_texts(src, {"p77.txt": "new"})
    plan = plans.resolve(store, folder_source(src), 4)
    found = survey(store, plan, chain(text="!"))
    for stage, identity in found.stages[:1]:
        for task in found.tasks:
            ShardWorker(Job(store, folder_source(src), stage, identity, plan.items_key, "stopped")).process(task)
    forget(store, [*GONE])
    collect(store)
    assert traces(store, b"p00-002", b"p01-005") == []
