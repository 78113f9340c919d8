"""Fixtures that every area may use: a local Ray, an S3 server on loopback, real photographs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

# Each of several test processes has its share of the cores: two pools of threads that each want all of them wait for
# each other at every operation. Set before torch is imported, and inherited by the processes that tests start.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # no training of a test has the cores to itself

# a busy machine is slow, and no test here is about time
hypothesis.settings.register_profile("e4t", deadline=None)
hypothesis.settings.load_profile("e4t")

ROOT = Path(__file__).parents[1]
S3_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    """Until something listens on loopback; fails if the process ends or time is up."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert process.poll() is None, f"{process.args} ended with exit code {process.returncode}"
        with socket.socket() as client:
            client.settimeout(1)
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(f"nothing listens on 127.0.0.1:{port} after {seconds} s")


@pytest.fixture(scope="session")
def moto_s3() -> Iterator[Callable[[], str]]:
    """Makes buckets on an S3 server on loopback: ``moto_s3()`` is ``s3://<a new bucket>``.

    ``AWS_*`` variables that lead there are set for the rest of the session; ``ray_local`` passes them on.
    """
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    endpoint = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    before = dict(os.environ)
    os.environ.update({**S3_ENVIRONMENT, **endpoint})
    try:
        wait_for_port(port, server)

        def bucket() -> str:
            import fsspec

            name = f"b-{uuid.uuid4().hex[:12]}"
            fsspec.filesystem("s3").mkdir(name)
            return f"s3://{name}"

        yield bucket
    finally:
        os.environ.clear()
        os.environ.update(before)
        server.terminate()
        server.wait(10)


@pytest.fixture(scope="session")
def ray_local(moto_s3: Callable[[], str]) -> Iterator[None]:
    """A Ray of this session's own, two CPUs wide; its workers reach ``moto_s3`` and import this repository."""
    import ray

    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # as jobs._ray has it for a local Ray
    passed = {k: v for k, v in os.environ.items() if k.startswith("AWS_")}
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=128 << 20,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {**passed, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}},
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real photographs (``E4T_REAL_DATA``, or beside the repository); skips where there is none."""
    folder = Path(os.environ.get("E4T_REAL_DATA", ROOT.parent / "shared" / "data" / "real"))
    if not folder.is_dir():
        pytest.skip(f"no real photographs at {folder}; set E4T_REAL_DATA")
    return folder
