"""Threads of a training spin long where they have their cores to themselves, and only there."""

from __future__ import annotations

import threading
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import ray

import jobs
from jobs._job import Job
from jobs._spinning import LONG, worker_environment
from tests.jobs.conftest import ray_processes, start

ALONE = {"env_vars": {"GOMP_SPINCOUNT": LONG}}


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody set a spin before jobs did."""
    monkeypatch.setattr(jobs, "SPIN_IS_OURS", True)


def asked(monkeypatch: pytest.MonkeyPatch, cpus: float, *sets: str) -> dict[str, Any]:
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": cpus}}])
    return worker_environment(Job(Namespace(recipe="tiny", set=list(sets))))


@pytest.mark.usefixtures("unset")
@pytest.mark.parametrize(
    ("cpus", "workers", "threads", "alone"), [(2, 1, 2, True), (1, 1, 2, False), (2, 2, 2, False), (4, 2, 2, True)]
)
def test_a_local_ray_runs_nothing_else(
    cpus: float, workers: int, threads: int, alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    sets = (f"workers.num_workers={workers}", f"workers.threads={threads}")
    assert asked(monkeypatch, cpus, *sets) == (ALONE if alone else {})


@pytest.mark.usefixtures("unset")
@pytest.mark.parametrize(("reserved", "alone"), [(1, False), (2, True)])
def test_on_a_cluster_what_was_reserved_counts(reserved: int, alone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = ("ray.address=auto", "workers.threads=2", f"workers.cpus={reserved}")
    assert asked(monkeypatch, 64, *sets) == (ALONE if alone else {})


def test_what_the_user_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "SPIN_IS_OURS", False)
    assert asked(monkeypatch, 64) == {}


@pytest.mark.usefixtures("unset")
def test_a_worker_has_it(shards: str, tracking: str, tmp_path: Path) -> None:
    seen: set[str | None] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            seen.update(process.environ().get("GOMP_SPINCOUNT") for process in ray_processes("RayTrainWorker"))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    start("pretrain", "--shards", shards, "--out", str(tmp_path), sets=(f"mlflow.uri={tracking}", "train.steps=2"))
    over.set()
    thread.join()
    assert seen == {LONG}
