"""A head with its job server, a second node, an S3 server and an MLflow server, all real and all on loopback."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.mlflow_server import MlflowServer
from tests.support.processes import environment, free_port, running, tool, wait_for_http


@dataclass(frozen=True)
class Cluster:
    """Addresses of a running Ray head."""

    gcs: str
    jobs: str


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URI of an MLflow server on sqlite."""
    server = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    server.start()
    yield server.uri
    server.stop()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two Ray nodes on this machine: a head with the job server, and a worker node with a resource of its own."""
    logs = tmp_path_factory.mktemp("cluster")
    # A folder of its own for each node: nodes that share one unpack a job's code over each other.
    # Ray puts unix sockets below its folder, and their paths have a limit of about 100 characters.
    short = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    port, dashboard = free_port(), free_port()
    head = [
        tool("ray"), "start", "--head", "--block", "--port", str(port), "--dashboard-host", "127.0.0.1",
        "--node-ip-address", "127.0.0.1", "--ray-client-server-port", str(free_port()),
        "--dashboard-port", str(dashboard), "--num-cpus", "2", "--object-store-memory", str(200 << 20),
        "--temp-dir", str(short / "1"), *_agent(),
    ]  # fmt: skip
    second = [
        tool("ray"), "start", "--block", "--address", f"127.0.0.1:{port}", "--num-cpus", "2",
        "--node-ip-address", "127.0.0.1", "--temp-dir", str(short / "2"),
        "--object-store-memory", str(200 << 20), "--resources", '{"second": 2}', *_agent(),
    ]  # fmt: skip
    with running(head, logs / "head.log") as head_process:
        wait_for_http(f"http://127.0.0.1:{dashboard}/api/version", head_process, logs / "head.log")
        with running(second, logs / "second.log"):
            _wait_for_nodes(f"127.0.0.1:{port}", 2)
            _wait_for_jobs(f"http://127.0.0.1:{dashboard}")
            yield Cluster(gcs=f"127.0.0.1:{port}", jobs=f"http://127.0.0.1:{dashboard}")
    shutil.rmtree(short, ignore_errors=True)


def _agent() -> list[str]:
    """Agents start jobs, and listen on one fixed port unless told otherwise: a node of another test may have it."""
    return ["--dashboard-agent-listen-port", str(free_port())]


def _wait_for_nodes(address: str, count: int, seconds: float = 180) -> None:
    code = (
        "import ray, sys;"
        f"ray.init(address='{address}', logging_level=40, log_to_driver=False);"
        "print(sum(n['Alive'] for n in ray.nodes()))"
    )
    end = time.monotonic() + seconds
    found = ""
    while time.monotonic() < end:
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=60
        )
        found = done.stdout.strip() or done.stderr[-500:]
        if found == str(count):
            return
    raise RuntimeError(f"{count} Ray nodes did not come up at {address}: {found}")


def _wait_for_jobs(address: str, seconds: float = 240) -> None:
    """Until a job can be submitted: the head answers long before the agent that starts jobs has told it where it is."""
    command = [tool("ray"), "job", "submit", "--address", address, "--no-wait", "--", "true"]
    end = time.monotonic() + seconds
    said = ""
    while time.monotonic() < end:
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
        if done.returncode == 0:
            return
        said = (done.stdout + done.stderr)[-2000:]
    raise RuntimeError(f"no job could be submitted to {address} in {seconds:g} s: {said}")
