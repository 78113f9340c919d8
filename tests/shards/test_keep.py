"""A run leaves a stage to another command: its column stays in the version while it is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from e4t_core.storage import Store
from pipelines.shards.manifest import Manifest
from pipelines.stages.base import Bad, Stage
from tests.shards.fakes import FakeStage, Join, Read, Result, Upper, chain, folder_source, make, people
from tests.shards.support import build, content, statuses

UPSTREAM = ["read", "upper"]
Made = list[tuple[str, int]]


def without(store: Store, src: Path, join: FakeStage, upper: Stage | None = None, **more: Any) -> tuple[Manifest, Made]:
    """A run of the first two columns that leaves the third to others."""
    return build(store, folder_source(src), [make(Read), upper or make(Upper)], keep=[join], **more)


def test_a_column_stays_while_it_is_whole_and_comes_back(store: Store, src: Path) -> None:
    before = content(store)
    kept, made = without(store, src, make(Join))
    assert (kept.version, made) == (1, [])  # the same version: nothing is published anew
    people(src, 4, start=10)
    grown, made = without(store, src, make(Join))
    assert (grown.version, grown.stages) == (2, UPSTREAM)  # the new shard has no third column
    assert made == [("read", 3), ("upper", 3)]
    whole, made = build(store, folder_source(src), chain())
    assert (whole.version, made) == (3, [("join", 3)])
    assert {name: content(store)[name] for name in before} == before
    assert without(store, src, make(Join))[0].version == 3


def test_a_column_of_other_settings_is_not_kept(store: Store, src: Path) -> None:
    assert without(store, src, make(Join, text="other"))[0].stages == UPSTREAM


class Hashed(Join):
    def weights(self) -> str:
        raise AssertionError("its weights are hashed")


class Never(Hashed):
    name: ClassVar[str] = "never"


def test_weights_of_what_was_never_made_are_not_hashed(store: Store, src: Path) -> None:
    without(store, src, make(Never))
    with pytest.raises(AssertionError, match="its weights are hashed"):
        without(store, src, make(Hashed))


def test_of_two_that_are_left_the_second_needs_the_first(store: Store, src: Path) -> None:
    read, upper, join = chain()
    assert build(store, folder_source(src), [read], keep=[upper, join])[0].stages == ["read", "upper", "join"]
    other = make(Upper, text="!")
    assert build(store, folder_source(src), [read], keep=[other, join])[0].stages == ["read"]


class Late(Upper):
    """A text is quarantined the first time and good the second."""

    def one(self, sample: Any) -> Result:
        marker = Path(self.config.text)
        if b"text 3" in sample["body.txt"] and not marker.exists():
            marker.touch()
            return Bad("late", "not yet")
        return {"upper.txt": sample["body.txt"].upper()}


def test_what_is_kept_was_made_from_what_this_run_made(src: Path, tmp_path: Path) -> None:
    store, late = Store(tmp_path / "late"), make(Late, text=str(tmp_path / "marker"))
    everything = [make(Read), late, make(Join)]
    build(store, folder_source(src), everything)
    assert statuses(store)["p01-003.txt"] == "late"
    assert without(store, src, make(Join), late)[0].stages == [*UPSTREAM, "join"]
    # the retried shard of the second column is another, so the third is whole no more
    retried, made = without(store, src, make(Join), late, retry_quarantined=True)
    assert (retried.stages, made) == (UPSTREAM, [("upper", 0)])
    assert statuses(store)["p01-003.txt"] == "ok"
    again, made = build(store, folder_source(src), everything)
    assert made == [("join", 0)]
    assert without(store, src, make(Join), late)[0].version == again.version
