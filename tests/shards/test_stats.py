"""The numbers of a store: counted from what is committed, whatever its size."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from e4t_core.errors import DataError, UsageError
from e4t_core.schema import Sample
from e4t_core.storage import Store
from pipelines.loader import ShardDataset
from pipelines.shards import layout
from pipelines.shards._labels import labels
from pipelines.shards.commit import load_commit
from pipelines.shards.manifest import load_manifest
from pipelines.shards.stats import measure
from tests.shards.fakes import chain, folder_source, people, write_texts
from tests.shards.support import build
from tests.shards.world import build_world


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Ten good samples of four people, seven that cannot be read, two that cannot be upper-cased."""
    src = tmp_path / "src"
    people(src, 10)
    write_texts(src, {f"q{i}.txt": f"bad {i}" for i in range(7)} | {f"r{i}.txt": "no upper" for i in range(2)})
    store = Store(tmp_path / "store")
    build(store, folder_source(src), chain())
    return store


def test_counts_are_those_of_the_version(store: Store) -> None:
    found = measure(store)
    assert (found["planned"], found["samples"], found["quarantined"]) == (19, 10, 9)
    assert (found["version"], found["shards"]) == (1, 5)
    assert found["bytes"] == sum(entry.size for entry in store.list(layout.DATA))
    assert json.loads(json.dumps(found)) == found


def test_a_columns_times_are_the_sum_of_its_commits(store: Store) -> None:
    commits = [load_commit(store, entry.key) for entry in store.list(f"{layout.COMMITS}/upper")]
    column = measure(store)["columns"]["upper"]
    assert (column["shards"], column["samples"], column["quarantined"]) == (5, 10, 2)
    seconds = sum(commit.seconds["cpu"] for commit in commits if commit)
    assert column["seconds"] == {"cpu": pytest.approx(seconds)}
    assert column["waited"] == pytest.approx(sum(commit.waited for commit in commits if commit))
    assert column["samples_per_s"] == pytest.approx(12 / seconds)


def test_quarantine_is_by_stage_and_reason_with_a_few_examples(store: Store) -> None:
    first, second = measure(store)["quarantine"]
    assert (first["stage"], first["reason"], first["count"]) == ("read", "bad_text", 7)
    assert [example["id"] for example in first["examples"]] == [f"q{i}.txt" for i in range(5)]
    assert "other text is right" in first["examples"][0]["message"]
    assert (second["stage"], second["reason"], second["count"]) == ("upper", "no_upper", 2)


def test_identities_are_ranked_and_the_tail_is_counted(store: Store) -> None:
    found = measure(store, top=2)["identities"]
    assert (found["count"], found["without"]) == (4, 0)
    assert found["largest"] == [["p00", 3], ["p01", 3]]
    assert found["others"] == {"values": 2, "samples": 4}
    assert found["images"] == [[1, 1], [3, 3]]


def test_labels_are_counted_by_kind() -> None:
    rows = [{"identity": "x", "class": "cat", "tags": ["a", "b"], "age": i, "good": True} for i in range(30)]
    rows += [{"class": None, "tags": ["a"], "few": 1}, {"few": 2.5}]
    found = labels(pa.chunked_array([[json.dumps(row) for row in rows]]), top=5)
    assert set(found) == {"class", "tags", "age", "good", "few"}
    assert found["class"] == {
        "samples": 30, "distinct": 1, "largest": [["cat", 30]], "others": {"values": 0, "samples": 0}
    }  # fmt: skip
    assert (found["tags"]["samples"], found["tags"]["largest"]) == (31, [["a", 31], ["b", 30]])
    assert found["good"]["largest"] == [["true", 30]]
    assert found["few"]["largest"] == [["1", 1], ["2.5", 1]]
    age = found["age"]
    assert (age["low"], age["high"], age["mean"]) == (0, 29, 14.5)
    assert sum(age["histogram"]["counts"]) == 30
    assert len(age["histogram"]["edges"]) == len(age["histogram"]["counts"]) + 1


def test_labels_of_text_keep_a_tail() -> None:
    found = labels(pa.chunked_array([[json.dumps({"name": f"n{i:02d}"}) for i in range(9)]]), top=4)["name"]
    assert [value for value, _ in found["largest"]] == ["n00", "n01", "n02", "n03"]
    assert found["others"] == {"values": 5, "samples": 5}


def test_captions_are_read_a_shard_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = build_world(tmp_path / "world")
    texts = [json.loads(s["caption.json"])["text"] for s in ShardDataset(store).samples(range(10), ["caption"])]
    asked: list[int] = []
    real = ShardDataset.samples

    def counting(dataset: ShardDataset, rows: Sequence[int], columns: Sequence[str]) -> list[Sample]:
        asked.append(len(rows))
        found = real(dataset, rows, columns)
        for row, sample in zip(rows, found, strict=True):
            if row in (2, 7, 9):
                sample["caption.json"] = b'{"text":"the same words"}'
        return found

    monkeypatch.setattr(ShardDataset, "samples", counting)
    told: list[None] = []
    found = measure(store, top=3, on_shard=lambda: told.append(None))["captions"]
    assert asked == [4, 4, 2, 3]  # three shards, then the texts that are named
    assert len(told) == 3
    kept = [text for row, text in enumerate(texts) if row not in (2, 7, 9)]
    assert found["distinct"] == 1 + len(set(kept))
    assert found["largest"][0] == ["the same words", 3]
    assert found["others"]["samples"] == 10 - sum(n for _, n in found["largest"])
    assert sum(n for _, n in found["words"]) == 10
    assert [3, 3] in found["words"]
    assert sum(length * n for length, n in found["characters"]) == sum(map(len, kept)) + 3 * len("the same words")


def test_a_store_without_captions_or_good_samples_has_numbers_too(tmp_path: Path) -> None:
    write_texts(tmp_path / "src", {"q.txt": "bad"})
    store = Store(tmp_path / "store")
    build(store, folder_source(tmp_path / "src"), chain())
    found = measure(store)
    assert (found["samples"], found["captions"], found["labels"]) == (0, None, {})
    assert found["identities"]["images"] == []
    assert found["columns"]["upper"]["samples_per_s"] is None


def test_a_missing_commit_and_an_unknown_version_are_told(store: Store) -> None:
    with pytest.raises(UsageError, match="no version 9; it has 1"):
        measure(store, 9)
    ref = load_manifest(store).refs("upper")[1]
    store.delete(layout.commit_key("upper", 1, ref.fingerprint))
    with pytest.raises(DataError, match=r"000001-.*\.json is gone, or changed .*shards verify"):
        measure(store)
