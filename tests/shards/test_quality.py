"""Figures of samples: in the commit and never in the tar, summed up for people, and kept when others are forgotten."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from e4t_core.schema import Sample
from e4t_core.storage import Store
from pipelines.shards import layout
from pipelines.shards.commit import Commit, load_commit
from pipelines.shards.forget import forget
from pipelines.shards.manifest import load_manifest
from pipelines.shards.quality import Quality, quality, sentence
from pipelines.shards.stats import measure
from pipelines.stages.base import Bad, Measured, Stage
from tests.shards.fakes import FakeStage, Read, folder_source, make
from tests.shards.support import build, content, statuses


class Scored(FakeStage):
    """The loss of text n falls from 10 to n; text 7 ends where it began, text 8 with no loss at all."""

    name: ClassVar[str] = "scored"
    reads: ClassVar[tuple[str, ...]] = ("read",)
    writes: ClassVar[tuple[str, ...]] = ("scored.txt",)
    calls: ClassVar[int] = 0

    def one(self, sample: Sample) -> Any:
        Scored.calls += 1
        number = int(sample["body.txt"].split()[1])
        figures = {"loss_before": 10.0, "seconds": float(Scored.calls)}  # a clock: another value each time
        if number == 8:
            return Bad("diverged", "it is not finite", figures)
        if number == 7:
            return Bad("not_improved", "10 -> 10", {**figures, "loss_after": 10.0})
        return Measured({"scored.txt": sample["body.txt"]}, {**figures, "loss_after": float(number)})


@pytest.fixture
def scored(src: Path, tmp_path: Path) -> Store:
    store = Store(tmp_path / "scored")
    build(store, folder_source(src), stages())
    return store


def stages() -> list[Stage]:
    return [make(Read), make(Scored)]


def commits(store: Store) -> list[Commit]:
    found = [load_commit(store, entry.key) for entry in store.list(f"{layout.COMMITS}/scored")]
    return [commit for commit in found if commit]


def figures(store: Store) -> dict[str, dict[str, float]]:
    return {key: dict(row) for commit in commits(store) for key, row in commit.facts.items()}


def test_figures_are_in_the_commit_of_the_good_and_of_the_bad(scored: Store) -> None:
    found = figures(scored)
    assert {key: row.get("loss_after") for key, row in found.items()} == {
        f"p{i // 3:02d}-{i:03d}~2Etxt": {7: 10.0, 8: None}.get(i, float(i)) for i in range(10)
    }
    assert {row["loss_before"] for row in found.values()} == {10.0}
    assert statuses(scored)["p02-008.txt"] == "diverged"
    assert statuses(scored)["p02-007.txt"] == "not_improved"


def test_stages_without_figures_have_the_commits_they_always_had(scored: Store) -> None:
    for entry in scored.list(f"{layout.COMMITS}/read"):
        assert "facts" not in scored.read_json(entry.key)


def test_what_a_clock_says_changes_no_byte_of_the_tar(scored: Store, src: Path, tmp_path: Path) -> None:
    again = Store(tmp_path / "again")
    build(again, folder_source(src), stages())
    assert figures(again) != figures(scored)
    assert content(again) == content(scored)


def test_a_column_is_summed_up_from_its_commits_alone(scored: Store) -> None:
    for entry in scored.list(f"{layout.DATA}/scored"):
        scored.delete(entry.key)
    found = quality(scored, load_manifest(scored), "scored")
    assert found is not None
    assert (found["samples"], found["tried"], found["improved"]) == (10, 10, 8)
    assert found["failed"] == {"diverged": 1, "not_improved": 1}
    assert found["figures"]["loss_before"] == {"low": 10, "median": 10, "high": 10}
    assert found["figures"]["loss_after"] == pytest.approx({"low": 0.8, "median": 4.0, "high": 9.2})
    assert json.loads(json.dumps(found)) == found
    text = "8 of 10 improved (80.0%), median loss 10.0000 -> 4.0000; failed: 1 diverged, 1 not_improved"
    assert sentence(found) == text
    assert quality(scored, load_manifest(scored), "read") is None


def test_samples_without_figures_count_among_those_tried(scored: Store) -> None:
    found = Quality()
    for commit in commits(scored):
        found.add(commit)
    before = found.summary()
    crashed = Commit(**{**vars(commits(scored)[0]), "facts": {}})
    found.add(crashed)
    after = found.summary()
    assert before is not None
    assert after is not None
    assert (after["tried"], after["samples"], after["improved"]) == (before["tried"] + 4, 10, 8)


def test_stats_have_the_quality_of_columns_that_keep_figures(scored: Store) -> None:
    columns = measure(scored)["columns"]
    assert columns["read"]["quality"] is None
    assert columns["scored"]["quality"] == quality(scored, load_manifest(scored), "scored")


def test_the_forgotten_leave_no_figures(scored: Store) -> None:
    before = figures(scored)
    forget(scored, ["p00-001.txt", "p02-008.txt"])
    manifest = load_manifest(scored)
    kept: dict[str, Any] = {}
    for number, ref in manifest.refs("scored").items():
        commit = load_commit(scored, layout.commit_key("scored", number, ref.fingerprint))
        assert commit is not None
        kept |= commit.facts
    assert kept == {k: v for k, v in before.items() if k not in ("p00-001~2Etxt", "p02-008~2Etxt")}


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("kind", [Bad, Measured])
def test_a_figure_that_is_not_finite_is_refused(store: Store, src: Path, kind: type, value: float) -> None:
    class Wrong(Scored):
        def __call__(self, batch: Sequence[Sample]) -> list[Any]:
            first = ("odd", "it is") if kind is Bad else ({"scored.txt": b""},)
            return [kind(*first, {"loss_after": value}) for _ in batch]

    with pytest.raises(RuntimeError, match=r"stage 'scored', shard 0, sample '.*': figure 'loss_after' is"):
        build(store, folder_source(src), [make(Read), make(Wrong)])
