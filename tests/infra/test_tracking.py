"""The MLflow of ``infra/kubernetes/tracking``, by the manifest's own words."""

from __future__ import annotations

import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import psutil
import pytest
from mlflow import MlflowClient
from mlflow.cli import server as mlflow_server
from mlflow.server.security_utils import is_allowed_host_header

from tests.support import infra
from tests.support.processes import BIN, environment, free_port, running, wait_for_http


def pod() -> dict[str, Any]:
    deployments = infra.of_kind(infra.documents("kubernetes/tracking/mlflow.yaml"), "Deployment")
    return dict(deployments["mlflow"]["spec"]["template"]["spec"])


def words() -> list[str]:
    (main,) = pod()["containers"]
    return [*main["command"], *main["args"]]


def variables() -> dict[str, str]:
    (main,) = pod()["containers"]
    return {given["name"]: given["value"] for given in main["env"]}


def address() -> str:
    """Host and port by which the jobs call it."""
    (settings,) = infra.documents("kubernetes/common/settings.yaml")
    return str(settings["data"]["MLFLOW_TRACKING_URI"]).removeprefix("http://")


def test_it_listens_where_the_settings_say_and_answers_to_that_name(monkeypatch: pytest.MonkeyPatch) -> None:
    # of a service called mlflow Kubernetes makes this variable, which is where MLflow looks for its port
    monkeypatch.setenv("MLFLOW_PORT", "tcp://10.0.0.1:5000")
    assert pod()["enableServiceLinks"] is False
    program, command, *flags = words()
    assert (program, command) == ("mlflow", "server")
    given = mlflow_server.make_context("server", flags).params
    assert address() == f"mlflow:{given['port']}"
    allowed = given["allowed_hosts"].split(",")
    for host in (address(), "mlflow.e4t.svc:5000", "localhost:5000"):
        assert is_allowed_host_header(allowed, host)
    assert not is_allowed_host_header(allowed, "elsewhere.example:5000")


# --- the server itself


@dataclass(frozen=True)
class Server:
    port: int
    bucket: str
    process: int


@pytest.fixture(scope="module")
def server(moto_s3: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Started as in its pod, with the bucket, the disk and the port replaced by ones of this test."""
    bucket = moto_s3().removeprefix("s3://") + "-new"
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    changes = {
        "/data/": f"{folder}/",
        "s3://e4t": f"s3://{bucket}",
        "'e4t'": f"'{bucket}'",
        "port=5000": f"port={port}",
    }

    def here(command: list[str]) -> list[str]:
        for old, new in changes.items():
            command = [word.replace(old, new) for word in command]
        return [str(BIN / command[0]), *command[1:]]

    (init,) = pod()["initContainers"]
    for _ in range(2):  # a pod that starts again finds its bucket
        subprocess.run(here(init["command"]), env=environment(), check=True, timeout=120)
    log = folder / "server.log"
    with running(here(words()), log, variables()) as child:
        wait_for_http(f"http://127.0.0.1:{port}/health", child, log)
        yield Server(port, bucket, child.pid)


def status(server: Server, host: str) -> int:
    """Of an answer to a call by that name."""
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}/api/2.0/mlflow/experiments/search?max_results=1")
    request.add_header("Host", host)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.full
def test_the_real_one_keeps_artifacts_in_the_bucket(server: Server, tmp_path: Path) -> None:
    assert (status(server, address()), status(server, "elsewhere.example:5000")) == (200, 403)
    client = MlflowClient(tracking_uri=f"http://127.0.0.1:{server.port}")
    run = client.create_run(client.create_experiment("infra"))
    assert run.info.artifact_uri.startswith("mlflow-artifacts:"), "clients would need a key of the bucket"
    (tmp_path / "figure.txt").write_text("0.761")
    client.log_artifact(run.info.run_id, str(tmp_path / "figure.txt"))
    (found,) = fsspec.filesystem("s3").find(f"{server.bucket}/mlflow")
    assert found.endswith("figure.txt")
    below = psutil.Process(server.process).children(recursive=True)
    assert len(below) <= 2, f"one worker and what watches it, not {[' '.join(p.cmdline()) for p in below]}"
