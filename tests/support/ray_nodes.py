"""Ray's processes on this machine, to be killed: a second node that joins a running Ray, and workers by their title."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.support.processes import end_group, environment, tool


class SecondNode:
    """A node that joins the Ray at ``address``, is killed, and joins again.

    Args:
        address: ``host:port`` of the head.
        folder: for its session and log; short, since Ray puts unix sockets below it.
    """

    def __init__(self, address: str, folder: Path) -> None:
        self._address, self._folder = address, folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Of the process that everything on the node descends from; None while it is dead."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> None:
        """Join the cluster, unless it is there. On a busy machine Ray gives up before its raylet is up: tried again."""
        for _ in range(3):
            if self.pid is None:
                self._join(120)
        assert self.pid is not None, f"the second node did not start:\n{self._log.read_text()[-3000:]}"

    @property
    def _log(self) -> Path:
        return self._folder / "node.log"

    def _join(self, seconds: float) -> None:
        command = [
            tool("ray"), "start", "--block", "--address", self._address, "--num-cpus", "2",
            "--node-ip-address", self._address.rpartition(":")[0], "--object-store-memory", str(80 << 20),
            "--temp-dir", str(self._folder),
        ]  # fmt: skip
        with self._log.open("wb") as file:
            self._process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, env=_environment(), start_new_session=True
            )
        until(lambda: "Ray runtime started" in self._log.read_text() or self.pid is None, seconds)

    def kill(self) -> None:
        """SIGKILL to all that runs on it, as when its power fails."""
        if self.pid is not None:
            kill_tree(self.pid)
            self._process.wait()  # type: ignore[union-attr]

    def end(self) -> None:
        """End it in peace."""
        if self.pid is not None:
            end_group(self._process)  # type: ignore[arg-type]


@contextmanager
def second_node(address: str) -> Iterator[SecondNode]:
    """A node for the Ray at ``address``; it joins when it is started."""
    folder = Path(tempfile.mkdtemp(prefix="r"))
    node = SecondNode(address, folder)
    try:
        yield node
    finally:
        node.end()
        shutil.rmtree(folder, ignore_errors=True)


def _environment() -> dict[str, str]:
    """As other servers have it, but the node shows the head the same token, or none, as this process."""
    modes = {name: value for name, value in os.environ.items() if name == "RAY_AUTH_MODE"}
    return {k: v for k, v in environment().items() if k != "RAY_AUTH_MODE"} | modes


def ray_workers(title: str, *roots: int | None) -> list[int]:
    """Process ids below ``roots`` that Ray calls ``ray::...title...``."""
    found = (pair for root in roots if root is not None for pair in _below(root))
    return sorted(pid for pid, name in found if name.startswith("ray::") and title in name)


def kill_tree(pid: int) -> None:
    """SIGKILL to a process and everything below it; stopped first, so that it starts nothing meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    for victim in [pid, *(below for below, _ in _below(pid))]:
        kill(victim)


def kill(pid: int) -> None:
    """SIGKILL; a process that is gone is what is wanted."""
    if psutil.pid_exists(pid):
        os.kill(pid, signal.SIGKILL)


def _below(root: int) -> list[tuple[int, str]]:
    """(process id, title) of all descendants."""
    found = []
    for process in psutil.Process(root).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # ended between listing and reading: it is not below any more
            found.append((process.pid, " ".join(process.cmdline())))
    return found


def until(true: Callable[[], bool], seconds: float, pause: float = 0.05) -> bool:
    """Wait for ``true()``; False if time is up first."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(pause)
    return False
