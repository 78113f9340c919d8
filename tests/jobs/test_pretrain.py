"""Pre-training on Ray Train: what it leaves, how it goes on, and what it refuses."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file

from e4t_core.errors import CheckpointMismatch, DataError, UsageError
from e4t_core.record import Record
from e4t_core.storage import Store
from e4t_core.training import TrainingDiverged
from jobs import _people, _recipe
from jobs._models import clip_dims, load_models
from jobs._run_folder import RunFolder, decisive, differences
from pipelines.loader import ShardDataset
from tests.jobs.conftest import SMALL, everything, killing, start

LOSSES = ("loss", "grad_norm", "lr")


def curve(out: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(out) / "metrics.jsonl").read_text().splitlines()]


def losses(out: str | Path) -> list[dict[str, float]]:
    """What of a curve must not depend on the clock."""
    return [{k: v for k, v in row.items() if not k.startswith(("seconds", "samples"))} for row in curve(out)]


def module(out: str | Path) -> dict[str, torch.Tensor]:
    return load_file(Path(out) / "module.safetensors")


def assert_same_run(a: str | Path, b: str | Path) -> None:
    assert losses(a) == losses(b)
    there, here = module(a), module(b)
    assert there.keys() == here.keys()
    for name, tensor in there.items():
        assert torch.equal(tensor, here[name]), name


def half_done(finished: str | Path, folder: Path, step: int = 4) -> Path:
    """A run as a killed driver leaves it: complete up to ``step``, the next checkpoint half-written."""
    shutil.copytree(finished, folder)
    for name in ("record.json", "module.safetensors", "metrics.jsonl", "checkpoints/step-000006/state.json"):
        (folder / name).unlink()
    assert RunFolder(Store(folder)).steps() == [step]
    return folder


def test_leaves_module_curve_and_record(pretrained: dict[str, Any], shards: str) -> None:
    out = Path(pretrained["out"])
    assert pretrained["steps"] == 6
    assert [row["step"] for row in curve(out)] == [1, 2, 3, 4, 5, 6]
    assert pretrained["loss"] == curve(out)[-1]["loss"]
    record = Record.from_json((out / "record.json").read_text(), "record")
    assert record.recipe == json.loads(json.dumps(_recipe.load("tiny", [*SMALL, f"mlflow.uri={_uri(record)}"]).dump()))
    assert record.inputs["shards"] == f"{shards}#1"
    assert {"backbone.unet", "shards_fingerprint"} <= record.inputs.keys()
    assert pretrained["parameters"] == sum(t.numel() for t in module(out).values())
    assert RunFolder(Store(out)).steps() == [4, 6], "older checkpoints go"


def _uri(record: Record) -> str:
    return str(record.recipe["mlflow"]["uri"])


def test_training_changes_the_module_and_only_it_is_kept(pretrained: dict[str, Any], shards: str) -> None:
    recipe, dataset = _recipe.load("tiny", SMALL), ShardDataset.open(shards)
    loaded = load_models(recipe, recipe.personalize, clip_dims(dataset), pretrained["out"])
    fresh = recipe.build_method().build(loaded.backbone, clip_dims(dataset))
    now = loaded.module.state_dict()
    assert now.keys() == fresh.state_dict().keys() == module(pretrained["out"]).keys()
    assert any(not torch.equal(tensor, now[name]) for name, tensor in fresh.state_dict().items())
    assert not loaded.module.training


def test_mlflow_has_params_and_the_curve(pretrained: dict[str, Any], tracking: str) -> None:
    client = MlflowClient(tracking)
    ids = [e.experiment_id for e in client.search_experiments()]
    run_id = json.loads((Path(pretrained["out"]) / "run.json").read_text())["id"]
    (run,) = client.search_runs(ids, f"tags.`e4t.key` = 'pretrain-{run_id}'")
    assert run.info.status == "FINISHED"
    assert run.data.params["train.steps"] == "6"
    assert run.data.params["recipe_hash"] == pretrained["recipe_hash"]
    logged = {m.step: m.value for m in client.get_metric_history(run.info.run_id, "train/loss")}
    assert logged == pytest.approx({row["step"]: row["loss"] for row in curve(pretrained["out"])})
    assert run.data.metrics["train/samples_per_second"] > 0


def test_again_has_nothing_to_do(
    pretrained: dict[str, Any], shards: str, tracking: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path(pretrained["out"])
    before = everything(out)
    again = start("pretrain", "--shards", shards, "--out", str(out), sets=(f"mlflow.uri={tracking}",))
    assert again == pretrained
    assert everything(out) == before
    assert "nothing to do" in capsys.readouterr().err


@pytest.mark.parametrize("finished", [True, False])
def test_another_recipe_in_the_same_folder_is_refused(
    finished: bool, pretrained: dict[str, Any], shards: str, tmp_path: Path
) -> None:
    out = Path(pretrained["out"]) if finished else half_done(pretrained["out"], tmp_path / "run")
    before = everything(out)
    with pytest.raises(UsageError, match=r"another recipe: .*method\.scale is 0\.1 there and 0\.2 here.*another --out"):
        start("pretrain", "--shards", shards, "--out", str(out), sets=("method.scale=0.2",))
    with pytest.raises(UsageError, match=r"train\.steps is 6 there and 7 here"):
        start("pretrain", "--shards", shards, "--out", str(out), "--dry-run", sets=("train.steps=7",))
    assert everything(out) == before


def test_what_happens_later_or_elsewhere_does_not_matter(pretrained: dict[str, Any], shards: str) -> None:
    sets = ("method.personalize.steps=9", "generate.images_per_prompt=4", "workers.num_workers=2", "source.limit=3")
    again = start("pretrain", "--shards", shards, "--out", pretrained["out"], sets=sets)
    assert again == pretrained


def test_killed_driver_goes_on_where_it_was(
    pretrained: dict[str, Any], shards: str, tracking: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = half_done(pretrained["out"], tmp_path / "run")
    summary = start("pretrain", "--shards", shards, "--out", str(out), sets=(f"mlflow.uri={tracking}",))
    assert "going on from step 4" in capsys.readouterr().err
    assert summary["steps"] == 6
    assert_same_run(out, pretrained["out"])


def test_killed_worker_is_started_again_and_the_curve_is_the_same(
    pretrained: dict[str, Any], shards: str, tracking: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disturb(tmp_path, shards, capsys, f"mlflow.uri={tracking}")
    assert_same_run(pretrained["out"], tmp_path)


@pytest.mark.full
def test_one_of_two_workers_killed(
    shards: str, tracking: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = (f"mlflow.uri={tracking}", "workers.num_workers=2", "train.batch_size=2", "train.grad_accum=2")
    quiet = start("pretrain", "--shards", shards, "--out", str(tmp_path / "quiet"), sets=sets)
    assert quiet["workers"] == 2
    disturb(tmp_path / "disturbed", shards, capsys, *sets)
    assert_same_run(quiet["out"], tmp_path / "disturbed")


def disturb(out: Path, shards: str, capsys: pytest.CaptureFixture[str], *sets: str) -> None:
    """A run of which one worker is killed after its first checkpoint."""
    first = out / "checkpoints" / "step-000002" / "state.json"
    capsys.readouterr()
    with killing("RayTrainWorker", first.exists) as killed:
        summary = start("pretrain", "--shards", shards, "--out", str(out), sets=sets)
    assert len(killed) == 1
    assert "a worker was lost; all go on from step" in capsys.readouterr().err
    assert summary["steps"] == 6


def test_a_loss_that_is_not_finite_is_told_in_words(shards: str, tracking: str, tmp_path: Path) -> None:
    sets = (f"mlflow.uri={tracking}", "train.base_lr=1e30", "workers.max_failures=0")
    with pytest.raises(TrainingDiverged, match=r"lower train\.base_lr"):
        start("pretrain", "--shards", shards, "--out", str(tmp_path), sets=sets)


def test_dry_run_plans_and_writes_nothing(shards: str, tmp_path: Path) -> None:
    plan = start("pretrain", "--shards", shards, "--out", str(tmp_path / "new"), "--dry-run")
    assert (plan["samples"], plan["steps"], plan["samples_per_step"], plan["epochs"]) == (10, 6, 4, 2.4)
    assert (plan["workers"], plan["done"]) == (1, 0)
    assert plan["learning_rate"] == pytest.approx(2e-5 * 4)
    assert plan["bytes_without_activations"] == plan["parameters_frozen"] * 4 + plan["parameters_trained"] * 16
    assert not (tmp_path / "new").exists()


def test_missing_shards_say_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--shards is required: .*python -m jobs preprocess"):
        start("pretrain", "--out", str(tmp_path))
    with pytest.raises(DataError, match="has no manifest"):
        start("pretrain", "--shards", str(tmp_path / "none"), "--out", str(tmp_path))


def test_shards_of_another_model_are_refused(shards: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"column 'clip' .* was made with another model: .*weights is"):
        start("pretrain", "--shards", shards, "--out", str(tmp_path), sets=("clip.random_seed=7",))
    with pytest.raises(UsageError, match=r"column 'latent' .* was made with another model"):
        start("pretrain", "--shards", shards, "--out", str(tmp_path), sets=("backbone.random_seed=7",))
    assert not any(tmp_path.iterdir())


def test_more_workers_than_a_local_ray_holds_are_refused(shards: str, tracking: str, tmp_path: Path) -> None:
    sets = (f"mlflow.uri={tracking}", "workers.gpus=1")
    with pytest.raises(UsageError, match=r"asks for 1 x \(1 CPU, 1 GPU\) and this machine's Ray has 2 CPU \+ 0 GPU"):
        start("pretrain", "--shards", shards, "--out", str(tmp_path), sets=sets)


def test_a_module_of_another_method_setting_does_not_load(pretrained: dict[str, Any], shards: str) -> None:
    dims = clip_dims(ShardDataset.open(shards))
    for change, said in (
        ("method.scale=0.3", r"method\.scale is 0\.1 there and 0\.3 here"),
        ("backbone.random_seed=5", "backbone"),
    ):
        recipe = _recipe.load("tiny", [*SMALL, change])
        with pytest.raises(CheckpointMismatch, match=said):
            load_models(recipe, recipe.personalize, dims, pretrained["out"])


def test_an_unfinished_run_is_no_checkpoint(pretrained: dict[str, Any], tmp_path: Path) -> None:
    out = half_done(pretrained["out"], tmp_path / "run")
    with pytest.raises(DataError, match=r"no finished pre-training \(it stands at step 4; run pretrain again"):
        RunFolder(Store(out)).trained()
    with pytest.raises(DataError, match="has no checkpoint"):
        RunFolder(Store(tmp_path / "empty")).trained()


def test_begins_from_the_module_of_an_earlier_run(
    pretrained: dict[str, Any], shards: str, tracking: str, tmp_path: Path
) -> None:
    sets = (f"mlflow.uri={tracking}", "train.steps=1", "train.base_lr=1e-12", f"train.init_from={pretrained['out']}")
    made = start("pretrain", "--shards", shards, "--out", str(tmp_path / "more"), sets=sets)
    there, here = module(pretrained["out"]), module(made["out"])
    for name, tensor in there.items():
        torch.testing.assert_close(here[name], tensor, rtol=0, atol=1e-9)
    inputs = json.loads((tmp_path / "more" / "record.json").read_text())["inputs"]
    assert inputs["init_sha256"] == pretrained["sha256"]


def test_ray_train_starts_no_actor_that_has_nothing_to_do(shards: str, tracking: str, tmp_path: Path) -> None:
    with contextlib.suppress(ValueError):  # Ray Data's, of a test before this one; Ray Train would take it
        ray.kill(ray.get_actor("AutoscalingCoordinator", namespace="AutoscalingCoordinator"))
    before = set(ray._private.state.actors())
    start(
        "pretrain", "--shards", shards, "--out", str(tmp_path / "run"), sets=(f"mlflow.uri={tracking}", "train.steps=1")
    )
    actors = [actor for key, actor in ray._private.state.actors().items() if key not in before]
    started = {actor["ActorClassName"].split(".")[-1] for actor in actors}
    assert {"TrainController", "RayTrainWorker"} <= started, "the names are those that Ray has"
    assert started.isdisjoint(
        {"DatasetManager", "PlacementGroupCleaner", "_AutoscalingCoordinatorActor", "_Notices"}
    ), "none that a Ray of one machine has no use for"


def test_a_start_that_is_no_finished_run_is_refused(shards: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no finished pre-training"):
        start("pretrain", "--shards", shards, "--out", str(tmp_path / "a"), sets=(f"train.init_from={tmp_path}",))
    with pytest.raises(UsageError, match="nothing bundled is called 'e4t_fase'"):
        start("pretrain", "--shards", shards, "--out", str(tmp_path / "a"), sets=("train.init_from=bundled:e4t_fase",))
    assert not (tmp_path / "a").exists()


def test_differences_name_every_leaf() -> None:
    old = decisive(_recipe.load("tiny").dump())
    new = decisive(_recipe.load("tiny", ["seed=3", "train.precision=bf16", "method.personalize.steps=1"]).dump())
    assert differences(old, new) == ["seed is 0 there and 3 here", "train.precision is 'fp32' there and 'bf16' here"]
    assert _people.stable_seed(0, "a") != _people.stable_seed(0, "b")
