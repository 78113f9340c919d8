"""The command line: usage, exit codes, the JSON line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.__main__ import commands, main, parser


def test_agreed_commands_exist() -> None:
    agreed = {"preprocess", "pretrain", "personalize", "generate", "evaluate", "report", "shards", "doctor"}
    assert agreed <= set(commands())


@pytest.mark.parametrize("command", commands())
def test_every_command_has_the_common_flags(command: str) -> None:
    args = parser(command).format_help()
    for flag in ("--recipe", "--set", "--out", "--json", "--dry-run", "--yes"):
        assert flag in args


def test_no_command_prints_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "preprocess" in capsys.readouterr().out
    assert main(["--help"]) == 0


def test_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrian"]) == 2
    assert "did you mean 'pretrain'" in capsys.readouterr().err


def test_usage_error_is_a_sentence_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preprocess", "--set", "source.limt=3", "--out", str(tmp_path), "--json"]) == 2
    out, err = capsys.readouterr()
    assert "did you mean 'limit'" in err
    assert "Traceback" not in err
    assert json.loads(out.splitlines()[-1])["exit_code"] == 2


def test_missing_out_says_what_to_give(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preprocess", "--dry-run"]) == 2
    assert "--out is required" in capsys.readouterr().err


def test_dry_run_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preprocess", "--out", str(tmp_path / "s"), "--set", "source.limit=10", "--dry-run", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {row["stage"] for row in summary["stages"]} == {"ingest", "mask", "caption", "clip", "latent"}
    assert all(row["to_do"] == 1 and row["cached"] == 0 for row in summary["stages"])
    assert not (tmp_path / "s").exists()
