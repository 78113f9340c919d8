"""What ``infra/`` starts on a cluster, for real: its very words on a local head, with the tiny world's recipes."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import uuid
from collections.abc import Callable, Sequence

import pytest
from ray.job_submission import JobSubmissionClient

from tests.cluster.conftest import Cluster
from tests.support import infra
from tests.support.processes import environment

pytestmark = pytest.mark.cluster

TINY = {
    "sd15": "tiny",
    "ffhq_sd15": "tiny",
    "nightly_lfw": "nightly_tiny",
    "hyperdreambooth_sd15": "hyperdreambooth_tiny",
}
"""Recipe -> the one that differs from it in values only."""
REAL = ("source.path=", "source.list=", "metrics.identity.path=", "workers.num_workers=")
"""Settings that name real data or real machines."""
SMALL = (
    "source.identities=4", "source.images_per_identity=2", "shards.samples_per_shard=4", "train.steps=4",
    "train.batch_size=4", "train.log_every=1", "method.personalize.steps=2", "generate.sampler.steps=2",
    "personalize.max_identities=2", "evaluate.bootstrap_samples=50",
)  # fmt: skip
LiDB = ("stages.lidb.tune.steps=2",)
JUDGED = ("source.identities=6", "personalize.max_identities=6")
"""A night refuses fewer people than could show a drop."""
TRAINED, TUNED = "train.steps: 4, train.batch_size: 4", "method.personalize.steps: 2"
LITTLE = {
    "domain_agnostic": f"{TRAINED}, {TUNED}",
    "taming_encoder": TRAINED,
    "hyperdreambooth": f"{TRAINED}, {TUNED}, source.identities: 4, stages.lidb.tune.steps: 2",
    "textual_inversion": TUNED,
    "dreambooth": TUNED,
    "lora": TUNED,
}
"""A night's own settings say who is personalized; how long its other methods train is in their recipes."""


def in_miniature(words: Sequence[str], bucket: str) -> list[str]:
    """The words with a tiny recipe and another bucket in place of theirs; everything else as it stands."""
    joined = (
        [word for pair in words for word in pair.split("=", 1)] if words[1].startswith("--recipe=") else list(words)
    )
    out, recipe = [joined[0]], ""
    for flag, value in zip(joined[1::2], joined[2::2], strict=True):
        if flag == "--recipe":
            recipe = value = TINY[value]
        if not (flag == "--set" and value.startswith(REAL)):
            out += [flag, value.replace("s3://e4t", bucket)]
    small = SMALL + (LiDB if recipe.startswith("hyperdreambooth") else ())
    if out[0] == "nightly":
        small += (*JUDGED, *(f"nightly.methods.{name}.changes={{{little}}}" for name, little in LITTLE.items()))
    return [*out, *(word for text in small for word in ("--set", text)), "--json"]


def by_kuberay(cluster: Cluster, entrypoint: str) -> subprocess.CompletedProcess[str]:
    """As the submitter of a RayJob does it: the entrypoint pasted into the command of a shell."""
    submit = f"ray job submit --address {cluster.jobs} -- {entrypoint}"
    return subprocess.run(["bash", "-c", submit], env=environment(), capture_output=True, text=True, timeout=1200)


def by_the_clock(cluster: Cluster, name: str, job: str, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """As the pod of a CronJob does it, whose Kubernetes job is called ``job``."""
    command = infra.container(infra.of_kind(infra.rendered("cluster"), "CronJob")[name])["command"]
    env = {**environment(), "JOB": job, "RAY_ADDRESS": cluster.jobs}
    return subprocess.run([*command, *words], env=env, capture_output=True, text=True, timeout=400)


def with_keys(words: Sequence[str]) -> list[str]:
    """The command with the variables that a pod has of its ConfigMap and Secret."""
    keys = [f"{name}={value}" for name, value in os.environ.items() if name.startswith("AWS_")]
    return ["env", *keys, "python", "-m", "jobs", *words]


def new(name: str) -> str:
    """A Kubernetes job's name that the cluster has not seen."""
    return f"{name}-{uuid.uuid4().hex[:8]}"


def summary(done: subprocess.CompletedProcess[str]) -> dict:
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return dict(json.loads(next(line for line in reversed(done.stdout.splitlines()) if line.startswith("{"))))


@pytest.fixture
def bucket(moto_s3: Callable[[], str]) -> str:
    return moto_s3()


def run_rayjob(cluster: Cluster, name: str, bucket: str) -> dict:
    words = in_miniature(infra.rayjob_words()[name], bucket)
    return summary(by_kuberay(cluster, shlex.join(with_keys(words))))


def test_a_rayjob_runs_its_words(cluster: Cluster, bucket: str) -> None:
    assert run_rayjob(cluster, "e4t-doctor", bucket)["ok"]


def test_a_schedule_fails_as_its_job_failed(cluster: Cluster) -> None:
    done = by_the_clock(cluster, "e4t-nightly", new("bad"), ["python", "-c", "raise SystemExit('CLIP-T fell')"])
    assert done.returncode != 0
    assert "CLIP-T fell" in done.stdout


@pytest.mark.full
def test_a_schedule_makes_shards(cluster: Cluster, bucket: str) -> None:
    words = in_miniature(infra.schedule_words()["e4t-shards"], bucket)
    done = summary(by_the_clock(cluster, "e4t-shards", new("e4t-shards"), with_keys(words)))
    assert (done["samples"], done["quarantined"]) == (8, 0)


@pytest.mark.full
@pytest.mark.parametrize(("code", "status"), [("print('a', 'night')", 0), ("print('a', 'night'); exit(1)", 1)])
def test_a_schedule_starts_its_job_once(cluster: Cluster, code: str, status: int) -> None:
    client, job = JobSubmissionClient(cluster.jobs), new("night")
    before = len(client.list_jobs())
    for _ in range(2):  # the second is the pod that replaces a lost one
        done = by_the_clock(cluster, "e4t-nightly", job, ["python", "-c", code])
        assert (done.returncode, "a night" in done.stdout) == (status, True), done.stderr
    assert len(client.list_jobs()) == before + 1


@pytest.mark.full
def test_every_rayjob_runs_its_words(cluster: Cluster, bucket: str) -> None:
    done = {name: run_rayjob(cluster, name, bucket) for name in infra.rayjob_words()}
    assert done["e4t-preprocess"]["samples"] == 8
    assert done["e4t-pretrain"]["steps"] == 4
    assert done["e4t-personalize"]["identities"] == 2
    assert done["e4t-generate"]["images"] == 2 * 8
    assert done["e4t-report"]["bytes"] > 10_000
