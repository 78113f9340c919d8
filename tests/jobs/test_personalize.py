"""Personalization in committed units: which identities, what is kept, what is done again, what fails alone."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from e4t_core.errors import CheckpointMismatch, DataError, TooManyBad, UsageError
from e4t_core.methods.base import Adapter, Identity
from e4t_core.storage import Store
from jobs import _recipe
from jobs._adapter_set import AdapterSet
from jobs._people import choose, identity_seed, listed, select
from jobs._sections import PersonalizeConfig
from jobs._units import Unit, committed
from jobs.personalize import Personalizer, Task
from pipelines.loader import ShardDataset
from tests.jobs.conftest import SMALL, everything, killing, start


def words(shards: str, checkpoint: str, out: str | Path) -> tuple[str, ...]:
    return ("--shards", shards, "--checkpoint", checkpoint, "--out", str(out))


def assert_same_adapters(a: str | Path, b: str | Path) -> None:
    there, here = AdapterSet.open(str(a)), AdapterSet.open(str(b))
    people = there.table["identity"].to_pylist()
    assert here.table["identity"].to_pylist() == people
    for identity in people:
        old, new = there.read(identity), here.read(identity)
        assert old.tensors.keys() == new.tensors.keys()
        for name, tensor in old.tensors.items():
            assert torch.equal(tensor, new.tensors[name]), (identity, name)


# --- which identities


def config(**fields: Any) -> PersonalizeConfig:
    return PersonalizeConfig(**fields)


def test_both_bounds_are_included_and_the_first_are_taken() -> None:
    groups = {f"p{n}": ["x"] * n for n in (1, 2, 3, 4, 5)}
    assert list(select(groups, config(min_images=2, max_images=4), "here")) == ["p2", "p3", "p4"]
    assert list(select(groups, config(max_identities=2), "here")) == ["p1", "p2"]
    with pytest.raises(UsageError, match=r"no identity in here has 9 to any number of images .*5 with 1 to 5 images"):
        select(groups, config(min_images=9), "here")
    with pytest.raises(UsageError, match="its samples have no identity"):
        select({}, config(), "here")


def test_dry_run_counts_from_the_listing_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = _recipe.SOURCES.get("tiny_world")
    monkeypatch.setattr(source, "read", lambda *_: pytest.fail("a dry run opens no image"))
    plan = start("personalize", "--out", str(tmp_path / "new"), "--dry-run", sets=("personalize.max_identities=null",))
    assert (plan["identities"], plan["images"], plan["units"]) == (5, 10, 3)
    assert start("personalize", "--dry-run")["identities"] == 3
    assert not (tmp_path / "new").exists()


def test_dry_run_counts_from_a_manifest(shards: str) -> None:
    plan = start("personalize", "--shards", shards, "--dry-run", sets=("personalize.max_identities=4",))
    assert (plan["identities"], plan["units"]) == (4, 2)


def test_samples_without_identity_are_left_out() -> None:
    source = _recipe.load("tiny", ["source.identities=2", "source.images_per_identity=3"]).build_source()
    assert [len(ids) for ids in listed(source, None).values()] == [3, 3]
    assert len(listed(source, 4)) == 2


def test_the_draw_depends_on_seed_and_identity_only(shards: str) -> None:
    dataset = ShardDataset.open(shards)
    whole = {one.identity: one.keys for one in choose(dataset, config(), 0)}
    part = {one.identity: one.keys for one in choose(dataset, config(max_identities=2), 0)}
    assert part.items() <= whole.items()
    others = [tuple(one.keys for one in choose(dataset, config(), seed)) for seed in range(8)]
    assert len(set(others)) > 1
    groups = dataset.identities()
    keys = dataset.table["key"].to_pylist()
    assert all(key in {keys[row] for row in groups[identity]} for identity, (key,) in whole.items())


# --- what comes out


def test_every_identity_has_a_row_and_an_adapter(personalized: dict[str, Any], adapters: str, checkpoint: str) -> None:
    assert (personalized["identities"], personalized["failed"], personalized["units"]) == (3, 0, 2)
    found = AdapterSet.open(adapters)
    rows = found.table.to_pylist()
    assert [row["identity"] for row in rows] == [f"face-train-{n:06d}" for n in range(3)]
    assert [row["unit"] for row in rows] == [0, 0, 1]
    for row in rows:
        assert (row["status"], row["message"], row["steps"]) == ("ok", "", 2)
        assert row["seconds"] > 0
        assert row["seconds_setup"] > 0
        assert row["peak_memory_bytes"] > 10_000_000
        assert row["seed"] == identity_seed(0, row["identity"])
        adapter = found.read(row["identity"])
        assert row["bytes"] == sum(t.numel() * t.element_size() for t in adapter.tensors.values()) > 0
        assert row["loss"] == adapter.meta["losses"][-1]
    assert found.manifest["inputs"]["checkpoint"] == checkpoint
    assert found.manifest["recipe"]["method"]["name"] == "e4t"


def test_facts_lie_beside_the_tensors_of_each_unit(adapters: str) -> None:
    store, found = Store(adapters), AdapterSet.open(adapters)
    rows = []
    for unit in found.manifest["units"]:
        data = store.read(unit["files"]["parquet"]["key"])
        rows += pq.read_table(io.BytesIO(data)).to_pylist()
    assert rows == found.table.to_pylist()


def test_again_has_nothing_to_do(
    personalized: dict[str, Any], shards: str, checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = everything(Path(personalized["out"]))
    again = start("personalize", *words(shards, checkpoint, personalized["out"]))
    assert again == personalized
    assert everything(Path(personalized["out"])) == before
    assert "nothing to do" in capsys.readouterr().err


def test_only_what_is_missing_is_done(adapters: str, shards: str, checkpoint: str, tmp_path: Path) -> None:
    """Two more identities, and a lost commit: one unit grows, one is new, one is as it was."""
    out = tmp_path / "adapters"
    shutil.copytree(adapters, out)
    first = next((out / "commits" / "adapters").glob("000000-*.json"))
    first.unlink()
    summary = start("personalize", *words(shards, checkpoint, out), sets=("personalize.max_identities=5",))
    assert (summary["identities"], summary["version"], summary["units"]) == (5, 2, 3)
    assert first.exists()
    old, new = AdapterSet.open(str(out), 1), AdapterSet.open(str(out), 2)
    for identity in old.table["identity"].to_pylist():
        a, b = old.read(identity), new.read(identity)
        assert all(torch.equal(a.tensors[n], b.tensors[n]) for n in a.tensors), "company changes nothing"


def test_killed_worker_loses_nothing(adapters: str, shards: str, checkpoint: str, tmp_path: Path) -> None:
    out = tmp_path / "adapters"
    sets = ("personalize.identities_per_shard=1",)
    with killing("Personalizer", lambda: any((out / "commits").rglob("*.json"))) as killed:
        summary = start("personalize", *words(shards, checkpoint, out), sets=sets)
    assert len(killed) == 1
    assert (summary["identities"], summary["units"]) == (3, 3)
    assert len(list((out / "commits" / "adapters").iterdir())) == 3
    assert_same_adapters(adapters, out)


def test_without_shards_they_are_made_from_the_source(
    shards: str, checkpoint: str, adapters: str, tmp_path: Path
) -> None:
    """One column is missing in what lies there: it is made, a version is published, and that is worked on."""
    out = tmp_path / "adapters"
    shutil.copytree(shards, out / "shards")
    for folder in ("manifests", "commits/caption"):
        shutil.rmtree(out / "shards" / folder)
    sets = ("personalize.max_identities=1",)
    summary = start("personalize", "--checkpoint", checkpoint, "--out", str(out), sets=sets)
    assert summary["identities"] == 1
    assert summary["shards"] == f"{out}/shards#1"
    assert ShardDataset.open(f"{out}/shards").columns == ShardDataset.open(shards).columns
    identity = AdapterSet.open(str(out)).table["identity"][0].as_py()
    a, b = AdapterSet.open(str(out)).read(identity), AdapterSet.open(adapters).read(identity)
    assert all(torch.equal(a.tensors[n], b.tensors[n]) for n in a.tensors)


# --- what fails


def personalizer(shards: str, checkpoint: str, out: Path, *sets: str) -> Personalizer:
    """The actor's class in this process."""
    recipe = _recipe.load("tiny", [*SMALL, *sets])
    return Personalizer(Task(recipe, shards, 1, checkpoint, str(out), {"shards": shards}))


