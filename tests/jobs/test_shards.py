"""shards on what is no shard store: it says what is there, and touches nothing."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from e4t_core.errors import DataError
from e4t_core.storage import Store
from jobs.__main__ import start
from jobs._adapter_set import FACTS
from jobs._units import Unit, commit, publish
from pipelines.shards import plan as plans
from pipelines.shards.pack import HEAD
from tests.jobs.conftest import everything
from tests.shards.fakes import folder_source, people

ACTIONS = ["ls", "verify", "gc"]


def adapters(store: Store) -> None:
    unit = Unit("adapters", 0, "0" * 16, ())
    publish(store, {0: commit(store, unit, {"safetensors": b"tensors"}, {"rows": []})}, [], FACTS, {"kind": "adapters"})


def photos(store: Store) -> None:
    png = io.BytesIO()
    Image.new("RGB", (8, 8)).save(png, "PNG")
    for i in range(5):
        store.put(f"somebody/{i}.png", png.getvalue())


def pack(store: Store) -> None:
    store.put("000000.tar", b"members")
    store.put(HEAD, b"{}")


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (adapters, "its newest version holds adapters"),
        (photos, r"no plan, only somebody/0\.png, somebody/1\.png, somebody/2\.png and more"),
        (pack, r"it is a pack that was made of one \(it has pack\.json\)"),
        (lambda store: None, "nothing is there"),
    ],
)
@pytest.mark.parametrize("action", ACTIONS)
def test_what_is_there_is_named_and_left_alone(action: str, make, found: str, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    make(store)
    before = everything(tmp_path)
    with pytest.raises(DataError, match=f"{store.uri} is no shard store: .*{found}; give the --out of `python -m jobs"):
        start("shards", [action, store.uri, "--grace-hours", "0", "--yes"])
    assert everything(tmp_path) == before


def test_a_store_whose_first_run_is_under_way_is_one(tmp_path: Path) -> None:
    people(tmp_path / "src", 3)
    store = Store(tmp_path / "store")
    plans.resolve(store, folder_source(tmp_path / "src"), 2)
    assert start("shards", ["verify", store.uri])["problems"] == []
    with pytest.raises(DataError, match="has no manifest; `python -m jobs preprocess"):
        start("shards", ["ls", store.uri])
