"""The report: one page with nothing outside it, and figures that are those of the evaluation."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from PIL import Image, ImageFont

from e4t_core.methods import METHODS
from e4t_core.storage import Store
from jobs.__main__ import main
from jobs._report import gallery, plots, published, words
from jobs._report.inputs import _labels, load_entries
from jobs._report.ranking import choose, ranking
from tests.jobs import people

VOID = {"meta", "img", "br", "link", "input", "hr"}
OTHER = "hyperdreambooth"
NAMED = 'b&w <i>"twin"</i>'
"""An identity that would break a page that does not escape."""


@dataclass
class Node:
    """One element."""

    tag: str
    attributes: dict[str, str]
    children: list[Node | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text below, plain spaces collapsed."""
        parts = (c if isinstance(c, str) else c.text for c in self.children)
        return re.sub(r"[ \n]+", " ", " ".join(parts)).strip()

    def all(self, tag: str = "", **attributes: str) -> list[Node]:
        """Elements below with this tag and these attributes (``cls`` for class), in order."""
        found = []
        wanted = {k.replace("cls", "class"): v for k, v in attributes.items()}
        for child in self.children:
            if isinstance(child, Node):
                fits = all(v in child.attributes.get(k, "").split() for k, v in wanted.items())
                found += [child] if fits and tag in ("", child.tag) else []
                found += child.all(tag, **attributes)
        return found


