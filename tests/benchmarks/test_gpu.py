"""The GPU suite runs, on the tiny stack and the CPU; what it finds there means nothing."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest

from tests.benchmarks import gpu


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["gpu", *words])
    return gpu.main()


def test_every_part_gives_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(monkeypatch, "--small", "--device", "cpu", "--out", str(tmp_path / "gpu.json")) == 0
    told = json.loads((tmp_path / "gpu.json").read_text())
    assert "--small" in told["command"]
    assert all(math.isfinite(one["value"]) and one["value"] > 0 for one in told["figures"])
    parts = capsys.readouterr().out.split("# ")[1:]
    assert [part.split()[0] for part in parts] == list(gpu.PARTS)
    assert all(sum(line.startswith("  ") for line in part.splitlines()) >= 3 for part in parts)
    assert {one["ok"] for one in told["figures"] if one["bound"]} <= {True, False}


def test_only_the_methods_that_are_named_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("pretraining", "personalizing", "--methods", "taming_encoder", "--out", str(tmp_path / "gpu.json"))
    assert call(monkeypatch, *words, "--small", "--device", "cpu") == 0
    names = [one["name"] for one in json.loads((tmp_path / "gpu.json").read_text())["figures"]]
    assert len(names) >= 3
    assert all("taming_encoder" in name for name in names)


def test_an_unknown_method_is_refused_by_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit):
        call(monkeypatch, "pretraining", "--methods", "tamed")
    assert "no method tamed; there are domain_agnostic, dreambooth, e4t" in capsys.readouterr().err


def test_an_unknown_part_is_refused_by_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit):
        call(monkeypatch, "stagse")
    assert "no part stagse; there are stages" in capsys.readouterr().err
