"""Samples that kill their process are found, named and left out; everything else keeps its bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from e4t_core.record import canonical_json
from e4t_core.schema import Sample
from e4t_core.storage import Store
from pipelines.shards import layout
from pipelines.shards import plan as plans
from pipelines.shards.commit import shard_fingerprint
from pipelines.shards.isolation import IsolatedStage
from pipelines.shards.manifest import load_index
from pipelines.shards.survey import survey
from pipelines.sources.base import SourceItem
from pipelines.stages.base import Bad
from tests.shards.fakes import Read, Result, Upper, chain, folder_source, make, people, write_texts
from tests.shards.support import build, content, statuses


def mark_as_died(store: Store, src: Path, attempts: int = 1, run: str = "run") -> None:
    """What a worker that died at its first stage leaves behind, for every shard."""
    plan = plans.resolve(store, folder_source(src), 4)
    found = survey(store, plan, chain())
    stage, identity = found.stages[0]
    for task in found.tasks:
        mark = layout.attempt_key("read", task.shard, shard_fingerprint(identity, task.inputs(stage)))
        store.put(mark, canonical_json({"run": run, "attempts": attempts}))


def samples(src: Path, *names: str) -> list[Sample]:
    source = folder_source(src)
    return [{"__key__": n, "__item__": SourceItem(n, str(src / n), ""), "__source__": source} for n in names]


def test_only_the_killers_are_lost(tmp_path: Path) -> None:
    texts = {"a": "one", "b": "segfault", "c": "bad"}
    write_texts(tmp_path, texts)
    with IsolatedStage(make(Read)) as stage:
        results = stage(samples(tmp_path, *texts))
    assert results[0] == {"body.txt": b"one", "note.json": b"{}"}
    reasons = [r.reason for r in results if isinstance(r, Bad)]
    messages = [r.message for r in results if isinstance(r, Bad)]
    assert reasons == ["crash", "bad_text"]
    assert "signal SIGABRT" in messages[0]


def test_an_exception_is_no_crash(tmp_path: Path) -> None:
    write_texts(tmp_path, {"a": "bug"})
    with IsolatedStage(make(Read)) as stage, pytest.raises(RuntimeError, match="ZeroDivisionError: a bug in the stage"):
        stage(samples(tmp_path, "a"))


def test_an_isolated_shard_has_the_same_bytes(tmp_path: Path) -> None:
    people(tmp_path / "src", 4)
    calm, died = Store(tmp_path / "calm"), Store(tmp_path / "died")
    build(calm, folder_source(tmp_path / "src"), chain())
    mark_as_died(died, tmp_path / "src")
    build(died, folder_source(tmp_path / "src"), chain())
    assert content(died) == content(calm)
    assert list(died.list(layout.ATTEMPTS)) == []


def test_a_shard_is_isolated_after_a_death_in_the_same_run(tmp_path: Path) -> None:
    people(tmp_path / "src", 3)
    write_texts(tmp_path / "src", {"q-crash.txt": "crash"})
    store = Store(tmp_path / "store")
    mark_as_died(store, tmp_path / "src")
    manifest, _ = build(store, folder_source(tmp_path / "src"), chain())
    assert statuses(store)["q-crash.txt"] == "crash"
    assert manifest.head["reasons"] == {"crash": 1}
    [row] = [r for r in load_index(store, manifest).to_pylist() if r["status"] != "ok"]
    assert row["message"] == "stage 'read' dies on this sample (exit code 7); it was tried alone"


class Unisolated(Read):
    """Refuses to work in another process than the one it was made in."""

    name: ClassVar[str] = "read"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.travelled = False

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = {**state, "travelled": True}

    def one(self, sample: Sample) -> Result:
        assert not self.travelled
        return super().one(sample)


def test_an_attempt_of_a_stopped_run_costs_no_second_process(tmp_path: Path) -> None:
    people(tmp_path / "src", 3)
    store = Store(tmp_path / "store")
    mark_as_died(store, tmp_path / "src", run="an earlier one")
    _, made = build(store, folder_source(tmp_path / "src"), [make(Unisolated), make(Upper)])
    assert len(made) == 2


def test_a_shard_that_kills_even_the_isolating_worker_ends_the_run(tmp_path: Path) -> None:
    people(tmp_path / "src", 3)
    store = Store(tmp_path / "store")
    mark_as_died(store, tmp_path / "src", attempts=3)
    with pytest.raises(RuntimeError, match=r"stage 'read', shard 0: its worker died 3 times.*out of memory"):
        build(store, folder_source(tmp_path / "src"), chain())
