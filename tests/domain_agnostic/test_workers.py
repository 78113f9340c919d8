"""A batch's loss and gradient do not depend on how many workers share it: real processes over gloo."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.domain_agnostic.sharing import share
from tests.support.processes import ROOT, environment


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of 1, 2 and 4 workers."""
    folder = tmp_path_factory.mktemp("workers")
    command = [sys.executable, "-m", "tests.domain_agnostic.sharing"]
    env = environment({"GLOO_SOCKET_IFNAME": "lo"})
    started = [subprocess.Popen([*command, str(rank), str(folder)], cwd=ROOT, env=env) for rank in range(4)]
    assert [process.wait(timeout=240) for process in started] == [0] * 4
    return folder


@pytest.mark.parametrize("world", [1, 2, 4])
def test_loss_and_gradient_are_the_whole_batchs(shared: Path, world: int) -> None:
    found, alone = load_file(shared / f"{world}.safetensors"), share(0, 1)
    torch.testing.assert_close(found["loss"], alone["loss"], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(found["grad"], alone["grad"], rtol=1e-5, atol=1e-7)


def test_without_the_others_negatives_it_would_be_another_loss() -> None:
    """What the test above would find if nothing were gathered."""
    parts = torch.stack([share(rank, 4)["loss"] for rank in range(4)])  # no process group: each alone
    assert abs(float(parts.mean() - share(0, 1)["loss"])) > 0.05
