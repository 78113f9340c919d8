"""Scores per image, resumable by units; aggregates with intervals; MLflow with one child a method."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from mlflow import MlflowClient

from e4t_core.errors import DataError
from e4t_core.images import decode_image
from e4t_core.metrics import METRICS
from e4t_core.metrics.identity import IdentitySimilarity
from e4t_core.storage import Store
from jobs import _aggregates, _scores
from jobs.__main__ import main
from jobs._index import Index, written
from jobs._lineage import command_line, public
from jobs._scores import Scorer
from jobs._sections import EvaluateConfig
from jobs._units import ImageSet
from pipelines.loader import ShardDataset
from tests.jobs import people

SETS = ("evaluate.bootstrap_samples=200", "evaluate.threads=1", "backbone.random_seed=0", "clip.random_seed=0")
QUICK = tuple(word for text in SETS for word in ("--set", text))


@pytest.fixture(autouse=True)
def _no_server_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five people with three photos and one with a single one; two pictures a prompt, two people a unit."""
    folder = tmp_path_factory.mktemp("bench")
    photos = people.family(5, 3) | {"recluse": [people.face(99)]}
    people.shards(str(folder / "shards"), photos)
    people.images(str(folder / "images"), photos, per_prompt=2)
    return folder


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Units are scored in this process, and noted."""
    return people.without_ray(monkeypatch)


def run(bench: Path, out: Path | str, *more: str) -> int:
    inputs = ("--images", str(bench / "images"), "--shards", str(bench / "shards"))
    return main(["evaluate", "--recipe", "tiny", *inputs, "--out", str(out), *QUICK, *more])


def scorer(bench: Path, **metrics: Any) -> Scorer:
    configs = metrics or {
        "clip_t": METRICS.get("clip_t").Config(),
        "clip_i": METRICS.get("clip_i").Config(),
        "identity": METRICS.get("identity").Config(path="bundled:identity_tiny"),
    }
    version = ShardDataset.open(str(bench / "shards")).version
    places = (str(bench / "images"), str(bench / "shards"), version, str(bench / "nowhere"))
    return Scorer(*places, configs, people.MODELS, threads=1, device="cpu")


def result(out: Path) -> dict[str, Any]:
    return json.loads((out / "evaluation.json").read_text())


# --- scores


def test_each_image_is_scored_against_the_right_images_and_prompt(bench: Path) -> None:
    """Recomputed image by image: CLIP-T from the concept-less prompt, CLIP-I from the input, ID from all real ones."""
    table = scorer(bench).score(0).to_pylist()
    images, dataset = ImageSet.open(str(bench / "images")), ShardDataset.open(str(bench / "shards"))
    assert [(r["identity"], r["prompt"], r["index"]) for r in table[:3]] == [
        ("person_0", "photo", 0),
        ("person_0", "photo", 1),
        ("person_0", "sketch", 0),
    ]
    row = table[3]
    (drawn,) = images.read([3])
    samples = dataset.samples(dataset.identities()["person_0"], ["ingest"])
    real = {s["__key__"]: decode_image(s["image.png"]) for s in samples}
    others = torch.stack([image for key, image in real.items() if key != row["input_key"]])
    metrics = {}
    for name, more in (("clip_t", {}), ("clip_i", {}), ("identity", {"path": "bundled:identity_tiny"})):
        metrics[name] = METRICS.get(name)(METRICS.get(name).Config(**more), people.MODELS)
        metrics[name].setup()
    one = decode_image(drawn)[None]
    expected = {
        "clip_t": metrics["clip_t"](one, others, ["a pencil sketch"]),
        "clip_i": metrics["clip_i"](one, real[row["input_key"]][None], [""]),
        "identity": metrics["identity"](one, torch.stack(list(real.values())), [""]),
        "identity_heldout": metrics["identity"](one, others, [""]),
    }
    for name, value in expected.items():
        assert row[f"score_{name}"] == pytest.approx(value.item(), abs=1e-5), name
    assert row["heldout"] == 2
    assert len({round(row[f"score_{name}"], 6) for name in expected}) == len(expected)


def test_costs_and_lineage_of_each_image_travel_with_its_scores(bench: Path) -> None:
    row = scorer(bench).score(1).to_pylist()[0]
    assert (row["steps"], row["bytes_adapter"], row["seconds_setup"]) == (15, 1_800_000, 4.0)
    assert row["concept_less"] == "a photo"
    assert not {"offset", "crc32", "unit"} & row.keys()


def test_one_photo_leaves_nothing_held_out(bench: Path) -> None:
    rows = [r for r in scorer(bench).score(2).to_pylist() if r["identity"] == "recluse"]
    assert len(rows) == 6
    assert all(r["heldout"] == 0 and r["score_identity_heldout"] is None for r in rows)
    assert all(r["score_identity"] is not None for r in rows)


def test_units_are_done_anew_only_when_something_that_counts_changed(bench: Path) -> None:
    images = ImageSet.open(str(bench / "images"))

    def keys(references: str = "a", **settings: Any) -> dict[int, str]:
        config = METRICS.get("identity").Config(path="bundled:identity_tiny", **settings)
        return _scores.unit_keys(images, references, _scores.build({"identity": config}, people.MODELS, "cpu"))

    assert keys() == keys(batch_size=1, device="cuda")
    assert not set(keys().values()) & set(keys("b").values())
    assert not set(keys().values()) & set(keys(channels="bgr").values())
    before = keys()
    column = images.table.schema.get_field_index("steps")
    with written([images.table.set_column(column, "steps", images.table["index"])]) as file:
        images.index = Index(Store(file.path.parent), file.path.name)
        assert not set(before.values()) & set(keys().values())


def test_metrics_run_on_the_sections_device_unless_they_have_their_own() -> None:
    configs = {
        "clip_t": METRICS.get("clip_t").Config(),
        "clip_i": METRICS.get("clip_i").Config(device="cuda:1"),
        "identity": METRICS.get("identity").Config(path="bundled:identity_tiny"),
    }
    built = _scores.build(configs, people.MODELS, "cuda:0")
    assert {name: m.device for name, m in built.items()} == {"clip_t": "cuda:0", "clip_i": "cuda:1", "identity": "cpu"}


def test_a_lost_race_changes_nothing(bench: Path, tmp_path: Path) -> None:
    first = scorer(bench)
    first.out = str(tmp_path)
    first.run((0, "scores/a.parquet"))
    before = (tmp_path / "scores" / "a.parquet").read_bytes()
    second = scorer(bench)
    second.out = str(tmp_path)
    assert second.run((0, "scores/a.parquet")) == 12
    assert (tmp_path / "scores" / "a.parquet").read_bytes() == before


# --- the job


@pytest.fixture(scope="module")
def finished(bench: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """One evaluation through real Ray actors, and the summary it printed."""
    out, text = tmp_path_factory.mktemp("evaluation"), io.StringIO()
    with contextlib.redirect_stdout(text):
        assert run(bench, out, "--json", "--set", "ray.num_cpus=2") == 0
    return out, json.loads(text.getvalue().splitlines()[-1])


@pytest.mark.cluster
def test_rows_and_summary(finished: tuple[Path, dict[str, Any]]) -> None:
    out, summary = finished
    assert (summary["images"], summary["identities"], summary["units_scored"], summary["units_cached"]) == (36, 6, 3, 0)
    stored = result(out)
    table = pq.read_table(out / stored["rows"]).to_pandas()
    assert len(table) == 36
    assert not table.duplicated(["method", "identity", "prompt", "index"]).any()
    assert list(stored["methods"][0]["scores"]) == ["clip_t", "clip_i", "identity", "identity_heldout"]
    assert stored["untrained"] == ["the diffusion model", "the judge of CLIP-T and CLIP-I"]


@pytest.mark.cluster
def test_aggregates_are_means_over_identities(finished: tuple[Path, dict[str, Any]]) -> None:
    out, summary = finished
    stored = result(out)
    table = pq.read_table(out / stored["rows"]).to_pandas()
    (figures,) = stored["methods"]
    for column, score in figures["scores"].items():
        means = table.groupby("identity")[f"score_{column}"].mean().dropna()
        assert score["mean"] == pytest.approx(means.mean())
        assert score["low"] < score["mean"] < score["high"]
        assert means.min() <= score["low"]
        assert score["high"] <= means.max()
        assert score["identities"] == len(means)
        assert summary["scores"]["e4t"][column] == score
    assert figures["scores"]["identity"]["identities"] == 6
    assert figures["scores"]["identity_heldout"]["identities"] == 5
    assert figures["scores"]["identity_heldout"]["failures"] == 0
    style = table[table["kind"] == "style"].groupby("identity")["score_clip_t"].mean().mean()
    assert figures["kinds"]["style"]["clip_t"]["mean"] == pytest.approx(style)
    assert list(figures["kinds"]) == ["plain", "style", "background"]
    assert figures["costs"]["steps"]["mean"] == 15
    seconds = table.groupby("identity")["seconds_personalize"].first().mean()
    assert figures["costs"]["seconds_personalize"]["mean"] == pytest.approx(seconds)


@pytest.mark.cluster
def test_mlflow_has_one_parent_and_one_child(finished: tuple[Path, dict[str, Any]]) -> None:
    out, _ = finished
    stored = result(out)
    client = MlflowClient(f"sqlite:///{out}/mlflow.db")
    runs = {r.info.run_id: r for r in client.search_runs([client.get_experiment_by_name("e4t").experiment_id])}
    child = runs.pop(stored["mlflow"]["runs"]["e4t"])
    (parent,) = runs.values()
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id == stored["mlflow"]["parent"]
    assert {child.info.status, parent.info.status} == {"FINISHED"}
    score = stored["methods"][0]["scores"]["identity"]
    assert child.data.metrics["identity"] == pytest.approx(score["mean"])
    assert child.data.metrics["identity.low"] == pytest.approx(score["low"])
    assert child.data.metrics["identity.high"] == pytest.approx(score["high"])
    assert child.data.metrics["cost/bytes_adapter"] == 1_800_000
    assert child.data.params["hash"] == stored["recipe_hash"]
    assert child.data.params["metrics.identity.path"] == "bundled:identity_tiny"
    assert child.data.params["inputs.references"] == stored["record"]["inputs"]["references"]
    assert {a.path for a in client.list_artifacts(child.info.run_id)} == {
        "evaluation.json",
        stored["rows"].rsplit("/", 1)[-1],
    }


@pytest.mark.cluster
def test_a_second_run_has_nothing_to_do(
    bench: Path, finished: tuple[Path, dict[str, Any]], here: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = finished
    before = (out / "evaluation.json").read_bytes()
    assert run(bench, out, "--json") == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (summary["units_scored"], summary["units_cached"]) == (0, 3)
    assert here == []
    assert (out / "evaluation.json").read_bytes() == before
    client = MlflowClient(f"sqlite:///{out}/mlflow.db")
    assert len(client.search_runs([client.get_experiment_by_name("e4t").experiment_id])) == 2


def test_a_killed_run_goes_on_and_gives_the_same_rows(
    bench: Path, tmp_path: Path, here: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(bench, tmp_path / "whole")
    real = Scorer.run

    def dies(self: Scorer, task: tuple[int, str]) -> int:
        if task[0] == 1:
            raise KeyboardInterrupt
        return real(self, task)

    here.clear()
    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "run", dies)
        with pytest.raises(KeyboardInterrupt):
            run(bench, tmp_path / "killed")
    assert not (tmp_path / "killed" / "evaluation.json").exists()
    here.clear()
    assert run(bench, tmp_path / "killed") == 0
    assert here == [1, 2]
    whole, killed = result(tmp_path / "whole"), result(tmp_path / "killed")
    assert killed["rows"] == whole["rows"]
    assert killed["methods"] == whole["methods"]


def test_damaged_scores_are_named(bench: Path, tmp_path: Path, here: list[int], capsys: Any) -> None:
    run(bench, tmp_path)
    (tmp_path / "evaluation.json").unlink()
    victim = sorted((tmp_path / "scores").iterdir())[1]
    victim.write_bytes(victim.read_bytes()[:-10])
    assert run(bench, tmp_path) == 1
    assert f"{victim} is damaged" in capsys.readouterr().err
    victim.unlink()
    assert run(bench, tmp_path) == 0


def test_other_intervals_need_no_new_scores(bench: Path, tmp_path: Path, here: list[int]) -> None:
    run(bench, tmp_path)
    before = result(tmp_path)
    here.clear()
    assert run(bench, tmp_path, "--set", "evaluate.confidence=0.5") == 0
    after = result(tmp_path)
    assert here == []
    narrow, wide = (r["methods"][0]["scores"]["clip_t"] for r in (after, before))
    assert wide["low"] < narrow["low"] < narrow["high"] < wide["high"]


def test_evaluations_of_one_benchmark_share_their_parent(bench: Path, tmp_path: Path, here: list[int]) -> None:
    uri = f"mlflow.uri=sqlite:///{tmp_path}/shared.db"
    people.images(str(tmp_path / "images"), people.family(5, 3), method="other")
    run(bench, tmp_path / "a", "--set", uri)
    inputs = ("--images", str(tmp_path / "images"), "--shards", str(bench / "shards"))
    assert main(["evaluate", *inputs, "--out", str(tmp_path / "b"), *QUICK, "--set", uri]) == 0
    assert result(tmp_path / "a")["mlflow"]["parent"] == result(tmp_path / "b")["mlflow"]["parent"]


def test_results_go_to_any_store(bench: Path, here: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(bench, "memory://bucket/evaluation") == 0
    stored = Store("memory://bucket/evaluation").read_json("evaluation.json")
    assert stored["methods"][0]["images"] == 36
    assert (tmp_path / "mlflow.db").exists()


def test_faces_that_are_not_found_are_counted(
    bench: Path, tmp_path: Path, here: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = IdentitySimilarity.detector

    def misses_sketches(images: torch.Tensor, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        crops, _ = real(images, size)
        return crops, images.std((1, 2, 3)) < images.std((1, 2, 3)).max()  # in each batch, one is not found

    monkeypatch.setattr(IdentitySimilarity, "detector", staticmethod(misses_sketches))
    assert run(bench, tmp_path) == 0
    stored = result(tmp_path)
    table = pq.read_table(tmp_path / stored["rows"]).to_pandas()
    scores = stored["methods"][0]["scores"]
    assert 0 < scores["identity"]["failures"] == table["score_identity"].isna().sum() < 36
    assert scores["identity"]["images"] + scores["identity"]["failures"] == 36
    lost = table.groupby("identity")["lost_identity"].first()
    assert scores["identity"]["lost"] == lost.sum() > 0, "photos without a face, each once"
    assert "lost" not in scores["clip_t"], "it sees every photo"
    assert scores["clip_t"]["failures"] == 0


def test_a_dry_run_touches_nothing(bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(bench, tmp_path / "out", "--dry-run", "--json") == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (summary["units"], summary["to_do"]) == (3, 3)
    assert not (tmp_path / "out").exists()


# --- what is wrong is said


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--shards", "x"), 2, "--images is required"),
        (("--images", "{bench}/images"), 2, "--shards is required"),
        (("--images", "{bench}/shards", "--shards", "{bench}/shards"), 1, "holds shards, not images"),
        (("--images", "{bench}/none", "--shards", "{bench}/shards"), 1, "generate --out"),
        (("--images", "{bench}/images", "--shards", "{bench}/none"), 1, "no manifest"),
    ],
)
def test_wrong_inputs(
    bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, told: str
) -> None:
    filled = [word.format(bench=bench) for word in words]
    assert main(["evaluate", *filled, "--out", str(tmp_path / "out")]) == code
    assert told in capsys.readouterr().err


def test_images_made_from_other_photos(bench: Path, tmp_path: Path) -> None:
    people.shards(str(tmp_path / "shards"), {"stranger": [people.face(5)]})
    with pytest.raises(DataError, match=r"no sample 'person_0/0' of 'person_0'.*the --shards that generate was given"):
        Scorer(
            str(bench / "images"),
            str(tmp_path / "shards"),
            1,
            str(tmp_path),
            {},
            people.MODELS,
            threads=1,
            device="cpu",
        ).score(0)


def test_a_tracking_server_that_is_gone_costs_no_scoring(bench: Path, tmp_path: Path, here: list[int]) -> None:
    assert run(bench, tmp_path, "--set", "mlflow.uri=nonsense://x") == 1
    assert here == []


def test_passwords_stay_out_of_results() -> None:
    shown = public({"mlflow": {"uri": "http://me:secret@host:5000", "experiment": "e4t"}})
    assert shown["mlflow"]["uri"] == "http://me:***@host:5000"
    given = argparse.Namespace(set=["mlflow.uri=http://me:secret@host", "seed=1"], out="o", json=True, shards=None)
    assert command_line("evaluate", given) == (
        "python -m jobs evaluate --set 'mlflow.uri=http://me:***@host' --set seed=1 --out o"
    )


# --- aggregates


def rows(**columns: Any) -> pd.DataFrame:
    base = {
        "method": "m",
        "identity": ["a", "a", "b", "b"],
        "prompt": ["p", "q", "p", "q"],
        "kind": ["plain", "style"] * 2,
        "heldout": 1,
        "score_clip_t": [0.1, 0.3, 0.5, np.nan],
        "steps": [5, 5, 15, 15],
    }
    return pd.DataFrame({**base, **columns})


def aggregated(table: pd.DataFrame) -> dict[str, Any]:
    metric = METRICS.get("clip_t")(METRICS.get("clip_t").Config(), people.MODELS)
    config = EvaluateConfig(bootstrap_samples=100)
    (figures,) = _aggregates.aggregate([table], {"clip_t": metric}, config, seed=0)
    return figures


def test_every_identity_weighs_the_same() -> None:
    figures = aggregated(rows())
    score = figures["scores"]["clip_t"]
    assert score["mean"] == pytest.approx((0.2 + 0.5) / 2)
    assert (score["images"], score["failures"], score["identities"], score["title"]) == (3, 1, 2, "CLIP-T")
    assert figures["costs"]["steps"]["mean"] == 10
    assert figures["prompts"] == 2
    assert figures["kinds"]["style"]["clip_t"] | {"title": ""} == {
        "title": "",
        "higher_is_better": True,
        "mean": 0.3,
        "low": None,
        "high": None,
        "identities": 1,
        "images": 1,
        "failures": 1,
    }


def test_nothing_scored_is_null_and_no_metric() -> None:
    figures = aggregated(rows(score_clip_t=np.nan))
    assert figures["scores"]["clip_t"]["mean"] is None
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert "clip_t" not in _aggregates.metrics(figures)
    assert _aggregates.metrics(figures)["clip_t.failures"] == 4
    assert "not scored" in _aggregates.text_table([figures])[1]


def test_norm_curve_is_over_identities() -> None:
    curves = [json.dumps(c) for c in ([1.0, 2.0], [1.0, 2.0], [3.0, 6.0], [3.0, 6.0])]
    norms = aggregated(rows(embedding_norm_json=curves))["norms"]
    assert norms == {"identities": 2, "median": [2.0, 4.0], "low": [1.5, 3.0], "high": [2.5, 5.0]}
    assert aggregated(rows(embedding_norm_json=None))["norms"] is None
    assert aggregated(rows(embedding_norm_json="[]"))["norms"] is None


def test_what_an_identity_costs_is_learning_it_and_drawing_all_of_it() -> None:
    learned = [10.0, 10.0, 20.0, 20.0]
    costs = aggregated(rows(seconds_personalize=learned, seconds_generate=[1.0, 2.0, 3.0, 4.0]))["costs"]
    assert costs["seconds_identity"]["mean"] == pytest.approx((13 + 27) / 2)
    assert costs["seconds_image"]["mean"] == pytest.approx((13 / 2 + 27 / 2) / 2)
    unknown = rows(seconds_personalize=learned, seconds_generate=[1.0, np.nan, 3.0, 4.0])
    assert aggregated(unknown)["costs"]["seconds_identity"]["identities"] == 1, "a part is not known"


def test_sums_of_parts_are_those_of_the_whole() -> None:
    """However identities are spread over units."""
    whole, config = rows(), EvaluateConfig(bootstrap_samples=100)
    metric = METRICS.get("clip_t")(METRICS.get("clip_t").Config(), people.MODELS)
    parts = [part for _, part in whole.groupby("identity")]
    assert _aggregates.aggregate(parts, {"clip_t": metric}, config, seed=0) == [aggregated(whole)]


def test_flat_metrics_are_finite_numbers() -> None:
    flat = _aggregates.metrics(aggregated(rows()))
    assert flat["clip_t"] == pytest.approx(0.35)
    assert flat["plain/clip_t"] == pytest.approx(0.3)
    assert flat["cost/steps"] == 10
    assert all(isinstance(v, float) and math.isfinite(v) for v in flat.values())
