"""Servers for tests: started on a free loopback port, awaited, and ended by their own process group."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


def free_port() -> int:
    """A TCP port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def tool(name: str) -> str:
    """A console script of this environment."""
    return str(BIN / name)


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This environment's ``bin`` first on PATH (a Ray job's ``python`` must have Ray), single-threaded maths, and no
    token authentication, which ``ray start --head`` would set up in the user's home."""
    env = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "VIRTUAL_ENV")}
    return {**env, "PATH": f"{BIN}:{env['PATH']}", "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled", **(extra or {})}


@contextmanager
def running(
    command: Sequence[str], log: Path, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A child process in its own group; the group is ended on leaving."""
    with log.open("wb") as file:
        child = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=environment(env), start_new_session=True
        )
    try:
        yield child
    finally:
        end_group(child)


def end_group(child: subprocess.Popen[bytes], patience: float = 5) -> None:
    """SIGTERM to the group, and after ``patience`` seconds SIGKILL to whatever of it is left."""
    with contextlib.suppress(ProcessLookupError):  # nobody is left, which is what is wanted
        os.killpg(child.pid, signal.SIGTERM)
        end = time.monotonic() + patience
        while child.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        os.killpg(child.pid, signal.SIGKILL)
    child.wait(timeout=patience)


def wait_for_http(url: str, child: subprocess.Popen[bytes], log: Path, seconds: float = 240) -> None:
    """Until ``url`` answers anything at all; a first start from a cold disk takes minutes."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if child.poll() is not None:
            raise RuntimeError(f"the server ended with {child.returncode}:\n{log.read_text()[-3000:]}")
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.3)
    raise RuntimeError(f"{url} did not answer in {seconds} s:\n{log.read_text()[-3000:]}")


def jobs(*words: str, env: Mapping[str, str] | None = None, timeout: float = 280) -> subprocess.CompletedProcess[str]:
    """``python -m jobs WORDS`` as a user runs it."""
    return subprocess.run(
        [sys.executable, "-m", "jobs", *words],
        cwd=ROOT, env=environment(env), capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip
