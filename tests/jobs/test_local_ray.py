"""A Ray of the job's own does no more beside the work than it must."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import ray

from jobs._ray import QUIET

WAITS = """
import time
from jobs._ray import session
from jobs._sections import RayConfig
from tests.jobs.conftest import ray_processes
with session(RayConfig(address="local", num_cpus=2)):
    time.sleep(3)
    print("PROCESSES", len(ray_processes("")))
"""


def test_no_worker_waits_for_work_that_cannot_come() -> None:
    printed = subprocess.run([sys.executable, "-c", WAITS], check=True, capture_output=True, text=True).stdout
    agents = 2  # the dashboard's and the one of runtime environments
    assert int(printed.split("PROCESSES ")[1]) <= agents


@pytest.mark.parametrize("name", sorted(QUIET))
def test_ray_knows_its_settings_by_these_names(name: str) -> None:
    folder = Path(ray.__file__).parent
    python = (folder / part for part in ("train/v2/_internal/constants.py", "_private/log_monitor.py"))
    files = (folder / "core/src/ray/raylet/raylet", *python)
    short = name.removeprefix("RAY_")
    assert any(word in path.read_bytes() for path in files for word in (name.encode(), f'"{short}"'.encode()))
