"""Rounds of killing: drivers, workers, nodes, whole machines, at random moments; and a network that loses answers."""

from __future__ import annotations

import multiprocessing
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import s3fs

from e4t_core.storage import Store
from pipelines.shards import layout
from pipelines.shards.maintenance import verify
from tests.conftest import ROOT
from tests.shards import drive
from tests.shards.fakes import CHAINS, apart, chain, folder_source, people
from tests.shards.support import assert_exactly_once, build, content
from tests.support.flaky_proxy import FAULTS, Fault, FlakyProxy
from tests.support.ray_nodes import SecondNode, kill, kill_tree, ray_workers, second_node, until

Backend = Literal["local", "s3"]
Kind = Literal["driver", "worker", "node", "machine"]
KINDS: tuple[Kind, ...] = ("driver", "worker", "node", "machine")
SAMPLES, SECONDS = 14, 0.1
PATIENCE_S = 300
"""For one run of the command: a slow machine is no failure, a run that hangs is."""


@pytest.fixture
def src(tmp_path: Path) -> Path:
    people(tmp_path / "src", SAMPLES)
    return tmp_path / "src"


@pytest.fixture
def calm(tmp_path: Path, src: Path) -> dict[str, bytes]:
    """Bytes of an undisturbed run over ``src``."""
    undisturbed = Store(tmp_path / "calm")
    build(undisturbed, folder_source(src), chain())
    return content(undisturbed)


@pytest.fixture
def place(tmp_path: Path, moto_s3: Callable[[], str]) -> Callable[[Backend], Store]:
    """A new store of a kind."""
    return lambda backend: Store(tmp_path / "store" if backend == "local" else moto_s3() + "/store")


@pytest.fixture(scope="module")
def node(ray_local: None) -> Iterator[SecondNode]:
    with second_node(address_of_ray()) as joined:
        yield joined


# --- kills


@dataclass
class Round:
    """The same command until it is done, with kills between.

    Attributes:
        kind: what is killed. ``driver``: its process group; ``worker``: one that runs a stage; ``node``: the second one
            of two; ``machine``: a driver with a Ray of its own, and all of that Ray.
        kills: how many.
        stages: which of CHAINS.
        killed: what was, for the message of a round that fails.
    """

    src: Path
    store: Store
    kind: Kind
    kills: int
    stages: str
    rng: random.Random
    node: SecondNode
    log: Path
    killed: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Until the command ends well.

        Raises:
            AssertionError: it ended badly though nobody killed it, or nothing could be killed in time.
        """
        driver = self._start()
        try:
            while len(self.killed) < self.kills:
                self._await_work(driver)
                self._kill(driver)
                if self.kind in ("driver", "machine"):
                    driver.wait(30)
                    driver = self._start()
            assert driver.wait(PATIENCE_S) == 0, f"it failed after {self.killed}: {self._told()}"
        finally:
            if driver.poll() is None:
                kill_tree(driver.pid)

    def _start(self) -> subprocess.Popen[bytes]:
        if self.kind == "node":
            self.node.start()
        address = "local" if self.kind == "machine" else address_of_ray()
        command = driving(self.src, self.store, address, self.stages)
        with self.log.open("wb") as log:
            return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)

    def _await_work(self, driver: subprocess.Popen[bytes]) -> None:
        """Until a random number of objects were written, and a random while longer."""
        goal = written(self.store) + self.rng.randint(1, 4)
        until(lambda: driver.poll() is not None or written(self.store) >= goal, PATIENCE_S)
        assert driver.poll() is None, f"it ended after {self.killed} before {goal} objects: {self._told()}"
        assert written(self.store) >= goal, f"it hangs after {self.killed}: {self._told()}"
        time.sleep(self.rng.uniform(0, 2 * SECONDS))

    def _kill(self, driver: subprocess.Popen[bytes]) -> None:
        victim = driver.pid
        if self.kind == "worker":
            victim = self.rng.choice(ray_workers("MapWorker", os.getpid(), self.node.pid))
            kill(victim)
        elif self.kind == "node":
            self.node.kill()
        else:
            kill_tree(victim)
        self.killed.append(f"{self.kind} {victim} at {written(self.store)} objects")

    def _told(self) -> str:
        return self.log.read_text()[-3000:]


def written(store: Store) -> int:
    """Tars and commits that are there."""
    return sum(1 for folder in (layout.COMMITS, layout.DATA) for _ in store.list(folder))


def address_of_ray() -> str:
    import ray

    return str(ray.get_runtime_context().gcs_address)


def driving(src: Path, store: Store, address: str, stages: str) -> list[str]:
    return [sys.executable, "-m", "tests.shards.drive", str(src), store.uri, str(SECONDS), address, stages]


def assert_whole(store: Store, src: Path, calm: dict[str, bytes], stages: str) -> None:
    """The plan's samples once each, the bytes of an undisturbed run, every hash right, nothing left to do."""
    assert_exactly_once(store, {path.relative_to(src).as_posix() for path in src.rglob("*.txt")})
    assert content(store) == calm
    assert layout.numbers(store, layout.MANIFESTS) == [1]
    checked = verify(store)
    assert (checked["problems"], checked["orphans"]) == ([], [])
    before = {entry.key: entry.etag for entry in store.list()}
    manifest, made = build(store, folder_source(src), CHAINS[stages]())
    assert (manifest.version, made) == (1, [])
    assert {entry.key: entry.etag for entry in store.list()} == before


