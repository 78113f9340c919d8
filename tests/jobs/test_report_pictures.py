"""The small pictures of all identities: in the page while they are few, else beside it, and never made twice."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from e4t_core.errors import DataError
from e4t_core.storage import Store
from jobs._report import pictures
from jobs._report.browser import context
from jobs._report.grid import NOTHING, UNSCORED, Grid
from jobs._report.inputs import Entry, Shards, load_entries
from jobs._report.pictures import FOLDER, Pictures, collect
from tests.jobs import evaluations

SIDE = 32
PEOPLE = 9


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> list[Entry]:
    """Two methods; the second did not get the last person, and one score of the first is unknown."""
    folder = tmp_path_factory.mktemp("scored")
    names = evaluations.names(PEOPLE)
    first = evaluations.write(folder, names, {"e4t": 0.6}, SIDE)
    second = evaluations.write(folder, names[:-1], {"lora": 0.4}, SIDE)
    entries = load_entries([*first, *second], [])
    entries[0].rows.loc[entries[0].rows.index[4], "score_clip_t"] = np.nan
    return entries


@pytest.fixture(scope="module")
def shards(entries: list[Entry]) -> Shards:
    return Shards.load(entries[0].result["shards"]["uri"], 1)


@pytest.fixture(scope="module")
def grid(entries: list[Entry]) -> Grid:
    return Grid.of(entries)


def made(entries: list[Entry], grid: Grid, shards: Shards, store: Store, budget: int = 0) -> tuple[Pictures, list[int]]:
    """The contacts, and what was reported as done."""
    told: list[int] = []
    return collect(entries, grid, shards, range(len(grid.identities)), store, budget, told.append), told


def test_each_cell_has_its_picture(entries: list[Entry], grid: Grid, shards: Shards, tmp_path: Path) -> None:
    found, _ = made(entries, grid, shards, Store(tmp_path))
    assert (found.columns, found.rows, found.side) == (3, 3, SIDE)
    for number, name in enumerate(grid.identities):
        with Image.open(tmp_path / FOLDER / f"{found.names[number]}.webp") as image:
            cells = np.asarray(image.convert("RGB"), np.int16).reshape(3, SIDE, 3, SIDE, 3).swapaxes(1, 2)
        rows = entries[0].first[entries[0].first["identity"] == name]
        wanted = {(0, 0): shards.photos([rows["input_key"].iloc[0]])[0]}
        for at, entry in enumerate(entries, 1):
            mine = entry.first[entry.first["identity"] == name]
            wanted |= {(at, column): data for column, data in enumerate(entry.pictures(mine))}
        assert len(wanted) == (7 if name in set(entries[1].rows["identity"]) else 4)
        for place, data in wanted.items():
            with Image.open(io.BytesIO(data)) as drawn:
                assert np.abs(cells[place] - np.asarray(drawn.convert("RGB"), np.int16)).mean() < 12  # WebP is lossy


def test_few_go_into_the_page_and_many_beside_it(
    entries: list[Entry], grid: Grid, shards: Shards, tmp_path: Path
) -> None:
    inside, _ = made(entries, grid, shards, Store(tmp_path), budget=10**6)
    assert sorted(inside.inside) == sorted(inside.names.values())
    assert not (tmp_path / FOLDER).exists()
    beside, _ = made(entries, grid, shards, Store(tmp_path), budget=inside.size - 1)
    assert beside.inside == {}
    assert {p.stem: p.read_bytes() for p in (tmp_path / FOLDER).iterdir()} == inside.inside
    again, _ = made(entries, grid, shards, Store(tmp_path), budget=inside.size)
    assert again.inside == inside.inside
    assert not list((tmp_path / FOLDER).iterdir())  # a page that holds all needs no folder


def test_what_was_made_is_not_made_again(
    entries: list[Entry], grid: Grid, shards: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report that was killed half-way goes on; pictures of another evaluation go, files of others stay."""
    first, told = made(entries, grid, shards, Store(tmp_path))
    assert sum(told) == PEOPLE
    folder = tmp_path / FOLDER
    lost = folder / f"{first.names[2]}.webp"
    kept = {p.name: p.stat().st_mtime_ns for p in folder.iterdir() if p != lost}
    lost.unlink()
    (folder / "0123456789abcdef.webp").write_bytes(b"of another evaluation")
    (folder / "mine.webp").write_bytes(b"put here by somebody")
    work: list[int] = []
    make = pictures._Contacts.make
    monkeypatch.setattr(pictures._Contacts, "make", lambda self, numbers: work.extend(numbers) or make(self, numbers))
    again, _ = made(entries, grid, shards, Store(tmp_path))
    assert work == [2]
    assert again == first
    assert {p.name for p in folder.iterdir()} == {*kept, lost.name, "mine.webp"}
    assert {name: (folder / name).stat().st_mtime_ns for name in kept} == kept


