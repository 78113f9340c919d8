"""What a run says it would do: why, and at what cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from e4t_core.storage import Store
from pipelines.shards.estimate import StageEstimate, dry_run
from pipelines.shards.manifest import load_manifest
from pipelines.stages.base import Resources, Stage
from tests.shards.fakes import MODELS, FakeConfig, Join, Read, Upper, chain, folder_source, make, write_texts
from tests.shards.support import build


def estimates(store: Store, src: Path, stages: list[Stage]) -> dict[str, StageEstimate]:
    return {e.stage: e for e in dry_run(store, folder_source(src), stages, samples_per_shard=4)}


def test_an_empty_store_has_nothing_made_and_no_cost_to_tell(tmp_path: Path, src: Path) -> None:
    found = estimates(Store(tmp_path / "new"), src, chain())
    assert {name: e.why for name, e in found.items()} == {
        name: {"not made yet": 3} for name in ("read", "upper", "join")
    }
    assert found["read"].bytes is found["read"].seconds is found["read"].gpu_hours is None


def test_a_changed_setting_is_named_with_both_values_and_so_is_what_follows_from_it(store: Store, src: Path) -> None:
    found = estimates(store, src, [make(Read), make(Upper, text="!"), make(Join)])
    assert (found["read"].to_do, found["read"].why, found["read"].changes) == (0, {}, [])
    assert found["upper"].changes == ["settings.text: '' -> '!'"]
    assert found["upper"].why == {"stage changed": 3}
    assert found["join"].changes == []
    assert found["join"].why == {"upstream upper to be made": 3}


def test_new_and_changed_files_are_told_apart(store: Store, src: Path) -> None:
    write_texts(src, {"p00-001.txt": "another text", "q.txt": "new"})
    found = estimates(store, src, chain())
    assert found["read"].why == {"source items changed": 1, "not made yet": 1}
    assert found["upper"].why == {"upstream read to be made": 1, "not made yet": 1}


def test_an_upstream_that_was_remade_meanwhile_is_named(store: Store, src: Path) -> None:
    build(store, folder_source(src), [make(Read), make(Upper, text="!")])
    store.delete("manifests/000002.json")
    found = estimates(store, src, [make(Read), make(Upper, text="!"), make(Join)])
    assert found["join"].why == {"upstream upper changed": 3}


def test_a_lost_tar_is_named(store: Store, src: Path) -> None:
    store.delete(load_manifest(store).refs("upper")[1].key)
    found = estimates(store, src, chain())
    assert found["upper"].why == {"its tar is missing": 1}


def test_cost_scales_with_the_samples_to_do_and_the_recipes_workers(store: Store, src: Path) -> None:
    two = FakeConfig(text="!", resources=Resources(batch_size=2, actors=2, gpus=0.5))
    whole = estimates(store, src, [make(Read), make(Upper, text="!"), make(Join)])["upper"]
    assert whole.bytes == sum(ref.bytes for ref in load_manifest(store).refs("upper").values())
    assert whole.seconds
    assert whole.gpu_hours == 0
    shared = estimates(store, src, [make(Read), Upper(two, MODELS), make(Join)])["upper"]
    assert shared.seconds == pytest.approx(whole.seconds / 2)
    assert shared.gpu_hours == pytest.approx(whole.seconds * 0.5 / 3600)
    write_texts(src, {"q.txt": "one more sample"})
    part = estimates(store, src, chain())["upper"]
    assert (part.to_do, part.samples) == (1, 1)
    assert part.bytes == pytest.approx(whole.bytes / 10, abs=1)