SHORT: tuple[tuple[Backend, Kind, int], ...] = (("local", "node", 0), ("s3", "worker", 1))
"""What ``test_executor`` has no short form of."""
LONG = [(backend, KINDS[seed % len(KINDS)], seed) for backend in ("local", "s3") for seed in range(10, 30)]


@pytest.mark.parametrize(
    ("backend", "kind", "seed"), [*SHORT, *(pytest.param(*case, marks=pytest.mark.full) for case in LONG)]
)
def test_whatever_is_killed_the_same_command_finishes_the_same_store(
    backend: Backend,
    kind: Kind,
    seed: int,
    place: Callable[[Backend], Store],
    src: Path,
    calm: dict[str, bytes],
    node: SecondNode,
    tmp_path: Path,
) -> None:
    rng, store = random.Random(f"{backend} {kind} {seed}"), place(backend)
    short = (backend, kind, seed) in SHORT
    kills = 1 if short or kind == "node" else rng.randint(1, 2)
    stages = "chain" if short and kind != "node" else "apart"  # the more workers, the more there is to start
    Round(src, store, kind, kills, stages, rng, node, tmp_path / "driver.log").run()
    assert_whole(store, src, calm, stages)


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.full) for n in range(1, 20))])
@pytest.mark.parametrize("backend", ["local", "s3"])
def test_a_process_that_is_killed_at_any_write_is_repeated(
    backend: Backend,
    seed: int,
    place: Callable[[Backend], Store],
    src: Path,
    calm: dict[str, bytes],
    request: pytest.FixtureRequest,
) -> None:
    """The same without Ray: many more moments in the same time."""
    rng, store = random.Random(f"{backend} {seed}"), place(backend)
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["tests.shards.drive"])

    def start() -> multiprocessing.process.BaseProcess:
        process = forks.Process(target=drive.main, args=(str(src), store.uri, "0.02", "none"))
        process.start()
        request.addfinalizer(process.kill)
        return process

    process = start()
    for kills in range(1, 2 + rng.randint(2, 4)):
        goal = written(store) + rng.randint(1, 4)
        until(lambda process=process, goal=goal: not process.is_alive() or written(store) >= goal, PATIENCE_S, 0.01)
        time.sleep(rng.uniform(0, 0.1))
        assert process.is_alive(), f"exit code {process.exitcode} before kill {kills}"
        process.kill()
        process.join(30)
        process = start()
    process.join(PATIENCE_S)
    assert process.exitcode == 0
    assert_whole(store, src, calm, "chain")


