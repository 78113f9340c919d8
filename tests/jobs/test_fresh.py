"""`evaluate --adapters`: drawn, scored and forgotten, resumable, with as many pictures kept as asked for."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from e4t_core.errors import UsageError
from jobs._fresh import DrawingScorer
from jobs._report.grid import NOTHING
from jobs._units import ImageSet
from tests.jobs import people
from tests.jobs.conftest import everything, start

SETS = ("evaluate.bootstrap_samples=50", "evaluate.threads=1", "metrics.identity=null", "metrics.clip_i=null")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Units are done in this process, and noted."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return people.without_ray(monkeypatch)


@pytest.fixture
def run(shards: str, checkpoint: str, adapters: str, tracking: str) -> Any:
    def run(out: Path, *words: str, sets: tuple[str, ...] = ()) -> dict[str, Any]:
        inputs = ("--shards", shards, "--checkpoint", checkpoint, "--adapters", adapters)
        over = (*SETS, f"mlflow.uri={tracking}", *sets)
        return start("evaluate", *inputs, "--out", str(out), *words, sets=over)

    return run


def rows(out: Path) -> list[dict[str, Any]]:
    stored = json.loads((out / "evaluation.json").read_text())
    return pq.read_table(out / stored["rows"]).to_pylist()


def test_scores_are_those_of_images_that_generate_wrote(
    run: Any, here: list[int], images: str, shards: str, tracking: str, tmp_path: Path
) -> None:
    summary = run(tmp_path / "fresh")
    assert (summary["images"], summary["identities"], summary["units_scored"]) == (6, 3, 2)
    given = ("--images", images, "--shards", shards, "--out", str(tmp_path / "given"))
    start("evaluate", *given, sets=(*SETS, f"mlflow.uri={tracking}"))
    for ours, theirs in zip(rows(tmp_path / "fresh"), rows(tmp_path / "given"), strict=True):
        assert ours["score_clip_t"] == pytest.approx(theirs["score_clip_t"], abs=1e-5)
        same = set(ours) - {"score_clip_t", "seconds_generate"}
        assert {name: ours[name] for name in same} == {name: theirs[name] for name in same}


def test_pictures_are_kept_as_the_recipe_says(run: Any, here: list[int], images: str, tmp_path: Path) -> None:
    run(tmp_path / "all")
    assert ImageSet.open(str(tmp_path / "all" / "images")).read(range(6)) == ImageSet.open(images).read(range(6))
    run(tmp_path / "some", sets=("evaluate.keep_identities=1",))
    some = ImageSet.open(str(tmp_path / "some" / "images"))
    assert (len(some), some.manifest["identities"], some.manifest["drawn"]) == (2, 1, 6)
    assert some.read(range(2)) == ImageSet.open(images).read(range(2))
    run(tmp_path / "none", sets=("evaluate.keep_identities=0",))
    assert len(ImageSet.open(str(tmp_path / "none" / "images"))) == 0
    assert not list((tmp_path / "none").rglob("*.tar"))
    assert len(rows(tmp_path / "none")) == 6


@pytest.mark.parametrize("kept", [0, 1])
def test_the_report_shows_what_was_kept_and_tells_of_all(
    run: Any, here: list[int], tracking: str, tmp_path: Path, kept: int
) -> None:
    run(tmp_path / "some", sets=(f"evaluate.keep_identities={kept}",))
    words = ("--evaluation", str(tmp_path / "some"), "--out", str(tmp_path / "report"))
    start("report", *words, sets=(f"mlflow.uri={tracking}",))
    page = (tmp_path / "report" / "report.html").read_text()
    assert f"Pictures of {kept} of 3 identities are kept" in page
    assert page.count('<article class="person">') == kept
    assert ("<code>evaluate.keep_identities</code>" in page) == (kept == 0)
    data = json.loads(page.split('id="page-data">')[1].split("</script>")[0])
    assert [bool(name) for name in data["contacts"]].count(True) == kept
    codes = np.frombuffer(base64.b64decode(data["methods"][0]["codes"]), "<u2")
    assert (codes != NOTHING).all(), "everybody has scores"
    assert (tmp_path / "report" / "sheet.png").exists()


def test_more_pictures_are_asked_for_later(run: Any, here: list[int], tmp_path: Path) -> None:
    run(tmp_path, sets=("evaluate.keep_identities=0",))
    before = {path.name for path in (tmp_path / "scores").iterdir()}
    here.clear()
    run(tmp_path, sets=("evaluate.keep_identities=2",))
    assert here == [0], "the first unit has both of them"
    assert len(ImageSet.open(str(tmp_path / "images"))) == 4
    assert {path.name for path in (tmp_path / "scores").iterdir()} == before


def test_a_killed_run_loses_the_unit_in_flight_alone(
    run: Any, here: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while the last unit's scores are written, its pictures being there already."""
    run(tmp_path / "whole")
    real = DrawingScorer.score

    def dies(self: DrawingScorer, unit: int) -> Any:
        table = real(self, unit)
        if unit == 1:
            raise KeyboardInterrupt
        return table

    with monkeypatch.context() as patch:
        patch.setattr(DrawingScorer, "score", dies)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "killed")
    assert not (tmp_path / "killed" / "evaluation.json").exists()
    assert len(list((tmp_path / "killed" / "scores").iterdir())) == 1
    here.clear()
    run(tmp_path / "killed")
    assert here == [1]
    for whole, killed in zip(rows(tmp_path / "whole"), rows(tmp_path / "killed"), strict=True):
        assert whole | {"seconds_generate": 0} == killed | {"seconds_generate": 0}


def test_again_has_nothing_to_do(run: Any, here: list[int], tmp_path: Path) -> None:
    run(tmp_path)
    before = everything(tmp_path)
    here.clear()
    assert run(tmp_path)["units_cached"] == 2
    assert here == []
    assert everything(tmp_path) == before
    assert run(tmp_path, "--dry-run") == {"dry_run": True, "out": str(tmp_path), "units": 2, "to_do": 0}


def test_one_of_both_is_given(run: Any, images: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--images are there to be scored and --adapters to be drawn first"):
        run(tmp_path, "--images", images)
