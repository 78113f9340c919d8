"""Plans: stable, immutable, and growing only at the end."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from e4t_core.errors import DataError
from e4t_core.storage import Store
from pipelines.shards import layout
from pipelines.shards import plan as plans
from pipelines.sources.base import RawSample, Source, SourceConfig, SourceItem
from tests.shards.fakes import folder_source, people, write_texts


class ListSource(Source):
    """Items given by the test."""

    name = "list"
    Config = SourceConfig

    def __init__(self, *items: SourceItem) -> None:
        super().__init__(SourceConfig(name="list", path="/given"))
        self._items = items

    def items(self, limit: int | None = None) -> Iterator[SourceItem]:
        return iter(self._items[:limit])

    def read(self, item: SourceItem) -> RawSample:
        raise AssertionError("a plan reads nothing")


def numbered(*numbers: int, etag: str = "e", place: str = "/x") -> ListSource:
    return ListSource(*(SourceItem(f"id{n:03d}", f"{place}/{n}", etag, {"identity": f"p{n}"}) for n in numbers))


def shards_of(plan: plans.Plan) -> dict[int, list[str]]:
    out: dict[int, list[str]] = {}
    for row in plan.table.select(["id", "shard"]).to_pylist():
        out.setdefault(row["shard"], []).append(row["id"])
    return out


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_ids_are_cut_in_order_whatever_the_listing_order(store: Store) -> None:
    plan = plans.resolve(store, numbered(4, 0, 2, 1, 3), 2)
    assert plan.version == 1
    assert shards_of(plan) == {0: ["id000", "id001"], 1: ["id002", "id003"], 2: ["id004"]}
    assert [(s.number, s.samples, s.group) for s in plan.shards()] == [(0, 2, 0), (1, 2, 1), (2, 1, 2)]


def test_the_same_listing_makes_no_new_plan(store: Store) -> None:
    first = plans.resolve(store, numbered(0, 1, 2), 2)
    again = plans.resolve(store, numbered(2, 1, 0), 2)
    assert (again.version, again.items_key) == (1, first.items_key)
    assert layout.numbers(store, layout.PLANS) == [1]


def test_appending_only_adds_shards(store: Store) -> None:
    before = plans.resolve(store, numbered(10, 20, 30), 2)
    after = plans.resolve(store, numbered(5, 10, 15, 20, 25, 30), 2)
    assert after.version == 2
    assert shards_of(after) == {**shards_of(before), 2: ["id005", "id015"], 3: ["id025"]}
    for old, new in zip(before.shards(), after.shards(), strict=False):
        assert before.inputs(old) == after.inputs(new)


def test_the_shard_size_of_today_cuts_nothing_anew(store: Store) -> None:
    plans.resolve(store, numbered(0, 1, 2), 2)
    assert plans.resolve(store, numbered(0, 1, 2), 3).version == 1
    assert shards_of(plans.resolve(store, numbered(*range(9)), 3)) == {
        0: ["id000", "id001"],
        1: ["id002"],
        2: ["id003", "id004", "id005"],
        3: ["id006", "id007", "id008"],
    }


def test_vanished_ids_leave_their_shard_and_its_number_is_not_used_again(store: Store) -> None:
    plans.resolve(store, numbered(0, 1, 2, 3), 2)
    assert shards_of(plans.resolve(store, numbered(0), 2)) == {0: ["id000"]}
    back = plans.resolve(store, numbered(0, 2), 2)
    assert shards_of(back) == {0: ["id000"], 2: ["id002"]}
    assert [s.group for s in back.shards()] == [0, 1]
    assert [key for key, _ in plans.read_items(store, back.items_key, 1)] == ["id002"]


def test_what_changes_a_shard(store: Store) -> None:
    def inputs(source: Source) -> str:
        plan = plans.derive(None, plans.listing(source, None), 10)
        return plan.inputs(plan.shards()[0])

    same = inputs(numbered(1, 2))
    assert inputs(numbered(1, 2, place="/moved")) == same
    assert inputs(numbered(1, 2, etag="other")) != same
    assert inputs(numbered(1, 3)) != same
    assert inputs(ListSource(*(SourceItem(f"id00{n}", "/x", "e", {}) for n in (1, 2)))) != same


def test_a_moved_source_is_found_at_its_new_place(store: Store) -> None:
    plans.resolve(store, numbered(1, place="/old"), 2)
    plan = plans.resolve(store, numbered(1, place="/new"), 2)
    assert [item.uri for _, item in plans.read_items(store, plan.items_key, 0)] == ["/new/1"]


def test_items_survive_storage(store: Store) -> None:
    items = [SourceItem("a/ö.png", "s3://b/ö.png", '"tag"', {"identity": "p", "n": 1, "list": [1, "x"]})]
    plan = plans.resolve(store, ListSource(*items), 2)
    assert [item for _, item in plans.read_items(store, plan.items_key, 0)] == items


def test_a_limit_is_the_sources(store: Store, tmp_path: Path) -> None:
    people(tmp_path / "src", 9)
    assert plans.resolve(store, folder_source(tmp_path / "src"), 4, limit=5).table.num_rows == 5


def test_duplicate_ids_name_both_files(store: Store) -> None:
    twice = ListSource(SourceItem("a", "/x/a", "1"), SourceItem("b", "/x/b", "1"), SourceItem("a", "/y/a", "1"))
    with pytest.raises(DataError, match=r"'list' lists the id 'a' twice: /[xy]/a and /[xy]/a"):
        plans.resolve(store, twice, 2)


def test_an_empty_source_says_what_it_looked_for(store: Store, tmp_path: Path) -> None:
    write_texts(tmp_path, {"image.jpg": "not text"})
    with pytest.raises(DataError, match=rf"'folder' has no items at '{tmp_path}'; it looks for: A folder of"):
        plans.resolve(store, folder_source(tmp_path), 2)


@pytest.mark.parametrize("bad_id", ["", "broken\udcff.png"])
def test_ids_that_are_no_text_are_named(bad_id: str, store: Store) -> None:
    with pytest.raises(DataError, match=r"/x/broken.*rename it"):
        plans.resolve(store, ListSource(SourceItem(bad_id, "/x/broken", "1")), 2)


def test_racing_planners_agree(store: Store) -> None:
    start = threading.Barrier(6)

    def plan(i: int) -> tuple[int, str]:
        start.wait()
        made = plans.resolve(store, numbered(*range(20 + i % 2)), 4)
        return made.table.num_rows, made.items_key

    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(plan, range(6)))
    assert Counter(rows for rows, _ in made) == {20: 3, 21: 3}
    newest = plans.latest(store)
    assert newest is not None
    ids = newest.table["id"].to_pylist()
    assert len(ids) == len(set(ids))
    for version in layout.numbers(store, layout.PLANS):
        assert shards_of(plans.load(store, version))[0] == ["id000", "id001", "id002", "id003"]
