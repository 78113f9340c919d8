"""Committed units and run folders, on local paths and on S3: nothing half-written is seen, one racer wins."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from torch import nn

from e4t_core.errors import CheckpointMismatch, DataError, UsageError
from e4t_core.methods.base import Adapter
from e4t_core.record import Record
from e4t_core.storage import Store
from e4t_core.training import TrainState, load_module
from jobs._adapter_set import FACTS, AdapterSet, pack
from jobs._recipe import load
from jobs._run_folder import MODULE, Data, RunFolder
from jobs._units import Unit, commit, committed, open_version, publish
from pipelines.shards import layout

ROWS = pa.schema([("unit", pa.int32()), ("what", pa.string())])
DATA = Data("s3://somewhere/shards", 1, "f" * 16)


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return Store(tmp_path / "store")
    bucket: Callable[[], str] = request.getfixturevalue("moto_s3")
    return Store(f"{bucket()}/store")


def unit(number: int, fingerprint: str = "a" * 16) -> Unit:
    return Unit("images", number, fingerprint, ("x",))


def rows(commits: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for number in sorted(commits) for row in commits[number]["rows"]]


# --- units


def test_a_unit_is_done_when_its_commit_is(store: Store) -> None:
    units = [unit(0), unit(1)]
    assert committed(store, units) == {}
    store.put("data/images/000000-0123456789abcdef.tar", b"written, but never committed")
    assert committed(store, units) == {}
    commit(store, unit(1), {"tar": b"one"}, {"rows": [{"unit": 1, "what": "b"}]})
    done = committed(store, units)
    assert list(done) == [1]
    assert store.read(done[1]["files"]["tar"]["key"]) == b"one"
    assert committed(store, [unit(1, "b" * 16)]) == {}, "another fingerprint is other work"


def test_the_first_commit_stands(store: Store) -> None:
    first = commit(store, unit(0), {"tar": b"mine"}, {"rows": [{"unit": 0, "what": "mine"}]})
    second = commit(store, unit(0), {"tar": b"yours"}, {"rows": [{"unit": 0, "what": "yours"}]})
    assert second == first
    assert second["rows"][0]["what"] == "mine"


def test_racers_publish_one_version(store: Store) -> None:
    units = [unit(n) for n in range(3)]
    for one in units:
        commit(store, one, {"tar": b"%d" % one.number}, {"rows": [{"unit": one.number, "what": "x"}]})
    done = committed(store, units)

    def finish(_: int) -> int:
        return int(publish(Store(store.uri), done, rows(done), ROWS, {"kind": "images"})["version"])

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(finish, range(4))) == {1}
    del done[2]
    assert publish(store, done, rows(done), ROWS, {"kind": "images"})["version"] == 2
    _, manifest, table = open_version(store.uri, "images", 1, "generate")
    assert (manifest["version"], table.num_rows) == (1, 3)
    assert open_version(store.uri, "images", None, "generate")[2].num_rows == 2
    with pytest.raises(DataError, match=r"no version 7 \(it has \[1, 2\]\)"):
        open_version(store.uri, "images", 7, "generate")


def test_what_is_no_commit_and_what_is_newer_is_said(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(unit(0).key, b"{}")
    with pytest.raises(DataError, match="is no commit of a unit; delete it"):
        committed(store, [unit(0)])
    store.put(layout.numbered_key("manifests", 1), b'{"kind": "images", "schema": 99}')
    with pytest.raises(DataError, match="reads up to 1: upgrade e4t"):
        open_version(store.uri, "images", None, "generate")


# --- adapters


def test_adapters_come_back_as_they_were_one_at_a_time(store: Store) -> None:
    """Mixed types are not laid out by identity; names that begin alike stay apart."""
    rng = torch.Generator().manual_seed(0)
    people = {
        name: Adapter(
            "e4t",
            name,
            {
                "denoiser.w": torch.randn(3, 4, generator=rng).bfloat16(),
                "offsets.a/b.u": torch.randn(5, generator=rng),
                "count": torch.arange(3),
            },
            {"image": 0},
        )
        for name in ("Ann", "Ann Lee", "B/c.d")
    }
    people["Empty"] = Adapter("e4t", "Empty", {}, {})
    data, sizes = pack(people, Record.of("adapters", {}))
    facts = [
        {"identity": name, "unit": 0, "status": "ok", "meta_json": '{"image": 0}', **sizes[name]} for name in people
    ]
    commit(store, Unit("adapters", 0, "a" * 16, ()), {"safetensors": data}, {"rows": facts})
    done = committed(store, [Unit("adapters", 0, "a" * 16, ())])
    publish(store, done, facts, FACTS, {"kind": "adapters", "method": "e4t"})
    found = AdapterSet.open(store.uri)
    for name, adapter in people.items():
        back = found.read(name)
        assert back.tensors.keys() == adapter.tensors.keys()
        for key, tensor in adapter.tensors.items():
            assert back.tensors[key].dtype == tensor.dtype
            assert torch.equal(back.tensors[key], tensor)
    with pytest.raises(UsageError, match="has no adapter of 'Anne'; did you mean 'Ann'"):
        found.read("Anne")


# --- run folders


def state(step: int) -> TrainState:
    value = torch.full((2,), float(step))
    return TrainState(step, {"weight": value}, {"weight.exp_avg": value.clone()}, None, {"position": step})


class Weights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))


def test_a_half_written_checkpoint_is_never_seen(store: Store) -> None:
    folder, record = RunFolder(store), Record.of("checkpoint", load("tiny").dump())
    assert folder.steps() == []
    folder.save(state(2), record, [{"step": 1, "loss": 0.5}])
    store.put("checkpoints/step-000004/metrics.jsonl", b"")
    store.put("checkpoints/step-000004/state.safetensors", b"begun")
    assert folder.steps() == [2]
    back, curve = folder.load(2, record)
    assert (back.step, back.loader) == (2, {"position": 2})
    assert torch.equal(back.module["weight"], state(2).module["weight"])
    assert curve == [{"step": 1, "loss": 0.5}]


def test_old_checkpoints_go_and_the_newest_two_stay(store: Store) -> None:
    folder, record = RunFolder(store), Record.of("checkpoint", load("tiny").dump())
    for step in (2, 4, 6, 1_000_000):
        folder.save(state(step), record, [])
    assert folder.steps() == [6, 1_000_000]
    assert {entry.key.split("/")[1] for entry in store.list("checkpoints")} == {"step-000006", "step-1000000"}


def test_a_checkpoint_of_another_recipe_is_refused(store: Store) -> None:
    folder = RunFolder(store)
    folder.save(state(2), Record.of("checkpoint", load("tiny").dump()), [])
    elsewhere = Record.of("checkpoint", load("tiny", ["workers.num_workers=4", "source.limit=3"]).dump())
    assert folder.load(2, elsewhere)[0].step == 2
    with pytest.raises(CheckpointMismatch, match=r"train\.batch_size is 16 there and 8 here"):
        folder.load(2, Record.of("checkpoint", load("tiny", ["train.batch_size=8"]).dump()))


def test_a_run_begins_once(store: Store) -> None:
    folder, recipe = RunFolder(store), load("tiny").dump()
    assert folder.pinned() is None
    folder.check(recipe, DATA)
    name = folder.begin(recipe, DATA, {})
    assert folder.begin(recipe, DATA, {}) == name
    assert folder.pinned() == DATA
    with pytest.raises(UsageError, match=r"shards are version 1 of s3://somewhere/shards .* there and version 2"):
        folder.begin(recipe, Data(DATA.uri, 2, "e" * 16), {})
    folder.begin(recipe, Data("s3://moved/elsewhere", 1, DATA.fingerprint), {})


def test_a_finished_run_has_its_module_and_its_hash(store: Store) -> None:
    folder, module = RunFolder(store), Weights()
    record = Record("checkpoint", {}, "0" * 16, {}, {"steps": 2})
    folder.finish(module, state(2), record, [{"step": 2, "loss": 1.0}])
    assert folder.trained().facts.keys() == {"steps", "sha256"}
    assert folder.curve() == [{"step": 2, "loss": 1.0}]
    fresh = Weights()
    load_module(store, MODULE, fresh)
    assert torch.equal(fresh.weight, torch.full((2,), 2.0)), "the state's weights, not the module's own"