def test_one_bad_identity_fails_alone(
    monkeypatch: pytest.MonkeyPatch, shards: str, checkpoint: str, adapters: str, tmp_path: Path
) -> None:
    actor = personalizer(shards, checkpoint, tmp_path)
    method = actor.loaded.method
    real, calls = method.personalize, []

    def personalize(module: Any, backbone: Any, identities: Sequence[Identity]) -> list[Adapter]:
        calls.append([one.id for one in identities])
        if any(one.id.endswith("1") for one in identities):
            raise ValueError("the loss is nan")
        adapters: list[Adapter] = real(module, backbone, identities)
        return adapters

    monkeypatch.setattr(method, "personalize", personalize)
    chosen = choose(actor.dataset, actor.task.recipe.personalize, 0)
    unit = Unit("adapters", 0, "f" * 16, tuple(chosen))
    assert actor.run(unit) == 1
    commit = committed(Store(tmp_path), [unit])[0]
    facts = {row["identity"][-1]: (row["status"], row["message"]) for row in commit["rows"]}
    assert facts == {"0": ("ok", ""), "1": ("failed", "ValueError: the loss is nan"), "2": ("ok", "")}
    assert [len(call) for call in calls] == [3, 1, 2, 1, 1]
    assert len(json.dumps(commit["rows"])) > 100


