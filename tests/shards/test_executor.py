"""Ray Data over shards: whole runs, crashes, kills, refusals, on disk and on S3."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest

from e4t_core.errors import StorageError
from e4t_core.schema import Sample
from e4t_core.storage import Store
from pipelines.executor import Progress, preprocess
from pipelines.shards import layout
from pipelines.shards.estimate import dry_run
from pipelines.shards.maintenance import verify
from pipelines.stages.base import Bad
from tests.conftest import ROOT
from tests.shards.fakes import FakeStage, Join, Read, Result, Upper, chain, folder_source, make, people, write_texts
from tests.shards.support import assert_exactly_once, build, content, statuses
from tests.support.ray_nodes import ray_workers

pytestmark = pytest.mark.usefixtures("ray_local")
RECIPE = {"name": "test"}


@pytest.fixture
def src(tmp_path: Path) -> Path:
    people(tmp_path / "src", 14)
    return tmp_path / "src"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def calm(tmp_path: Path, src: Path) -> dict[str, bytes]:
    """Bytes of an undisturbed run over ``src``."""
    undisturbed = Store(tmp_path / "calm")
    build(undisturbed, folder_source(src), chain())
    return content(undisturbed)


def ids(src: Path) -> set[str]:
    return {p.relative_to(src).as_posix() for p in src.rglob("*.txt")}


def test_a_run_and_its_repetition(store: Store, src: Path, calm: dict[str, bytes]) -> None:
    told: list[Progress] = []
    summary = preprocess(
        store, folder_source(src), chain(actors=2), samples_per_shard=4, recipe=RECIPE, on_progress=told.append
    )
    assert (summary.version, summary.planned, summary.samples, summary.quarantined) == (1, 14, 14, 0)
    assert (summary.shards_done, summary.shards_cached) == (12, 0)
    assert summary.bytes == sum(map(len, content(store).values()))
    assert summary.stages["upper"].samples == 14
    assert (told[-1].done, told[-1].total, told[-1].samples) == (12, 12, 42)
    assert [p.done for p in told] == sorted(p.done for p in told)
    assert "upper 4/4" in told[-1].text
    assert content(store) == calm
    assert_exactly_once(store, ids(src))
    assert list(store.list(layout.ATTEMPTS)) == []
    again = preprocess(store, folder_source(src), chain(), samples_per_shard=4, recipe=RECIPE)
    assert (again.version, again.shards_done, again.shards_cached) == (1, 0, 12)
    assert [r.to_do for r in dry_run(store, folder_source(src), chain(), samples_per_shard=4)] == [0, 0, 0]
    end = time.monotonic() + 60
    while left := ray_workers("Monitor", os.getpid()):
        assert time.monotonic() < end, f"runs are over, and what counted for them is still there: {left}"
        time.sleep(0.1)


class Meeting(FakeStage):
    """Its last sample waits until the second stage has been seen at work."""

    name: ClassVar[str] = "read"
    reads: ClassVar[tuple[str, ...]] = ()
    writes: ClassVar[tuple[str, ...]] = Read.writes

    def one(self, sample: Sample) -> Result:
        seen, deadline = Path(self.config.text), time.monotonic() + 60
        while sample["__key__"].startswith("z") and not seen.exists():
            if time.monotonic() > deadline:
                return Bad("alone", "the second stage did not begin before the first one ended")
            time.sleep(0.02)
        return make(Read).one(sample)


class Model(Upper):
    """Has weights, so it has workers of its own."""

    name: ClassVar[str] = "upper"

    def weights(self) -> str:
        return "w"

    def one(self, sample: Sample) -> Result:
        Path(self.config.text).write_text(str(os.getpid()))
        return make(Upper).one(sample)


def test_stages_overlap_over_shards(store: Store, src: Path, tmp_path: Path) -> None:
    write_texts(src, {"z.txt": "last"})
    stages = [make(cls, text=str(tmp_path / "seen")) for cls in (Meeting, Model)]
    summary = preprocess(store, folder_source(src), stages, samples_per_shard=4, recipe=RECIPE)
    assert (summary.samples, summary.reasons) == (15, {})


def test_only_what_changed_is_made(store: Store, src: Path) -> None:
    build(store, folder_source(src), chain())
    people(src, 2, start=40)
    stages = [make(Read), make(Upper, text="!"), make(Join)]
    summary = preprocess(store, folder_source(src), stages, samples_per_shard=4, recipe=RECIPE)
    assert {n: (r.shards_done, r.shards_cached) for n, r in summary.stages.items()} == {
        "read": (1, 4),
        "upper": (5, 0),
        "join": (5, 0),
    }
    assert summary.version == 2


def test_a_sample_that_kills_its_process_is_quarantined(store: Store, src: Path) -> None:
    write_texts(src, {"p01-crash.txt": "crash", "p03-bad.txt": "bad"})
    summary = preprocess(store, folder_source(src), chain(), samples_per_shard=8, recipe=RECIPE)
    assert (summary.planned, summary.samples, summary.reasons) == (16, 14, {"bad_text": 1, "crash": 1})
    found = statuses(store)
    assert (found["p01-crash.txt"], found["p03-bad.txt"]) == ("crash", "bad_text")
    assert_exactly_once(store, ids(src))
    assert list(store.list(layout.ATTEMPTS)) == []
    again = preprocess(store, folder_source(src), chain(), samples_per_shard=8, recipe=RECIPE)
    assert again.shards_done == 0


def test_a_bug_names_stage_shard_and_sample_and_the_rest_is_kept(store: Store, src: Path) -> None:
    write_texts(src, {"z-bug.txt": "bug"})
    with pytest.raises(RuntimeError, match=r"stage 'read', shard 3, sample 'z-bug.txt': ZeroDivisionError: a bug"):
        preprocess(store, folder_source(src), chain(), samples_per_shard=4, recipe=RECIPE)
    assert layout.numbers(store, layout.MANIFESTS) == []
    kept = {e.key for e in store.list(layout.COMMITS) if "/read/" in e.key}
    assert len(kept) == 3
    (src / "z-bug.txt").write_text("mended")
    summary = preprocess(store, folder_source(src), chain(), samples_per_shard=4, recipe=RECIPE)
    assert summary.stages["read"].shards_cached == 3
    assert_exactly_once(store, ids(src))


class Full(Upper):
    """A stage whose worker's disk is full."""

    name: ClassVar[str] = "upper"

    def one(self, sample: Sample) -> Result:
        raise StorageError("cannot write s3://b/k: no space is left there")


