"""The documented schema: the README prints what the files say of themselves, and its queries give the figures."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from e4t_core.metrics import METRICS
from jobs import _scores
from jobs.__main__ import main
from jobs._rows import IMAGE_ROWS, conformed, markdown, score_rows
from tests.conftest import ROOT
from tests.jobs import people

README = ROOT / "README.md"
QUICK = tuple(
    word
    for text in ("evaluate.bootstrap_samples=100", "evaluate.threads=1", "backbone.random_seed=0", "clip.random_seed=0")
    for word in ("--set", text)
)


def documented() -> pa.Schema:
    """Rows of an evaluation with every metric."""
    configs = {
        name: METRICS.get(name).Config(**({"path": "x"} if "path" in METRICS.get(name).Config.model_fields else {}))
        for name in METRICS.names()
    }
    return score_rows(_scores.per_image(_scores.build(configs, people.MODELS, "cpu")))


def test_the_readme_prints_the_schema() -> None:
    assert "\n".join(markdown(documented())) in README.read_text()


def test_every_column_says_what_it_is() -> None:
    for field in (*documented(), *IMAGE_ROWS):
        assert len(field.metadata[b"about"]) > 5, field.name


def test_columns_that_an_older_version_did_not_write_are_null() -> None:
    table = pa.table({"method": ["e4t"], "steps": pa.array([3], pa.int64()), "unheard_of": [1]})
    whole = conformed(table, IMAGE_ROWS)
    assert whole.schema.equals(IMAGE_ROWS, check_metadata=True)
    assert whole.to_pylist()[0] | {"method": "e4t", "steps": 3} == whole.to_pylist()[0]
    assert whole["near"].null_count == 1


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory: pytest.TempPathFactory, tracking: str) -> Path:
    """Two methods on the people that both drew, where the README has them."""
    folder = tmp_path_factory.mktemp("readme")
    photos = people.family(4, 2)
    people.shards(str(folder / "shards"), photos)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", tracking)
        people.without_ray(patch)
        for place, method in (("demo", "e4t"), ("other", "lora")):
            people.images(str(folder / method), photos, method=method, draw=None if place == "demo" else _upside_down)
            inputs = ("--images", str(folder / method), "--shards", str(folder / "shards"))
            assert main(["evaluate", *inputs, "--out", str(folder / "out" / place / "evaluation"), *QUICK]) == 0
    return folder


def _upside_down(prompt: str, image: Any, index: int) -> Any:
    return people.FILTERS[prompt](image).rotate(180)


def test_its_queries_give_the_figures_of_the_evaluation(evaluations: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = README.read_text().split("**Every figure is a query.**")[1].split("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(blocks) == 2
    monkeypatch.chdir(evaluations)
    found: dict[str, Any] = {}
    for block in blocks:
        exec(block, found)
    stored = json.loads((evaluations / "out/demo/evaluation/evaluation.json").read_text())
    (figures,) = stored["methods"]
    for _, row in found["by_kind"].iterrows():
        score = figures["kinds"][row["kind"]]["identity"]
        assert (row["id"], row["people"]) == (pytest.approx(score["mean"]), score["identities"])
    assert len(found["by_kind"]) == len(figures["kinds"]) == 3
    (cost,) = found["cost"].to_dict("records")
    for name in ("seconds_identity", "seconds_image"):
        assert cost[name] == pytest.approx(figures["costs"][name]["mean"])
    assert cost["faceless"] == figures["scores"]["identity"]["failures"] == 0
    score = figures["scores"]["clip_t"]
    assert (found["interval"].mean, found["interval"].identities) == (pytest.approx(score["mean"]), 4)
    assert found["interval"].low < score["mean"] < found["interval"].high
    other = json.loads((evaluations / "out/other/evaluation/evaluation.json").read_text())["methods"][0]
    gap = score["mean"] - other["scores"]["clip_t"]["mean"]
    assert found["difference"].mean == pytest.approx(gap)
    assert found["difference"].identities == 4
    assert set(found["worst"]) == set(found["ours"])


def test_files_describe_their_columns_themselves(evaluations: Path) -> None:
    out = evaluations / "out/demo/evaluation"
    schema = pq.read_schema(out / json.loads((out / "evaluation.json").read_text())["rows"])
    assert schema.field("score_identity").metadata[b"about"] == b"ID; null if it could not be computed"
    assert all(b"about" in field.metadata for field in schema)


def test_rows_are_written_a_unit_at_a_time(evaluations: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing in the driver holds more than one unit's rows, and a table of sums."""
    held: list[int] = []
    real = _scores.read_unit

    def noted(*args: Any) -> pa.Table:
        table = real(*args)
        held.append(table.num_rows)
        return table

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setattr(_scores, "read_unit", noted)
    monkeypatch.setattr("jobs._index.Index.table", lambda self: pytest.fail("all rows at once"))
    people.without_ray(monkeypatch)
    inputs = ("--images", str(evaluations / "e4t"), "--shards", str(evaluations / "shards"))
    assert main(["evaluate", *inputs, "--out", str(tmp_path / "out"), *QUICK]) == 0
    assert held == [6, 6]
