"""Commits, manifests, quarantine and regeneration, without Ray."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from e4t_core.errors import DataError, UsageError
from e4t_core.schema import Sample
from e4t_core.storage import Store
from pipelines.shards import layout
from pipelines.shards.commit import load_commit
from pipelines.shards.estimate import dry_run
from pipelines.shards.manifest import load_index, load_manifest
from pipelines.stages.base import Stage
from tests.shards.fakes import Join, Read, Upper, chain, folder_source, make, people, write_texts
from tests.shards.support import assert_exactly_once, build, content, statuses


@pytest.fixture
def src(tmp_path: Path) -> Path:
    people(tmp_path / "src", 10)
    return tmp_path / "src"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def ids(src: Path) -> set[str]:
    return {p.relative_to(src).as_posix() for p in src.rglob("*.txt")}


def test_every_sample_is_in_every_column_once(store: Store, src: Path) -> None:
    manifest, made = build(store, folder_source(src), chain())
    assert made == [(stage, shard) for shard in range(3) for stage in ("read", "upper", "join")]
    assert_exactly_once(store, ids(src))
    head = manifest.head
    assert {"version", "samples", "quarantined", "stages", "recipe", "plan", "planned"} <= set(head)
    assert (head["version"], head["samples"], head["quarantined"]) == (1, 10, 0)
    assert list(store.list(layout.ATTEMPTS)) == []


def test_a_second_run_has_nothing_to_do(store: Store, src: Path) -> None:
    build(store, folder_source(src), chain())
    before = {e.key: e.etag for e in store.list()}
    manifest, made = build(store, folder_source(src), chain())
    assert made == []
    assert manifest.version == 1
    assert {e.key: e.etag for e in store.list()} == before


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, src: Path) -> None:
    stores = [Store(tmp_path / name) for name in "ab"]
    for store in stores:
        build(store, folder_source(src), chain())
    assert content(stores[0]) == content(stores[1])
    tars = [[e.key for e in store.list(layout.DATA)] for store in stores]
    assert tars[0] == tars[1]


def test_a_commit_accounts_for_every_input(store: Store, src: Path) -> None:
    write_texts(src, {"a-bad.txt": "bad" * 500})
    manifest, _ = build(store, folder_source(src), chain())
    ref = manifest.refs("read")[0]
    raw = store.read_json(layout.commit_key("read", 0, ref.fingerprint))
    assert raw["n_in"] == 4 == len(raw["samples"]) + len(raw["quarantined"])
    [bad] = raw["quarantined"]
    assert (bad["id"], bad["reason"], len(bad["message"])) == ("a-bad.txt", "bad_text", 239)
    assert raw["seconds"]["cpu"] >= 0
    assert raw["finished"] >= raw["started"] > 1e9
    assert raw["stage"]["schema"] == 1
    for key, sample_id, offset, size, crc32 in raw["samples"]:
        assert sample_id in ids(src)
        assert (key, offset % 512, size % 512) == (key, 0, 0)
        assert crc32 > 0


def test_bad_samples_are_quarantined_with_their_reason(store: Store, src: Path) -> None:
    write_texts(src, {"q-bad.txt": "bad text", "r-odd.txt": "no upper please"})
    manifest, _ = build(store, folder_source(src), chain())
    assert (manifest.head["samples"], manifest.head["quarantined"], manifest.head["planned"]) == (10, 2, 12)
    assert manifest.head["reasons"] == {"bad_text": 1, "no_upper": 1}
    found = statuses(store)
    assert (found["q-bad.txt"], found["r-odd.txt"], found["p00-000.txt"]) == ("bad_text", "no_upper", "ok")
    assert_exactly_once(store, ids(src))
    rows = {r["id"]: r for r in load_index(store, manifest).to_pylist()}
    assert rows["r-odd.txt"]["read.size"] > 0  # whole in the first column,
    assert rows["r-odd.txt"]["upper.size"] is None  # quarantined in the second,
    assert rows["r-odd.txt"]["join.size"] is None  # and no input of the third
    assert rows["q-bad.txt"]["message"].startswith("it starts with b'bad text'")
    assert rows["p00-000.txt"]["identity"] == "p00"


def test_long_messages_are_cut(store: Store, src: Path) -> None:
    class Wordy(Read):
        name: ClassVar[str] = "read"

        def one(self, sample: Sample) -> Any:
            result = super().one(sample)
            return type(result)("x", "y" * 5000) if not isinstance(result, dict) else result

    write_texts(src, {"q-bad.txt": "bad"})
    manifest, _ = build(store, folder_source(src), [make(Wordy)])
    messages = [r["message"] for r in load_index(store, manifest).to_pylist() if r["message"]]
    assert [len(m) for m in messages] == [300]


def test_a_shard_of_nothing_but_bad_samples(store: Store, src: Path) -> None:
    for path in src.iterdir():
        path.write_text("bad")
    manifest, _ = build(store, folder_source(src), chain())
    assert (manifest.head["samples"], manifest.head["quarantined"]) == (0, 10)


# --- regeneration


def test_a_changed_setting_remakes_its_column_and_what_reads_it(store: Store, src: Path) -> None:
    build(store, folder_source(src), chain())
    changed: list[Stage] = [make(Read), make(Upper, text="!"), make(Join)]
    manifest, made = build(store, folder_source(src), changed)
    assert {stage for stage, _ in made} == {"upper", "join"}
    assert manifest.version == 2
    back, made = build(store, folder_source(src), chain())
    assert made == []  # the commits of version 1 are still there
    assert back.version == 3


def test_a_change_without_effect_goes_no_further(store: Store, src: Path) -> None:
    build(store, folder_source(src), chain())
    (src / "p00-000.txt").touch()
    _, made = build(store, folder_source(src), chain())
    assert made == [("read", 0)]


@pytest.mark.parametrize("what", ["version", "weights"])
def test_a_new_version_or_new_weights_remake_a_column(
    what: str, store: Store, src: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(store, folder_source(src), chain())
    if what == "version":
        monkeypatch.setattr(Upper, "version", 2)
    else:
        monkeypatch.setattr(Upper, "weights", lambda self: "other")
    _, made = build(store, folder_source(src), chain())
    assert made == [("upper", n) for n in range(3)]  # the same bytes: the join stays


def test_resources_remake_nothing(store: Store, src: Path) -> None:
    build(store, folder_source(src), chain(batch_size=2))
    _, made = build(store, folder_source(src), chain(batch_size=3))
    assert made == []


def test_appending_makes_only_new_shards(store: Store, src: Path) -> None:
    build(store, folder_source(src), chain())
    people(src, 3, start=50)
    manifest, made = build(store, folder_source(src), chain())
    assert {shard for _, shard in made} == {3}
    assert manifest.head["samples"] == 13
    assert_exactly_once(store, ids(src))


def test_a_removed_sample_is_in_no_new_tar(store: Store, src: Path) -> None:
    build(store, folder_source(src), chain())
    (src / "p00-001.txt").unlink()
    manifest, made = build(store, folder_source(src), chain())
    assert made == [("read", 0), ("upper", 0), ("join", 0)]
    assert manifest.head["planned"] == 9
    assert not any(b"text 1|TEXT 1" in tar for tar in content(store).values())


def test_a_stage_more_is_a_column_more(store: Store, src: Path) -> None:
    first, _ = build(store, folder_source(src), chain()[:1])
    second, made = build(store, folder_source(src), chain())
    assert {stage for stage, _ in made} == {"upper", "join"}
    assert first.stages == ["read"]
    assert second.stages == ["read", "upper", "join"]


def test_quarantined_samples_are_retried_on_request_only(store: Store, src: Path) -> None:
    write_texts(src, {"q-bad.txt": "bad"})
    build(store, folder_source(src), chain())
    facts = (src / "q-bad.txt").stat()
    (src / "q-bad.txt").write_text("god")  # mended behind the same size and time, so only a retry can see it
    import os

    os.utime(src / "q-bad.txt", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    _, made = build(store, folder_source(src), chain())
    assert made == []
    manifest, made = build(store, folder_source(src), chain(), retry_quarantined=True)
    assert made == [("read", 2), ("upper", 2), ("join", 2)]
    assert (manifest.version, manifest.head["quarantined"]) == (2, 0)
    after, made = build(store, folder_source(src), chain())
    assert made == []
    assert after.version == 2


def test_a_retry_that_fails_again_changes_only_its_commit(store: Store, src: Path) -> None:
    write_texts(src, {"q-bad.txt": "bad"})
    build(store, folder_source(src), chain())
    for version in (2, 3):
        manifest, made = build(store, folder_source(src), chain(), retry_quarantined=True)
        assert made == [("read", 2)]
        assert manifest.version == version


def test_a_lost_tar_is_made_again(store: Store, src: Path) -> None:
    manifest, _ = build(store, folder_source(src), chain())
    before = content(store)
    store.delete(manifest.refs("read")[1].key)
    store.put(manifest.refs("join")[2].key, b"short")
    again, made = build(store, folder_source(src), chain())
    assert made == [("read", 1), ("join", 2)]
    assert again.version == 1
    assert content(store) == before


# --- several at once


def _race(uri: str, src: str, run: str, start: Any) -> None:
    start.wait()
    build(Store(uri), folder_source(Path(src)), chain(seconds=0.002), run=run)


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_two_racing_runs_finish_with_every_sample_once(
    kind: str, store: Store, src: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    uri = store.uri if kind == "local" else request.getfixturevalue("moto_s3")() + "/race"
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Barrier(2)
    racers = [spawn.Process(target=_race, args=(uri, str(src), name, start)) for name in "ab"]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
        assert racer.exitcode == 0
    raced = Store(uri)
    assert_exactly_once(raced, ids(src))
    assert layout.numbers(raced, layout.MANIFESTS) == [1]
    calm = Store(tmp_path / "calm")
    build(calm, folder_source(src), chain())
    assert content(raced) == content(calm)
    assert len(list(raced.list(layout.COMMITS))) == 9


def test_whoever_commits_second_takes_the_winners_commit(store: Store, src: Path) -> None:
    class Random(Read):
        """Other bytes at every call, as a GPU may give."""

        calls: ClassVar[int] = 0

        def one(self, sample: Sample) -> Any:
            Random.calls += 1
            if Random.calls == 4:  # while this run works, another finishes
                build(store, folder_source(src), [make(Random)], run="other")
            return {"body.txt": f"{Random.calls}".encode()}

    manifest, _ = build(store, folder_source(src), [make(Random)])
    winner = load_commit(store, layout.commit_key("read", 0, manifest.refs("read")[0].fingerprint))
    assert winner is not None
    assert winner.ref == manifest.refs("read")[0]
    assert manifest.version == 1
    assert len([e for e in store.list(layout.DATA) if "/000000-" in e.key]) == 2  # the loser's is an orphan


# --- a stage that breaks its contract


class Broken(Upper):
    """Answers as ``answers`` says."""

    answers: ClassVar[Any] = None

    def __call__(self, batch: Sequence[Sample]) -> Any:
        return type(self).answers(batch)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda batch: [{"upper.txt": b""}], r"stage 'upper', shard 0: 1 results for 2 samples"),
        (lambda batch: [{"other.txt": b""}] * len(batch), r"sample 'p00-000.txt': member 'other.txt' \(bytes\)"),
        (lambda batch: [{"upper.txt": "text"}] * len(batch), r"member 'upper.txt' \(str\)"),
        (lambda batch: [{}] * len(batch), r"no members"),
        (lambda batch: 1 / ("p00-001" not in batch[-1]["__key__"]), r"sample 'p00-001.txt': ZeroDivisionError"),
    ],
)
def test_a_broken_stage_is_named(
    answer: Any, message: str, store: Store, src: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Broken, "answers", answer)
    with pytest.raises(RuntimeError, match=message):
        build(store, folder_source(src), [make(Read), make(Broken)])
    assert layout.numbers(store, layout.MANIFESTS) == []
    _, made = build(store, folder_source(src), chain())
    assert ("read", 0) not in made


def test_stages_out_of_order_are_refused(store: Store, src: Path) -> None:
    with pytest.raises(UsageError, match=r"'join' reads 'upper', which must come before it; the stages are: read"):
        build(store, folder_source(src), [make(Read), make(Join)])
    with pytest.raises(UsageError, match=r"'read' is there twice"):
        build(store, folder_source(src), [make(Read), make(Read)])


# --- damage and dry run


def test_a_broken_commit_is_named(store: Store, src: Path) -> None:
    manifest, _ = build(store, folder_source(src), chain())
    key = layout.commit_key("read", 0, manifest.refs("read")[0].fingerprint)
    raw = store.read_json(key)
    for damaged in ({**raw, "n_in": 7}, {"stage": {"schema": 1}}, {**raw, "stage": {**raw["stage"], "schema": 99}}):
        store.put(key, json.dumps(damaged).encode())
        with pytest.raises(DataError, match=r"commits/read/000000-.*(run preprocess again|upgrade e4t)"):
            load_commit(store, key)


def test_a_newer_manifest_asks_for_an_upgrade(store: Store, src: Path) -> None:
    build(store, folder_source(src), chain())
    key = layout.numbered_key(layout.MANIFESTS, 1)
    store.put(key, json.dumps({**store.read_json(key), "schema": 99}).encode())
    with pytest.raises(DataError, match=r"schema 99; this e4t reads up to 1: upgrade to e4t \d+\.\d+.* or newer"):
        load_manifest(store)


def test_a_dry_run_tells_and_does_nothing(store: Store, src: Path) -> None:
    rows = dry_run(store, folder_source(src), chain(), samples_per_shard=4)
    assert [(r.stage, r.to_do, r.cached, r.samples) for r in rows] == [(s, 3, 0, 10) for s in ("read", "upper", "join")]
    assert all(r.bytes is None and r.seconds is None for r in rows)
    assert list(store.list()) == []
    build(store, folder_source(src), chain())
    people(src, 4, start=20)
    before = [e.key for e in store.list()]
    rows = dry_run(store, folder_source(src), chain(), samples_per_shard=4)
    assert [e.key for e in store.list()] == before
    for row in rows:
        assert (row.to_do, row.cached, row.samples) == (1, 3, 4)
        assert row.bytes is not None
        assert row.bytes > 4 * 512
        assert row.seconds is not None
        assert row.seconds > 0
        assert row.gpu_hours == 0
