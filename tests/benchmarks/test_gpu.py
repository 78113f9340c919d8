"""The GPU suite runs, on the tiny stack and the CPU; what it finds there means nothing."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks import gpu


@pytest.mark.parametrize("part", gpu.PARTS)
def test_every_part_gives_figures(part: str, tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    command = [sys.executable, "-m", "tests.benchmarks.gpu", part, "--small", "--device", "cpu", "--out", str(out)]
    subprocess.run(command, check=True)
    told = json.loads(out.read_text())
    assert "--small" in told["command"]
    assert len(told["figures"]) >= 2
    assert all(math.isfinite(one["value"]) and one["value"] > 0 for one in told["figures"])


def test_an_unknown_part_is_refused_by_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu", "stagse"])
    with pytest.raises(SystemExit):
        gpu.main()
    assert "no part stagse; there are stages" in capsys.readouterr().err