def test_few_pictures_are_held_at_once(
    entries: list[Entry], grid: Grid, shards: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    make = pictures._Contacts.make
    monkeypatch.setattr(pictures, "_AT_ONCE", 13)
    monkeypatch.setattr(pictures._Contacts, "make", lambda self, n: sizes.append(len(n)) or make(self, n))
    made(entries, grid, shards, Store(tmp_path))
    assert sizes == [2, 2, 2, 2, 1]  # of two methods under three prompts


def test_an_image_that_is_gone_is_named(entries: list[Entry]) -> None:
    rows = entries[0].first.assign(index=7)
    with pytest.raises(DataError, match="has no image photo/7 of"):
        entries[0].pictures(rows)


def test_figures_are_read_without_their_pictures(entries: list[Entry], tmp_path: Path) -> None:
    moved = dataclasses.replace(entries[0], place=str(tmp_path / "elsewhere"))
    assert moved.means("identity") == entries[0].means("identity")
    with pytest.raises(DataError, match="elsewhere has no manifest"):
        moved.pictures(moved.rows.head(1))


def test_scores_survive_their_packing(entries: list[Entry], grid: Grid) -> None:
    columns, packed = grid.packed()
    for values, pictures_IP, text in zip(grid.values, grid.pictures, packed, strict=True):
        codes = np.frombuffer(base64.b64decode(text), "<u2").reshape(values.shape)
        for at, column in enumerate(columns):
            known = np.isfinite(values[:, :, at])
            back = column["low"] + codes[:, :, at] / 65533 * (column["high"] - column["low"])
            np.testing.assert_allclose(back[known], values[:, :, at][known], atol=1e-4)
            np.testing.assert_array_equal(codes[:, :, at] == NOTHING, pictures_IP == -1)
            np.testing.assert_array_equal(codes[:, :, at] == UNSCORED, ~known & (pictures_IP >= 0))
    assert (grid.pictures[1] < 0).sum() == 3
    assert np.isnan(grid.values[0]).any()


def test_a_prompts_score_is_the_mean_over_its_images(entries: list[Entry], grid: Grid) -> None:
    rows = entries[0].rows
    cell = rows[(rows["identity"] == grid.identities[3]) & (rows["prompt"] == "sketch")]
    twice = pd.concat([cell, cell.assign(index=1, score_clip_t=cell["score_clip_t"] + 1)])
    entry = Entry(entries[0].label, 0, entries[0].figures, twice, entries[0].result, entries[0].place)
    column = list(grid.scores).index("clip_t")
    assert Grid.of([entry]).values[0][0, 0, column] == pytest.approx(cell["score_clip_t"].iloc[0] + 0.5)


def test_no_name_ends_the_script(entries: list[Entry], grid: Grid, shards: Shards, tmp_path: Path) -> None:
    found, _ = made(entries, grid, shards, Store(tmp_path), budget=10**6)
    grid.identities[0], kept = "</script><b>", grid.identities[0]
    try:
        text = str(context(entries, grid, found, 12, "somewhere")["data"])
    finally:
        grid.identities[0] = kept
    assert not re.search("<", text)
    assert json.loads(text)["identities"][0] == "</script><b>"