def test_too_many_failures_end_with_code_3_and_keep_the_rest(shards: str, checkpoint: str, tmp_path: Path) -> None:
    sets = ("method.personalize.base_lr=1e30", "personalize.max_identities=2")
    with pytest.raises(
        TooManyBad, match=r"2 of 2 identities failed.*allowed_failed_share = 0.*loss is (nan|inf)"
    ) as error:
        start("personalize", *words(shards, checkpoint, tmp_path), sets=sets)
    assert error.value.exit_code == 3
    assert error.value.facts["failed"] == 2
    found = AdapterSet.open(str(tmp_path))
    assert set(found.table["status"].to_pylist()) == {"failed"}
    with pytest.raises(UsageError, match=r"the personalization of .* failed"):
        found.read(found.table["identity"][0].as_py())
    allowed = (*sets, "personalize.allowed_failed_share=1.0")
    assert start("personalize", *words(shards, checkpoint, tmp_path), sets=allowed)["failed"] == 2
    commits = tmp_path / "commits" / "adapters"
    tries = len(list(commits.iterdir()))
    assert start("personalize", *words(shards, checkpoint, tmp_path), "--retry-failed", sets=allowed)["failed"] == 2
    assert len(list(commits.iterdir())) == 2 * tries
    start("personalize", *words(shards, checkpoint, tmp_path), sets=allowed)  # the newest try stands
    assert len(list(commits.iterdir())) == 2 * tries


def test_a_checkpoint_of_another_recipe_is_refused(shards: str, checkpoint: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointMismatch, match=r"method\.scale is 0\.1 there and 0\.3 here"):
        start("personalize", *words(shards, checkpoint, tmp_path), sets=("method.scale=0.3",))
    with pytest.raises(UsageError, match=r"--checkpoint is required: .*python -m jobs pretrain"):
        start("personalize", "--shards", shards, "--out", str(tmp_path))
    with pytest.raises(DataError, match="no finished pre-training"):
        start("personalize", *words(shards, shards, tmp_path))
    assert not list(tmp_path.rglob("*.safetensors"))


def test_damaged_tensors_are_refused(adapters: str, tmp_path: Path) -> None:
    shutil.copytree(adapters, tmp_path / "a")
    path = next((tmp_path / "a" / "data" / "adapters").glob("000000-*.safetensors"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    found = AdapterSet.open(str(tmp_path / "a"))
    people = found.table["identity"].to_pylist()
    with pytest.raises(DataError, match="not what was committed"):
        [found.read(identity) for identity in people]
    assert found.read(people[-1]).tensors, "the other unit is whole"