def test_a_refusal_in_a_worker_arrives_as_what_it_is(store: Store, src: Path) -> None:
    with pytest.raises(StorageError, match=r"stage 'upper', shard \d, sample 'p.*no space is left there"):
        preprocess(store, folder_source(src), [make(Read), make(Full)], samples_per_shard=4, recipe=RECIPE)


def test_a_bucket_that_refuses_writes(src: Path, moto_s3: Callable[[], str]) -> None:
    import boto3

    store = Store(moto_s3() + "/shards")
    bucket = store.uri.split("/")[2]
    deny = (
        '{"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", '
        f'"Resource": "arn:aws:s3:::{bucket}/shards/%s*"}}]}}'
    )
    boto3.client("s3").put_bucket_policy(Bucket=bucket, Policy=deny % "plans")
    with pytest.raises(StorageError, match=rf"cannot write {store.uri}/plans/.*: permission denied"):
        preprocess(store, folder_source(src), chain(), samples_per_shard=4, recipe=RECIPE)
    boto3.client("s3").put_bucket_policy(Bucket=bucket, Policy=deny % "data")
    with pytest.raises(StorageError, match=rf"cannot write {store.uri}/data/read/.*: permission denied"):
        preprocess(store, folder_source(src), chain(), samples_per_shard=4, recipe=RECIPE)
    assert list(store.list(layout.COMMITS)) == []


# --- kills


class Slow(FakeStage):
    """Writes its process id where the test looks, then takes its time."""

    name: ClassVar[str] = "read"
    reads: ClassVar[tuple[str, ...]] = ()
    writes: ClassVar[tuple[str, ...]] = Read.writes

    def one(self, sample: Sample) -> Result:
        (Path(self.config.text) / str(os.getpid())).touch()
        time.sleep(0.05)
        return make(Read).one(sample)


def test_a_killed_worker_costs_time_and_nothing_else(
    store: Store, src: Path, calm: dict[str, bytes], tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    pids.mkdir()
    killed: list[int] = []

    def kill() -> None:
        for _ in range(2):
            while not (alive := [int(p.name) for p in pids.iterdir() if int(p.name) not in killed]):
                time.sleep(0.02)
            time.sleep(0.12)
            os.kill(alive[0], signal.SIGKILL)
            killed.append(alive[0])

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    stages = [make(Slow, text=str(pids)), make(Upper), make(Join)]
    summary = preprocess(store, folder_source(src), stages, samples_per_shard=4, recipe=RECIPE)
    killer.join(10)
    assert len(killed) == 2
    assert (summary.samples, summary.quarantined) == (14, 0)
    assert content(store) == calm
    assert_exactly_once(store, ids(src))


def _kill_and_repeat(uri: str, src: Path, moments: random.Random, kills: int, seconds: float, address: str) -> int:
    """Start a driver, kill it ``kills`` times at random moments after its work began, then let it finish."""
    command = [sys.executable, "-m", "tests.shards.drive", str(src), uri, str(seconds), address]
    store, cut_short = Store(uri), 0
    for _ in range(kills):
        begun = {e.key for e in store.list(layout.ATTEMPTS)}
        driver = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while driver.poll() is None and {e.key for e in store.list(layout.ATTEMPTS)} <= begun:
            time.sleep(0.02)
        time.sleep(moments.uniform(0, 2 * 14 * seconds))
        driver.kill()
        driver.wait(10)
        cut_short += not layout.numbers(store, layout.MANIFESTS)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return cut_short


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_a_killed_driver_is_repeated(
    kind: str, store: Store, src: Path, calm: dict[str, bytes], moto_s3: Callable[[], str]
) -> None:
    import ray

    uri = store.uri if kind == "local" else moto_s3() + "/shards"
    address = ray.get_runtime_context().gcs_address
    kills = 2 if kind == "local" else 1
    cut_short = _kill_and_repeat(uri, src, random.Random(kind), kills, seconds=0.06, address=address)
    assert cut_short >= 1
    _assert_whole(Store(uri), src, calm)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(20))
def test_a_killed_driver_with_a_ray_of_its_own_is_repeated(
    seed: int, store: Store, src: Path, calm: dict[str, bytes]
) -> None:
    _kill_and_repeat(store.uri, src, random.Random(seed), kills=1 + seed % 3, seconds=0.1, address="local")
    _assert_whole(store, src, calm)


def _assert_whole(store: Store, src: Path, calm: dict[str, bytes]) -> None:
    assert layout.numbers(store, layout.MANIFESTS) == [1]
    assert content(store) == calm
    assert_exactly_once(store, ids(src))
    assert verify(store)["problems"] == []
    summary = preprocess(store, folder_source(src), chain(), samples_per_shard=4, recipe=RECIPE)
    assert (summary.version, summary.shards_done) == (1, 0)
