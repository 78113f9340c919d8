"""Scores of whole sets through `evaluate`: kept by fingerprint, shared between methods, honest where there is none."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from e4t_core.images import decode_image
from e4t_core.metrics.kid import Kid, KidConfig
from e4t_core.storage import Store
from jobs import _aggregates, _real_sets
from jobs.__main__ import main
from jobs._real_sets import Embedder, RealSet
from jobs._sets import Drawn
from jobs._units import ImageSet
from pipelines.loader import ShardDataset
from tests.jobs import people

SETS = (
    "evaluate.bootstrap_samples=100",
    "clip.random_seed=0",
    "backbone.random_seed=0",
    "metrics.clip_t=null",
    "metrics.identity=null",
    "metrics.kid={subsets: 8, subset_size: 9}",
    "metrics.diversity={}",
)
QUICK = tuple(word for text in SETS for word in ("--set", text))


@pytest.fixture(autouse=True)
def _one_store(monkeypatch: pytest.MonkeyPatch, tracking: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What actors would do is done in this process, and noted; real images come in small parts."""
    monkeypatch.setattr(_real_sets, "_PART", 5)
    return people.without_ray(monkeypatch)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four people with three photos, drawn by two methods."""
    folder = tmp_path_factory.mktemp("bench")
    photos = people.family(4, 3)
    people.shards(str(folder / "shards"), photos)
    people.images(str(folder / "images"), photos, per_prompt=2)
    people.images(str(folder / "other"), photos, method="other", draw=lambda prompt, image, index: image.rotate(180))
    return folder


def run(bench: Path, out: Path, *more: str, images: str = "images") -> dict[str, Any]:
    inputs = ("--images", str(bench / images), "--shards", str(bench / "shards"))
    assert main(["evaluate", "--recipe", "tiny", *inputs, "--out", str(out), *QUICK, *more]) == 0
    return json.loads((out / "evaluation.json").read_text())


def parts(here: list[Any]) -> int:
    return sum(isinstance(task, _real_sets.Part) for task in here)


def test_kid_is_that_of_all_pictures_against_all_photos(bench: Path, tmp_path: Path, here: list[Any]) -> None:
    (figures,) = run(bench, tmp_path)["methods"]
    found = figures["sets"]["kid"]
    assert (found["images"], found["real_images"], found["failures"]) == (24, 12, 0)
    images, dataset = ImageSet.open(str(bench / "images")), ShardDataset.open(str(bench / "shards"))
    metric = Kid(KidConfig(subsets=400, subset_size=9), people.MODELS)
    metric.setup()
    drawn = torch.stack([decode_image(data) for data in images.read(range(24))])
    real = torch.stack([decode_image(s["image.png"]) for s in dataset.samples(range(12), ["ingest"])])
    want = metric.compare(metric.embed(drawn), metric.embed(real), seed=5)
    assert found["mean"] == pytest.approx(want.mean, abs=5 * want.std / np.sqrt(8))
    assert found["std"] > 0
    assert found["subsets"] == 8
    assert "kid" not in figures["scores"], "it has no interval over identities, and no paired difference"
    flat = _aggregates.metrics(figures)
    assert (flat["kid"], flat["kid.std"]) == (found["mean"], found["std"])
    assert f"KID: {found['mean']:.4f} ± {found['std']:.4f}" in _aggregates.text_table([figures])[-1]


def test_it_does_not_depend_on_how_work_was_cut(bench: Path, tmp_path: Path, here: list[Any]) -> None:
    """All pictures in one unit, in another order of units: the same draw, the same score."""
    photos = people.family(4, 3)
    people.images(str(tmp_path / "images"), photos, per_prompt=2, per_unit=4)
    whole = run(tmp_path, tmp_path / "a", "--shards", str(bench / "shards"))
    cut = run(bench, tmp_path / "b")
    assert whole["methods"][0]["sets"] == cut["methods"][0]["sets"]


def test_real_images_are_looked_at_once_for_all_methods(bench: Path, tmp_path: Path, here: list[Any]) -> None:
    cache = ("--cache", str(tmp_path / "cache"))
    first = run(bench, tmp_path / "a", *cache)["methods"][0]
    assert parts(here) == 3
    second = run(bench, tmp_path / "b", *cache, images="other")["methods"][0]
    assert parts(here) == 3
    assert second["sets"]["kid"]["mean"] > first["sets"]["kid"]["mean"], "photos that stand on their heads are farther"
    run(bench, tmp_path / "c", *cache, "--set", "clip.random_seed=1")
    assert parts(here) == 6, "another network sees other things"
    assert not (tmp_path / "a" / "references").exists()


def test_a_kernel_is_changed_without_looking_again(bench: Path, tmp_path: Path, here: list[Any]) -> None:
    before = run(bench, tmp_path)["methods"][0]["sets"]["kid"]
    here.clear()
    after = run(bench, tmp_path, "--set", "metrics.kid.degree=1")["methods"][0]["sets"]["kid"]
    assert here == []
    assert after["mean"] != before["mean"]


def test_a_finished_set_is_not_computed_again(
    bench: Path, tmp_path: Path, here: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run(bench, tmp_path)["methods"]
    (tmp_path / "evaluation.json").unlink()
    monkeypatch.setattr(Kid, "compare", lambda *args: pytest.fail("computed again"))
    assert run(bench, tmp_path)["methods"] == before


def test_parts_that_are_lost_are_made_again(bench: Path, tmp_path: Path, here: list[Any]) -> None:
    run(bench, tmp_path)
    victim = sorted((tmp_path / "references").rglob("*.parquet"))[1]
    victim.unlink()
    (tmp_path / "evaluation.json").unlink()
    here.clear()
    run(bench, tmp_path)
    assert parts(here) == 1
    assert victim.exists()


def test_too_few_images_are_said_before_and_after(
    bench: Path, tmp_path: Path, here: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (figures,) = run(bench, tmp_path, "--set", "metrics.kid.subset_size=13")["methods"]
    found = figures["sets"]["kid"]
    assert (found["mean"], found["std"]) == (None, None)
    assert found["note"] == "needs 13 images of either side (metrics.kid.subset_size)"
    told = capsys.readouterr().err
    assert "KID needs 13 images of either side and gets 24 generated and 12 real ones: it will not be scored" in told
    assert "KID: needs 13 images" in told
    assert "kid" not in _aggregates.metrics(figures)


def test_vectors_stay_out_of_the_rows(bench: Path, tmp_path: Path, here: list[Any]) -> None:
    stored = run(bench, tmp_path)
    names = pq.read_schema(tmp_path / stored["rows"]).names
    assert not [name for name in names if name.startswith("features_")]
    assert {"score_diversity", "siblings"} <= set(names)


def test_what_stands_for_a_method_is_bounded_and_the_same_in_any_order() -> None:
    ranks = np.random.default_rng(0).permutation(5000)
    vectors = np.stack([ranks, -ranks], axis=1).astype(np.float32)
    one, other = Drawn(most=100), Drawn(most=100)
    for at in range(0, 5000, 50):
        one.add(ranks[at : at + 50], vectors[at : at + 50])
        assert sum(len(part) for part in one._vectors) <= 250
    for at in reversed(range(0, 5000, 50)):
        other.add(ranks[at : at + 50], vectors[at : at + 50])
    assert np.array_equal(one.vectors(), other.vectors())
    assert np.array_equal(one.vectors()[:, 0], np.arange(100))
    blind = Drawn(most=5)
    blind.add(np.arange(3), np.array([[1.0], [np.nan], [2.0]], np.float32))
    assert (blind.missing, blind.vectors().tolist()) == (1, [[1.0], [2.0]])


def test_a_larger_draw_of_real_images_holds_the_smaller(bench: Path, tmp_path: Path) -> None:
    def rows(most: int, seed: int = 0) -> set[int]:
        metric = Kid(KidConfig(max_images=most), people.MODELS)
        found = RealSet.of(metric, str(bench / "shards"), 1, seed)
        return {row for part in found.parts for row in part.rows}

    assert rows(4) < rows(8) < rows(100) == set(range(12))
    assert rows(4, seed=1) != rows(4)


def test_references_may_be_other_shards(bench: Path, tmp_path: Path, here: list[Any]) -> None:
    people.shards(str(tmp_path / "strangers"), {f"s{n}": [people.face(50 + n)] for n in range(10)})
    elsewhere = ("--set", f"metrics.kid.references={tmp_path / 'strangers'}")
    found = run(bench, tmp_path / "out", *elsewhere)["methods"][0]["sets"]["kid"]
    assert found["real_images"] == 10


def test_diversity_is_due_only_where_there_are_siblings(bench: Path, tmp_path: Path, here: list[Any]) -> None:
    several, single = run(bench, tmp_path / "a"), run(bench, tmp_path / "b", images="other")
    score = several["methods"][0]["scores"]["diversity"]
    assert (score["mean"], score["images"], score["failures"]) == (pytest.approx(0, abs=1e-6), 24, 0), "all are alike"
    none = single["methods"][0]["scores"]["diversity"]
    assert (none["mean"], none["images"], none["failures"]) == (None, 0, 0)


def test_an_embedder_writes_what_it_sees(bench: Path, tmp_path: Path) -> None:
    metric = Kid(KidConfig(), people.MODELS)
    real = RealSet.of(metric, str(bench / "shards"), 1, 0)
    actor = Embedder(real, str(tmp_path), KidConfig(), people.MODELS, threads=1, device="cpu")
    assert actor.run(real.parts[0]) == 12
    metric.setup()
    samples = ShardDataset.open(str(bench / "shards")).samples(real.parts[0].rows, ["ingest"])
    want = metric.embed(torch.stack([decode_image(s["image.png"]) for s in samples]))
    np.testing.assert_allclose(real.vectors(Store(tmp_path)), want.numpy(), atol=1e-5)
    table = pq.read_table(io.BytesIO(Store(tmp_path).read(real.parts[0].key)))
    assert table.num_rows == 12
