"""The same words three ways: local Ray, ``ray job submit`` to a head, a two-node cluster; S3 and MLflow are real."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.conftest import Cluster
from tests.support.processes import ROOT, environment, jobs, tool

pytestmark = pytest.mark.cluster
LENGTHS = pytest.mark.parametrize(
    "length", [pytest.param(2, id="to_a_checkpoint"), pytest.param(6, id="to_the_report", marks=pytest.mark.full)]
)
"""How many commands of the road: each starts Ray and its workers anew, about 20 seconds on two cores."""

SMALL = (
    "source.identities=4", "source.images_per_identity=2", "shards.samples_per_shard=4",
    "train.steps=4", "train.batch_size=4", "train.checkpoint_every=2", "train.log_every=1",
    "method.personalize.steps=2", "method.personalize.batch_size=2",
    "generate.sampler.steps=2", "personalize.max_identities=2", "evaluate.bootstrap_samples=50",
    "workers.threads=1", "personalize.threads=1", "generate.threads=1", "evaluate.threads=1",
)  # fmt: skip


def words(command: str, *more: str) -> list[str]:
    sets = [word for text in SMALL for word in ("--set", text)]
    return [command, "--recipe", "tiny", *sets, *more, "--json"]


def road(out: str) -> list[list[str]]:
    """Every command of the road, writing below ``out``."""
    shards, checkpoint = ("--shards", f"{out}/shards"), ("--checkpoint", f"{out}/checkpoint")
    return [
        words("preprocess", "--out", f"{out}/shards"),
        words("pretrain", *shards, "--out", f"{out}/checkpoint"),
        words("personalize", *shards, *checkpoint, "--out", f"{out}/adapters"),
        words("generate", *shards, *checkpoint, "--adapters", f"{out}/adapters", "--out", f"{out}/images"),
        words("evaluate", *shards, "--images", f"{out}/images", "--out", f"{out}/evaluation"),
        words(
            "report",
            *shards,
            "--images",
            f"{out}/images",
            "--evaluation",
            f"{out}/evaluation",
            "--out",
            f"{out}/report",
        ),
    ]


def submitted(cluster: Cluster, command: list[str], env: dict[str, str]) -> dict:
    runtime = json.dumps({"env_vars": {**env, "OMP_NUM_THREADS": "1"}, "excludes": [".git", ".venv", "out"]})
    done = subprocess.run(
        [tool("ray"), "job", "submit", "--address", cluster.jobs, "--working-dir", str(ROOT),
         "--runtime-env-json", runtime, "--", "python", "-m", "jobs", *command],
        env=environment(), capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(next(line for line in reversed(done.stdout.splitlines()) if line.startswith("{")))


def check_road(summaries: dict[str, dict], length: int) -> None:
    assert len(summaries) == length
    assert summaries["preprocess"]["samples"] == 8
    assert summaries["pretrain"]["steps"] == 4
    if length > 2:
        assert summaries["personalize"]["identities"] == 2
        assert summaries["generate"]["images"] == 2 * 8


@LENGTHS
def test_local(tmp_path: Path, mlflow_server: str, length: int) -> None:
    summaries = {}
    for command in road(str(tmp_path))[:length]:
        done = jobs(*command, env={"MLFLOW_TRACKING_URI": mlflow_server})
        assert done.returncode == 0, f"{command}: {done.stderr[-3000:]}"
        summaries[command[0]] = json.loads(done.stdout.splitlines()[-1])
    check_road(summaries, length)
    assert _runs(mlflow_server) >= (1 if length == 2 else 3)
    if "report" in summaries:
        assert (tmp_path / "report" / "report.html").stat().st_size > 10_000


@LENGTHS
def test_ray_job_submit_to_two_nodes_on_s3(
    cluster: Cluster, moto_s3: Callable[[], str], mlflow_server: str, length: int
) -> None:
    bucket = moto_s3()
    env = {k: v for k, v in os.environ.items() if k.startswith("AWS_")} | {"MLFLOW_TRACKING_URI": mlflow_server}
    summaries = {}
    for command in road(f"{bucket}/road")[:length]:
        if command[0] == "pretrain":
            command += ["--set", "workers.num_workers=2"]
        summaries[command[0]] = submitted(cluster, command, env)
    check_road(summaries, length)
    again = submitted(cluster, road(f"{bucket}/road")[0], env)
    assert again["shards_done"] == 0
    assert again["version"] == summaries["preprocess"]["version"]


def _runs(uri: str) -> int:
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    return len(client.search_runs([e.experiment_id for e in client.search_experiments()]))