class Tree(HTMLParser):
    """Builds the elements, and insists that every one is closed by its own end tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.root = Node("", {})
        self.open = [self.root]
        self.feed(text)
        self.close()
        assert self.open == [self.root], f"never closed: {[n.tag for n in self.open[1:]]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {k: v or "" for k, v in attrs})
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].children.append(Node(tag, {k: v or "" for k, v in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


@pytest.fixture(autouse=True)
def _no_server_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods evaluated on five people; one photo is broken, one person could not be learned by the second."""
    folder = tmp_path_factory.mktemp("bench")
    photos = people.family(4, 2) | {NAMED: [people.face(50), people.face(50)]}
    people.shards(str(folder / "shards"), photos, broken=1)
    people.images(str(folder / "first"), photos)
    dull = {name: [image.resize((16, 16)).resize((64, 64)) for image in images] for name, images in photos.items()}
    people.images(str(folder / "second"), dull, method=OTHER, norms=0, failed=["nobody"])
    people.images(str(folder / "several"), photos, method="lora", seen=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        people.without_ray(patch)
        for name in ("first", "second", "several"):
            inputs = ["--images", str(folder / name), "--shards", str(folder / "shards")]
            sets = (
                "evaluate.bootstrap_samples=200",
                "evaluate.threads=1",
                "backbone.random_seed=0",
                "clip.random_seed=0",
                "metrics.kid={subsets: 5, subset_size: 8}",
            )
            quick = [word for text in sets for word in ("--set", text)]
            assert main(["evaluate", *inputs, "--out", str(folder / f"scored-{name}"), *quick]) == 0
    return folder


def report(bench: Path, out: Path | str, *names: str, more: tuple[str, ...] = ()) -> int:
    given = [word for name in names for word in ("--evaluation", str(bench / f"scored-{name}"))]
    return main(["report", *given, "--out", str(out), *more])


@pytest.fixture(scope="module")
def single(bench: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("single")
    assert report(bench, out, "first") == 0
    return (out / "report.html").read_text()


@pytest.fixture(scope="module")
def both(bench: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("both")
    assert report(bench, out, "first", "second") == 0
    return (out / "report.html").read_text()


@pytest.fixture(params=["single", "both"])
def page(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


def section(page: str, name: str) -> Node:
    (found,) = [s for s in Tree(page).root.all("section") if s.attributes.get("id") == name]
    return found


def result(bench: Path, name: str) -> dict[str, Any]:
    return json.loads((bench / f"scored-{name}" / "evaluation.json").read_text())


# --- the page as a whole


def test_the_page_is_whole_and_stands_alone(page: str) -> None:
    root = Tree(page).root
    assert page.startswith("<!doctype html>")
    assert [n.tag for n in root.all("html")] == ["html"]
    assert not root.all("link") + root.all("iframe")
    assert not [script for script in root.all("script") if "src" in script.attributes]
    for node in root.all():
        for name in ("src", "href", "xlink:href", "srcset", "action", "data"):
            assert node.attributes.get(name, "data:").startswith(("data:", "#")), node
    (style,) = root.all("style")
    assert "@import" not in style.text
    assert "url(" not in style.text
    assert "http" not in page.replace("http-equiv", "")


def test_the_title_names_everything_once(bench: Path, tmp_path: Path, both: str) -> None:
    recipe = result(bench, "first")["name"]
    assert Tree(both).root.all("title")[0].text.endswith(f": e4t, {OTHER}, {recipe}")
    for variant in ("full", "no_tuning"):  # as of `ablate`: one method, told apart by recipes
        shutil.copytree(bench / "scored-first", tmp_path / f"scored-{variant}")
        file = tmp_path / f"scored-{variant}" / "evaluation.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"name": variant}))
    assert report(tmp_path, tmp_path / "out", "full", "no_tuning") == 0
    title = Tree((tmp_path / "out" / "report.html").read_text()).root.all("title")[0].text
    assert title.endswith(": full, no_tuning")


def test_every_image_is_inside_and_described(page: str) -> None:
    images = Tree(page).root.all("img")
    assert len(images) >= 5 * (1 + 3)
    for image in images:
        head, data = image.attributes["src"].split(",", 1)
        assert re.fullmatch(r"data:image/(png|jpeg);base64", head)
        with Image.open(io.BytesIO(base64.b64decode(data))) as decoded:
            decoded.load()
            assert max(decoded.size) <= 224
        assert image.attributes["alt"]


def test_names_are_escaped(page: str) -> None:
    assert NAMED not in page
    names = [a.all("h3")[0].text for a in section(page, "gallery").all("article")]
    assert sum(name.startswith(NAMED) for name in names) == 1


def test_every_figure_of_the_scores_is_the_evaluations(bench: Path, both: str) -> None:
    table = section(both, "scores").all("table")[0]
    heads = [th.text for th in table.all("thead")[0].all("th")]
    assert heads == ["method", "ID", "ID, held out", "CLIP-T", "CLIP-I", "identities", "images"]
    for row, name in zip(table.all("tbody")[0].all("tr"), ("first", "second"), strict=True):
        (figures,) = result(bench, name)["methods"]
        assert row.all("th")[0].text == figures["method"]
        by_title = {score["title"]: score for score in figures["scores"].values()}
        for title, cell in zip(heads[1:5], row.all("td"), strict=False):
            score = by_title[title]
            assert cell.all("b")[0].text == f"{score['mean']:.3f}"
            assert cell.all("small")[0].text == f"{score['low']:.3f} – {score['high']:.3f}"
            assert cell.attributes["data-name"] == title
        assert [td.text for td in row.all("td")[4:]] == ["5", "15"]


def test_scores_of_whole_sets_have_a_table_of_their_own(bench: Path, both: str) -> None:
    (table,) = [t for t in section(both, "scores").all("table") if t.attributes.get("id") == "sets"]
    assert [th.text for th in table.all("thead")[0].all("th")] == ["method", "KID ↓"]
    for row, name in zip(table.all("tbody")[0].all("tr"), ("first", "second"), strict=True):
        (figures,) = result(bench, name)["methods"]
        kid = figures["sets"]["kid"]
        told = f"{kid['mean']:.4f} ± {kid['std']:.4f}".replace("-", "−")
        assert row.all("td")[0].text == f"{told} {kid['images']} images against {kid['real_images']} photos"


@pytest.mark.parametrize("compared", [("several",), ("first", "several")])
def test_all_photos_that_were_learned_from_are_shown(bench: Path, tmp_path: Path, compared: tuple[str, ...]) -> None:
    assert report(bench, tmp_path, *compared) == 0
    page = (tmp_path / "report.html").read_text()
    assert ("5 identities, 2 photos each" in page) == (compared[0] == "several")
    assert "The framed photo is all" not in page
    assert "The framed photos are what was learned from" in page
    for person in section(page, "gallery").all("article"):
        (learned,) = person.all("div", cls="learned")
        assert len(learned.all("img")) == 2
    data = json.loads(page.split('id="page-data">')[1].split("</script>")[0])
    assert data["photos"] == [2] * 5


def test_what_the_papers_report_stands_beside_it(both: str, single: str) -> None:
    ours, *papers = section(both, "scores").all("table")[0].all("tbody")
    _, second, third = papers
    for n, table in enumerate(papers, 1):
        assert table.all("tr")[0].text.startswith(f"as reported in HyperDreamBooth, table {n}")
    assert [td.text for td in second.all("tr")[1].all("td")[:4]] == ["0.615", "–", "–", "0.431"]
    told = {row.all("th")[0].text: [td.text for td in row.all("td")[:4]] for row in third.all("tr")[1:]}
    assert told["full DINO 0.473"] == ["0.655", "–", "0.286", "0.577"]
    assert told["only hyper DINO 0.414"] == ["0.631", "–", "–", "0.501"]
    assert len(ours.all("tr")[0].all("td")) == len(third.all("tr")[1].all("td"))
    assert len(section(single, "scores").all("table")[0].all("tbody")) == 1


def test_kinds_and_costs_are_the_evaluations(bench: Path, single: str) -> None:
    (figures,) = result(bench, "first")["methods"]
    rows = section(single, "kinds").all("tbody")[0].all("tr")
    assert [row.all("th")[0].text for row in rows] == ["plain", "style", "background"]
    style = figures["kinds"]["style"]
    assert [b.text for b in rows[1].all("b")] == [f"{style[c]['mean']:.3f}" for c in ("identity", "clip_t", "clip_i")]
    cost = section(single, "cost")
    ours, paper = cost.all("tbody")
    cells = [td.text for td in ours.all("td")]
    assert cells[0] == "15"
    assert cells[1] == f"{figures['costs']['seconds_personalize']['mean']:.1f}\N{NARROW NO-BREAK SPACE}s"
    assert cells[-1] == "1.8\N{NARROW NO-BREAK SPACE}MB"
    thin = "\N{NARROW NO-BREAK SPACE}"
    told = {row.all("th")[0].text: [td.text for td in row.all("td")[:2]] for row in paper.all("tr")[1:]}
    assert told == {
        "Textual Inversion": [f"5{thin}000", f"1{thin}517{thin}s"],
        "DreamBooth": [f"800 – 1{thin}200", f"601 – 897{thin}s"],
        "E4T": ["5 – 15", f"11 – 30{thin}s"],
    }


def test_differences_are_paired_and_doubt_is_grey(bench: Path, both: str, single: str) -> None:
    assert [t.attributes.get("id") for t in section(single, "scores").all("table")] == [None, "sets"]
    (row,) = section(both, "scores").all("table")[2].all("tbody")[0].all("tr")
    first, second = (result(bench, name)["methods"][0]["scores"] for name in ("first", "second"))
    for cell, column in zip(row.all("td"), ("identity", "identity_heldout", "clip_t", "clip_i"), strict=True):
        assert cell.all("b")[0].text == words.signed(second[column]["mean"] - first[column]["mean"])
        low, high = (float(t.replace(words.MINUS, "-")) for t in cell.all("small")[0].text.split(" to "))
        assert ("unclear" in cell.attributes.get("class", "")) == (low <= 0 <= high)


def test_random_weights_are_admitted(page: str) -> None:
    (notice,) = Tree(page).root.all("p", cls="notice")
    assert "diffusion model and the judge of CLIP-T, CLIP-I and KID have weights" in notice.text
    assert "the road runs, not that it personalizes" in notice.text


def test_trained_weights_need_no_notice(bench: Path, tmp_path: Path) -> None:
    shutil.copytree(bench / "scored-first", tmp_path / "scored-trained")
    path = tmp_path / "scored-trained" / "evaluation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"untrained": []}))
    assert report(tmp_path, tmp_path / "out", "trained") == 0
    assert not Tree((tmp_path / "out" / "report.html").read_text()).root.all("p", cls="notice")


def test_what_was_lost_is_told(both: str, single: str) -> None:
    assert f"1 identity could not be learned by {OTHER}" in section(both, "scores").text
    assert "nobody (ValueError: no face)" in re.sub(r"\s+\(", " (", section(both, "scores").text)
    assert "could not be learned" not in single
    data = section(single, "data")
    assert data.text.startswith("Data Of 11 photos that the source lists, 10 are whole")
    assert [td.text for td in data.all("td")] == ["1"]
    assert "broken/0" in data.all("li")[0].text


def test_lineage_names_recipe_commands_and_fingerprints(bench: Path, both: str) -> None:
    text = section(both, "lineage").text
    for name in ("first", "second"):
        stored = result(bench, name)
        assert stored["recipe_hash"] in text
        assert stored["record"]["inputs"]["references"] in text
        assert stored["mlflow"]["runs"][stored["methods"][0]["method"]] in text
        assert "python -m jobs evaluate --recipe tiny --set evaluate.bootstrap_samples=200" in text
    assert f"python -m jobs generate --out {OTHER}" in text
    assert "python -m jobs report" in text
    assert "bundled:identity_tiny" in section(both, "lineage").all("details")[0].text


def test_plots_show_each_method(both: str, single: str) -> None:
    for page, labels in ((single, {"e4t"}), (both, {"e4t", OTHER})):
        (svg,) = section(page, "tradeoff").all("svg", cls="plot")
        assert {t.text for t in svg.all("text", cls="label") if "method" in t.attributes["class"]} == labels
        assert len(svg.all("g", cls="method")) == len(labels)
        assert len(svg.all("g", cls="one")) == 5 * len(labels)
    assert {t.text for t in section(single, "tradeoff").all("text", cls="part")} == {"plain", "style", "background"}
    (norms,) = section(both, "norm").all("svg", cls="plot")
    assert len(norms.all("polyline", cls="median")) == 1  # the second method records none
    assert len(norms.all("polyline", cls="single")) == 5


def test_what_a_paper_says_in_words_is_told_of_its_method() -> None:
    assert published.told(["e4t", "domain_agnostic"]) == [published.STATEMENTS["domain_agnostic"]]
    assert published.told(["e4t"]) == []
    assert set(published.STATEMENTS) <= set(METHODS.names())


# --- the job


def test_the_words_that_a_concept_is_near_to_stand_with_its_pictures(both: str, single: str) -> None:
    """Where a method names them: the second does, of each of its people, and the first does not."""
    for page, times in ((both, 5), (single, 0)):
        notes = [p.text for p in section(page, "gallery").all("p", cls="caption") if p.text.startswith("S*")]
        assert notes == ["S* is near: corgi, fox, puppy"] * times


def test_the_gallery_has_a_limit(bench: Path, tmp_path: Path) -> None:
    assert report(bench, tmp_path, "first", more=("--identities", "3")) == 0
    gallery_section = section((tmp_path / "report.html").read_text(), "gallery")
    notes = [a.all("h3")[0].all("small")[0].text for a in gallery_section.all("article")]
    assert notes == ["no. 1 of 5", "no. 2 of 5", "no. 5 of 5"]
    assert "3 identities with the highest and lowest ID of e4t, out of 5" in gallery_section.text


def test_the_sheet_has_each_picture_in_its_place(bench: Path, tmp_path: Path) -> None:
    assert report(bench, tmp_path, "first", "second", more=("--identities", "2")) == 0
    with Image.open(tmp_path / "sheet.png") as found:
        pixels = np.asarray(found.convert("RGB"))
    entries = load_entries([str(bench / f"scored-{name}") for name in ("first", "second")], [])
    prompts = list(dict.fromkeys(entries[0].rows["prompt"]))
    left = pixels.shape[1] - 100 * (1 + len(prompts))
    assert pixels.shape[0] == 22 + 4 * 100  # best and worst identity, each by two methods
    assert left > ImageFont.load_default(size=13).getlength(OTHER)
    assert (pixels[22:, :left] < 128).any()  # the methods' names
    best = str(ranking(entries[0])[1].index[0])
    for row, entry in enumerate(entries):
        for column, prompt in enumerate(prompts, 1):
            (data,) = entry.pictures(entry.first[(entry.first["identity"] == best) & (entry.first["prompt"] == prompt)])
            with Image.open(io.BytesIO(data)) as image:
                expected = np.asarray(image.convert("RGB").resize((96, 96), Image.Resampling.LANCZOS))
            y, x = 22 + row * 100, left + column * 100
            np.testing.assert_array_equal(pixels[y : y + 96, x : x + 96], expected)


def test_it_is_attached_to_the_benchmark(bench: Path, single: str) -> None:
    logged = result(bench, "first")["mlflow"]
    attached = [a.path for a in MlflowClient(logged["uri"]).list_artifacts(logged["parent"])]
    assert attached == ["report.html", "sheet.png", "trade_off.png"]


def test_a_tracking_store_that_moved_costs_a_line(
    bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(bench / "scored-first", tmp_path / "scored-moved")
    path = tmp_path / "scored-moved" / "evaluation.json"
    stored = json.loads(path.read_text())
    stored["mlflow"]["uri"] = f"sqlite:///{tmp_path}/gone.db"
    path.write_text(json.dumps(stored))
    assert report(tmp_path, tmp_path / "out", "moved", more=("--json",)) == 0
    told = capsys.readouterr()
    assert "not attached to MLflow" in told.err
    assert json.loads(told.out.splitlines()[-1])["mlflow"] == []
    assert not (tmp_path / "gone.db").exists()


def test_images_and_shards_may_have_moved(bench: Path, tmp_path: Path, single: str) -> None:
    for name in ("first", "shards", "scored-first"):
        shutil.copytree(bench / name, tmp_path / name)
    path = tmp_path / "scored-first" / "evaluation.json"
    stored = json.loads(path.read_text())
    stored["images"]["uri"] = stored["shards"]["uri"] = str(tmp_path / "gone")
    path.write_text(json.dumps(stored))
    moved = ("--images", str(tmp_path / "first"), "--shards", str(tmp_path / "shards"))
    assert report(tmp_path, tmp_path / "out", "first") == 1
    assert report(tmp_path, tmp_path / "out", "first", more=moved) == 0
    pictures = [i.attributes["src"] for i in Tree((tmp_path / "out" / "report.html").read_text()).root.all("img")]
    assert pictures == [i.attributes["src"] for i in Tree(single).root.all("img")]


def test_it_goes_to_any_store(bench: Path) -> None:
    assert report(bench, "memory://bucket/report", "first") == 0
    assert Store("memory://bucket/report").read("report.html").startswith(b"<!doctype html>")


def test_a_dry_run_writes_nothing(bench: Path, tmp_path: Path) -> None:
    assert report(bench, tmp_path / "out", "first", more=("--dry-run",)) == 0
    assert not (tmp_path / "out").exists()


def test_wrong_inputs(bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(bench, tmp_path) == 2
    assert "--evaluation is required" in capsys.readouterr().err
    assert report(bench, tmp_path, "first", "second", more=("--images", "x")) == 2
    assert "2 --evaluation and 1 --images" in capsys.readouterr().err
    assert report(bench, tmp_path, "third") == 1
    assert "holds no finished evaluation" in capsys.readouterr().err
    (tmp_path / "scored-new").mkdir()
    (tmp_path / "scored-new" / "evaluation.json").write_text('{"schema": 99}')
    assert report(tmp_path, tmp_path, "new") == 1
    assert "schema 99" in capsys.readouterr().err


# --- its parts


def test_best_and_worst_are_chosen() -> None:
    means = pd.Series({f"p{i}": 1 - i / 10 for i in range(7)})
    assert choose(means, 7) == [(f"p{i}", "") for i in range(7)]
    assert choose(means, 3) == [("p0", "no. 1 of 7"), ("p1", "no. 2 of 7"), ("p6", "no. 7 of 7")]
    assert choose(means, 1) == [("p0", "no. 1 of 7")]


def test_large_pictures_are_reduced() -> None:
    src = gallery.inline(people.png(people.face(1, side=512)))
    assert src.startswith("data:image/jpeg;base64,")
    with Image.open(io.BytesIO(base64.b64decode(src.split(",")[1]))) as image:
        assert image.size == (224, 224)
    small = people.png(people.face(1, side=64))
    assert base64.b64decode(gallery.inline(small).split(",")[1]) == small


def test_points_lie_where_their_values_say() -> None:
    low = plots.Point("low", 0, (0.1, 0.05, 0.15), (0.2, 0.1, 0.3))
    high = plots.Point("high", 1, (0.3, None, None), (0.6, None, None))
    svg = ET.fromstring(plots.pareto([low, high], "x", "y"))
    groups = {g.get("class"): g for g in svg.iter("g")}
    a, b = (groups[f"method s{i}"].find("circle") for i in (0, 1))
    assert float(a.get("cx")) < float(b.get("cx"))
    assert float(a.get("cy")) > float(b.get("cy"))  # up is better, and SVG counts downwards
    across, up = groups["method s0"].findall("line")
    assert float(across.get("x1")) < float(a.get("cx")) < float(across.get("x2"))
    assert float(up.get("y1")) > float(a.get("cy")) > float(up.get("y2"))
    assert groups["method s1"].findall("line") == []
    assert svg.find("polyline") is None  # one point is better on both axes: no front to draw


def test_the_front_leaves_out_what_is_beaten() -> None:
    def point(x: float, y: float) -> plots.Point:
        return plots.Point("", 0, (x, None, None), (y, None, None))

    front = ET.fromstring(plots.pareto([point(1, 3), point(2, 2), point(1, 1), point(3, 1)], "x", "y")).find("polyline")
    assert front is not None
    assert len(front.get("points").split()) == 3


def test_labels_do_not_cover_each_other() -> None:
    points = [plots.Point(f"method {i}", i, (0.5 + i / 1000, 0.4, 0.6), (0.5, 0.4, 0.6)) for i in range(4)]
    svg = ET.fromstring(plots.pareto(points, "x", "y"))
    boxes = []
    for text in svg.iter("text"):
        if "label" in text.get("class"):
            x, y, wide = float(text.get("x")), float(text.get("y")), 6.8 * len(text.text)
            boxes.append((x, x + wide, y) if text.get("text-anchor") == "start" else (x - wide, x, y))
    assert len(boxes) == 4
    for i, (a, b, y) in enumerate(boxes):
        assert not any(a < d and c < b and abs(y - z) < 14 for c, d, z in boxes[i + 1 :])


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5], [-1e-6, 1e-6], [1e5, 3e5]])
def test_any_range_has_round_ticks(values: list[float]) -> None:
    points = [plots.Point("p", 0, (v, None, None), (v, None, None)) for v in values]
    svg = ET.fromstring(plots.pareto(points, "x", "y"))
    ticks = [t.text for t in svg.iter("text") if t.get("class") == "tick"]
    assert len(ticks) == len(ticks and [float(t.replace(words.MINUS, "-")) for t in ticks]) >= 4


def test_labels_of_evaluations_are_unique() -> None:
    assert _labels([("e4t", "tiny"), ("lora", "tiny")]) == ["e4t", "lora"]
    assert _labels([("e4t", "tiny"), ("e4t", "direct")]) == ["tiny", "direct"]
    assert _labels([("e4t", "tiny"), ("e4t", "tiny")]) == ["tiny #1", "tiny #2"]
    assert _labels([("e4t", "tiny"), ("e4t", "direct"), ("lora", "x")]) == ["e4t (tiny)", "e4t (direct)", "lora"]


def test_numbers_as_people_write_them() -> None:
    thin = words.THIN
    assert words.number(-0.1234) == f"{words.MINUS}0.123"
    assert words.number(None) == "–"
    assert (words.count(1234567), words.count(15.0), words.count(2.5)) == (f"1{thin}234{thin}567", "15", "2.5")
    assert [words.seconds(v) for v in (0.034, 2.34, 57.6, 12345.6)] == [
        f"0.03{thin}s", f"2.3{thin}s", f"58{thin}s", f"12{thin}346{thin}s",
    ]  # fmt: skip
    assert [words.size(v) for v in (12, 115_200, 1_843_000, 28e9)] == [
        f"12{thin}B", f"115{thin}KB", f"1.8{thin}MB", f"28.0{thin}GB",
    ]  # fmt: skip
    assert words.listed(["a"]) == "a"
    assert words.listed(["a", "b", "c"]) == "a, b and c"
    assert words.untrained_notice([]) == ""
    assert words.untrained_notice(["the judge of ID"]).startswith("The judge of ID has weights drawn from a seed")