@pytest.mark.parametrize("backend", ["s3", pytest.param("local", marks=pytest.mark.full)])
def test_two_drivers_that_race_on_one_output_both_end_well(
    backend: Backend, place: Callable[[Backend], Store], src: Path, calm: dict[str, bytes], ray_local: None
) -> None:
    store = place(backend)
    command, pipes = (
        driving(src, store, address_of_ray(), "chain"),
        {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE},
    )
    racers = [subprocess.Popen(command, cwd=ROOT, text=True, **pipes) for _ in "ab"]
    for racer in racers:
        out, error = racer.communicate(timeout=PATIENCE_S)
        assert racer.returncode == 0, error
        assert f'"version": 1, "samples": {SAMPLES}, "quarantined": 0' in out
    assert_whole(store, src, calm, "chain")


# --- the network


@contextmanager
def through(proxy: FlakyProxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """New stores and new processes reach S3 by way of ``proxy``."""
    with proxy.running(), monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.url)
        s3fs.S3FileSystem.clear_instance_cache()
        try:
            yield
        finally:
            s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.full) for n in range(1, 20))])
def test_a_bad_network_costs_time_and_nothing_else(
    seed: int, moto_s3: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, src = moto_s3() + "/store", tmp_path / "src"
    people(src, 16)  # about 240 requests: each fault happens, but in one round of 30,000
    build(Store(tmp_path / "calm"), folder_source(src), chain())
    proxy = FlakyProxy(os.environ["AWS_ENDPOINT_URL"], dict.fromkeys(FAULTS, 0.05), seed)
    with through(proxy, monkeypatch):
        build(Store(uri), folder_source(src), apart())
    assert {fault for fault, _ in proxy.happened} == set(FAULTS)
    assert_whole(Store(uri), src, content(Store(tmp_path / "calm")), "apart")


@pytest.mark.full
@pytest.mark.parametrize("seed", range(3))
def test_workers_behind_a_bad_network(
    seed: int,
    place: Callable[[Backend], Store],
    src: Path,
    calm: dict[str, bytes],
    node: SecondNode,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = place("s3")
    proxy = FlakyProxy(os.environ["AWS_ENDPOINT_URL"], dict.fromkeys(FAULTS, 0.05), seed)
    with through(proxy, monkeypatch):
        Round(src, store, "driver", 0, "apart", random.Random(seed), node, tmp_path / "driver.log").run()
    assert proxy.happened.total() > 10
    assert_whole(store, src, calm, "apart")


class LosesFirstAnswers(FlakyProxy):
    """Hangs up on the first answer to each PUT, when the server has done it."""

    def fault(self, method: str, path: str) -> Fault | None:
        self._seen[path] += method == "PUT"
        return "lost_response" if method == "PUT" and self._seen[path] == 1 else None


def test_a_create_whose_answer_was_lost_is_known_as_ones_own(
    moto_s3: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = moto_s3() + "/store"
    with through(LosesFirstAnswers(os.environ["AWS_ENDPOINT_URL"], {}, 0), monkeypatch):
        store = Store(uri)
        assert store.create("k", b"ours")
        assert store.read("k") == b"ours"
        assert not store.create("k", b"another writer's")
        store.put("k", b"again")
        assert store.read("k") == b"again"


def test_commits_whose_answers_were_lost_stand(
    moto_s3: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, src = moto_s3() + "/store", tmp_path / "src"
    people(src, 4)
    build(Store(tmp_path / "calm"), folder_source(src), chain())
    with through(LosesFirstAnswers(os.environ["AWS_ENDPOINT_URL"], {}, 0), monkeypatch):
        manifest, made = build(Store(uri), folder_source(src), apart())
    assert (manifest.version, len(made)) == (1, 3)
    assert layout.numbers(Store(uri), layout.PLANS) == [1]
    assert_whole(Store(uri), src, content(Store(tmp_path / "calm")), "apart")
