"""An MLflow server on loopback that can be stopped and started again, with what it knows."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from tests.support.processes import free_port, running, tool, wait_for_http


class MlflowServer:
    """A real `mlflow server`: sqlite and a folder of artifacts.

    Attributes:
        uri: where it answers while it runs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._life = ExitStack()

    def start(self) -> None:
        """Until it answers."""
        command = [
            tool("mlflow"), "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{self.folder}/m.db",
            "--artifacts-destination", str(self.folder / "artifacts"),
        ]  # fmt: skip
        log = self.folder / "server.log"
        no_helpers = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # processes for what nobody here asks of it
        child = self._life.enter_context(running(command, log, no_helpers))
        wait_for_http(f"{self.uri}/health", child, log)

    def stop(self) -> None:
        """All of its processes are gone when this returns."""
        self._life.close()
