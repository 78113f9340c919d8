"""shards pack and shards stats as a user runs them, and the page that stats draws."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from e4t_core.storage import Store
from jobs import _shard_page
from jobs.__main__ import main
from jobs._shard_page import binned
from jobs._shard_sheets import drawn, sheets, spread
from pipelines.loader import ShardDataset
from pipelines.shards.stats import measure
from tests.jobs.conftest import everything
from tests.jobs.test_report import Node, Tree
from tests.shards.fakes import chain, folder_source, write_texts
from tests.shards.support import build
from tests.shards.world import build_world

NASTY = '<script>alert("x")</script>&amp;'


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Eight and two samples of five people."""
    return build_world(tmp_path_factory.mktemp("world"), samples_per_shard=8).uri


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any], str]:
    code = main(["shards", *words, "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out.splitlines()[-1]), err


def section(root: Node, name: str) -> Node:
    (found,) = [s for s in root.all("section") if s.attributes.get("id") == name]
    return found


# --- pack


def test_pack_twice_writes_once(capsys, shards: str, tmp_path: Path) -> None:
    to = tmp_path / "pack"
    words = ["pack", shards, "--to", str(to), "--columns", "caption,ingest", "--samples-per-shard", "4"]
    code, plan, _ = run(capsys, *words, "--dry-run")
    assert (code, plan["samples"], plan["columns"], to.exists()) == (0, 10, ["ingest", "caption"], False)
    code, done, err = run(capsys, *words)
    assert (code, done["tars"], done["made"], done["columns"]) == (0, 3, 3, ["ingest", "caption"])
    assert "3 tars" in err
    before = everything(to)
    assert sorted(before) == ["000000.tar", "000001.tar", "000002.tar", "index.parquet", "pack.json"]
    code, again, _ = run(capsys, *words)
    assert (code, again["made"], again["kept"]) == (0, 0, 3)
    assert everything(to) == before


def test_pack_says_what_is_wrong(capsys, shards: str, tmp_path: Path) -> None:
    code, summary, _ = run(capsys, "pack", shards)
    assert (code, "--to is required" in summary["error"]) == (2, True)
    for words, right in [
        (["--columns", "ingest,lidb"], "it has ingest, mask, caption"),
        (["--version", "5"], "it has 1"),
    ]:
        code, summary, _ = run(capsys, "pack", shards, "--to", str(tmp_path / "to"), *words)
        assert (code, right in summary["error"]) == (2, True)
    assert not (tmp_path / "to").exists()


# --- stats


@pytest.fixture(scope="module")
def page(shards: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stats")
    assert main(["shards", "stats", shards, "--to", str(folder), "--sheets", "1"]) == 0
    return folder


@pytest.fixture(scope="module")
def root(page: Path) -> Node:
    return Tree((page / "stats.html").read_text()).root


def test_the_page_needs_nothing_from_elsewhere(root: Node) -> None:
    assert not root.all("script") + root.all("link")
    images = root.all("img")
    assert images
    assert all(image.attributes["src"].startswith("data:image/") for image in images)
    assert [a.attributes["href"] for a in root.all("a")] == ["sheets/000000.png"]


def test_the_page_and_its_numbers_are_those_of_the_store(capsys, page: Path, root: Node, shards: str) -> None:
    numbers = json.loads((page / "stats.json").read_text())
    assert numbers == json.loads(json.dumps(measure(Store(shards))))
    tiles = {node.all("dt")[0].text: node.all("dd")[0].text for node in root.all("dl", cls="tiles")[0].all("div")}
    assert (tiles["planned"], tiles["good"], tiles["quarantined"], tiles["identities"]) == ("10", "10", "0", "5")
    rows = section(root, "columns").all("tr")[1:]
    assert [row.all("th")[0].text for row in rows] == ["ingest", "mask", "caption", "clip"]
    assert "whole" in section(root, "quarantine").text
    styles = next(a for a in section(root, "labels").all("article") if a.attributes["data-label"] == "style")
    counts = [int(row.all("dd")[1].text) for row in styles.all("div")]
    assert counts == [n for _, n in numbers["labels"]["style"]["largest"]]
    code, told, _ = run(capsys, "stats", shards)
    assert (code, told["samples"], "page" in told) == (0, 10, False)


def test_the_page_says_how_many_shards_it_shows(page: Path, root: Node) -> None:
    text = section(root, "sheets").text
    assert "1 of 2 shards" in text
    assert "8 of 8 good samples" in text
    assert sorted(p.name for p in (page / "sheets").iterdir()) == ["000000.png"]


def test_a_sheet_shows_each_picture_with_its_masks_outline(page: Path, shards: str) -> None:
    dataset = ShardDataset.open(shards)
    with Image.open(page / "sheets" / "000000.png") as image:
        sheet = np.asarray(image)
    assert sheet.shape == (96, 8 * 99 - 3, 4)
    sample = dataset.samples([1], ["ingest", "mask"])[0]
    with Image.open(io.BytesIO(sample["image.png"])) as image:
        plain = np.asarray(image.convert("RGB").resize((96, 96), Image.Resampling.LANCZOS))
    with Image.open(io.BytesIO(sample["mask.png"])) as mask:
        inside = np.asarray(mask.resize((96, 96), Image.Resampling.BILINEAR)) >= 128
    cell = sheet[:, 99:195, :3]
    changed = (cell != plain).any(axis=2)
    border = inside != np.roll(inside, 1, axis=0)
    border[0] = False
    assert 0 < changed.mean() < 0.25
    assert changed[border].all()
    assert (sheet[:, 96:99, 3] == 0).all()


def test_a_bucket_takes_the_page_too(capsys, shards: str, moto_s3: Callable[[], str]) -> None:
    to = moto_s3() + "/pages/people"
    code, summary, _ = run(capsys, "stats", shards, "--to", to, "--sheets", "2")
    assert (code, summary["page"]) == (0, f"{to}/stats.html")
    names = ["sheets/000000.png", "sheets/000001.png", "stats.html", "stats.json"]
    assert [entry.key for entry in Store(to).list()] == names


def test_which_shards_and_samples_are_shown_is_always_the_same(shards: str) -> None:
    assert spread(10, 4) == [0, 3, 6, 9]
    assert spread(3, 64) == [0, 1, 2]
    assert spread(0, 4) == spread(5, 0) == []
    dataset = ShardDataset.open(shards)
    assert drawn(dataset, 16) == [0, 1]
    first, second = ([s.png() for s in sheets(dataset, [0, 1])] for _ in range(2))
    assert first == second


def test_equal_numbers_share_bars_of_one_width() -> None:
    assert binned([[2, 5], [4, 1]], 40) == ([2, 3, 4, 5], [5, 0, 1])
    edges, counts = binned([[n, 1] for n in range(1, 101)], 40)
    assert (edges[0], set(np.diff(edges)), sum(counts)) == (1, {3}, 100)
    assert len(counts) == len(edges) - 1 <= 40


def test_every_text_is_escaped(shards: str) -> None:
    figures = copy.deepcopy(measure(Store(shards)))
    example = {"id": NASTY, "message": NASTY}
    figures["quarantine"] = [{"stage": NASTY, "reason": NASTY, "count": 1, "examples": [example]}]
    figures["identities"] |= {"largest": [[NASTY, 2]], "images": [[1, 1], [2, 4]]}
    figures["labels"] = {
        NASTY: {"samples": 2, "distinct": 1, "largest": [[NASTY, 2]], "others": {"values": 0, "samples": 0}}
    }
    figures["captions"] |= {"largest": [[NASTY, 2]], "distinct": 9}
    figures["recipe"] = {"name": NASTY, "hash": NASTY}
    figures["uri"] = NASTY
    text = _shard_page.render(figures, ShardDataset.open(shards), [], NASTY)
    root = Tree(text).root
    assert not root.all("script")
    for name in ("identities", "labels", "captions", "quarantine", "lineage"):
        assert NASTY.replace("&amp;", "") in section(root, name).text
    assert text.count(NASTY) == 0


def test_numbers_of_many_values_are_a_plot_and_quarantine_names_its_samples(shards: str) -> None:
    figures = copy.deepcopy(measure(Store(shards)))
    histogram = {"edges": [0.0, 0.5, 1.0], "counts": [3, 7]}
    figures["labels"] = {
        "age": {"samples": 10, "distinct": 99, "low": 0, "high": 1, "mean": 0.6, "histogram": histogram}
    }
    examples = [{"id": f"photo-{i}", "message": "it is torn"} for i in range(5)]
    figures["quarantine"] = [{"stage": "ingest", "reason": "truncated", "count": 1200, "examples": examples}]
    root = Tree(_shard_page.render(figures, ShardDataset.open(shards), [], "")).root
    assert [bar.text for bar in section(root, "labels").all("rect")] == ["3", "7"]
    told = section(root, "quarantine")
    assert [code.text for code in told.all("code")] == [f"photo-{i}" for i in range(5)]
    assert "1\N{NARROW NO-BREAK SPACE}195 more" in told.text


def test_a_store_without_pictures_or_good_samples_still_has_a_page(capsys, tmp_path: Path) -> None:
    write_texts(tmp_path / "src", {"q.txt": "bad"})
    build(Store(tmp_path / "store"), folder_source(tmp_path / "src"), chain())
    code, summary, _ = run(capsys, "stats", str(tmp_path / "store"), "--to", str(tmp_path / "to"))
    assert (code, summary["sheets"], summary["quarantined"]) == (0, 0, 1)
    root = Tree((tmp_path / "to" / "stats.html").read_text()).root
    assert "No contact sheets were drawn" in section(root, "sheets").text
    assert "bad text" in section(root, "quarantine").text
