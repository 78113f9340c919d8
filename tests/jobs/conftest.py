"""One small road, made once a session: shards, then through the commands a checkpoint, adapters, images."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient

from e4t_core.storage import Store
from jobs import __main__ as jobs_main
from jobs._recipe import load
from tests.shards.support import build
from tests.support.mlflow_server import MlflowServer

SMALL = (
    "source.identities=5",
    "source.images_per_identity=2",
    "shards.samples_per_shard=8",
    "train.steps=6",
    "train.batch_size=4",
    "train.checkpoint_every=2",
    "train.log_every=1",
    "workers.threads=1",
    "method.personalize.steps=2",
    "method.personalize.batch_size=2",
    "personalize.identities_per_shard=2",
    "personalize.max_identities=3",
    "personalize.threads=1",
    "generate.threads=1",
    "generate.sampler.steps=2",
    "generate.prompts=[{name: photo, template: 'a photo of {}', concept_less: a photo},"
    " {name: snow, template: '{} in the snow', concept_less: the snow, kind: background}]",
)
"""The tiny recipe cut down to seconds."""


def start(command: str, *words: str, sets: tuple[str, ...] = ()) -> dict[str, Any]:
    """Run a command in this process as ``python -m jobs`` does, errors raised; returns its summary."""
    over = [word for text in (*SMALL, *sets) for word in ("--set", text)]
    return jobs_main.start(command, ["--recipe", "tiny", *over, *words])


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    """File -> size and modification time: what a command that does nothing must leave alone."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): (p.stat().st_size, p.stat().st_mtime_ns) for p in files}


def ray_processes(name: str) -> list[psutil.Process]:
    """Processes of this session's own Ray that run the actor class ``name``."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # ended between listing and reading: it runs nothing
            if " ".join(process.cmdline()).startswith(f"ray::{name}"):
                found.append(process)
    return found


@contextmanager
def killing(name: str, when: Callable[[], bool], timeout: float = 120) -> Iterator[list[int]]:
    """SIGKILL one process of the actor class ``name`` as soon as ``when()``; yields the list of killed pids."""
    killed: list[int] = []
    over = threading.Event()

    def watch() -> None:
        end = time.monotonic() + timeout
        while not over.wait(0.02) and time.monotonic() < end:
            if when() and (running := ray_processes(name)):
                running[-1].kill()
                killed.append(running[-1].pid)
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


@pytest.fixture(scope="session")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this test run have in common."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "together"
    folder.mkdir(exist_ok=True)
    return folder


def once(folder: Path, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``make`` returns, made by the process of this test run that asks first; the others wait for it."""
    told = folder / f"{name}.json"
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not told.exists():
            told.write_text(json.dumps(make()))
    return dict(json.loads(told.read_text()))


@pytest.fixture(scope="session")
def tracking(together: Path) -> str:
    """URI of an MLflow sqlite store; making its tables takes seconds, so there is one."""

    def make() -> dict[str, Any]:
        uri = f"sqlite:///{together}/mlflow.db"
        MlflowClient(uri).search_experiments()
        return {"uri": uri}

    return str(once(together, "tracking", make)["uri"])


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A server that answers; a test that stops it starts it again."""
    server = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def shards(together: Path, ray_local: None) -> str:
    """Shards of five tiny-world people with two pictures each, made in this process."""
    root = str(together / "shards")

    def make() -> dict[str, Any]:
        recipe = load("tiny", SMALL)
        manifest, _ = build(Store(root), recipe.build_source(), recipe.build_stages(), samples_per_shard=8)
        return dict(manifest.head)

    head = once(together, "shards", make)
    assert (head["samples"], head["quarantined"]) == (10, 0)
    return root


@pytest.fixture(scope="session")
def pretrained(together: Path, shards: str, tracking: str) -> dict[str, Any]:
    """The summary of a short pre-training."""
    words = ("--shards", shards, "--out", str(together / "checkpoint"))
    return once(together, "pretrained", lambda: start("pretrain", *words, sets=(f"mlflow.uri={tracking}",)))


@pytest.fixture(scope="session")
def checkpoint(pretrained: dict[str, Any]) -> str:
    """The folder of a short pre-training."""
    return str(pretrained["out"])


@pytest.fixture(scope="session")
def personalized(together: Path, shards: str, checkpoint: str) -> dict[str, Any]:
    """The summary of three identities' personalization, in units of two."""
    words = ("--shards", shards, "--checkpoint", checkpoint, "--out", str(together / "adapters"))
    return once(together, "personalized", lambda: start("personalize", *words))


@pytest.fixture(scope="session")
def adapters(personalized: dict[str, Any]) -> str:
    """Adapters of three identities."""
    return str(personalized["out"])


@pytest.fixture(scope="session")
def generated(together: Path, shards: str, checkpoint: str, adapters: str) -> dict[str, Any]:
    """The summary of drawing them under two prompts."""
    words = ("--shards", shards, "--checkpoint", checkpoint, "--adapters", adapters)
    return once(together, "generated", lambda: start("generate", *words, "--out", str(together / "images")))


@pytest.fixture(scope="session")
def images(generated: dict[str, Any]) -> str:
    """Images of three identities under two prompts."""
    return str(generated["out"])
