"""doctor finds what is wrong, says what to do, and runs every check even after one failed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.__main__ import main


def doctor(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict, str]:
    code = main(["doctor", *words, "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out.splitlines()[-1]), err


@pytest.fixture(autouse=True)
def _no_tracking_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.mark.usefixtures("ray_local")
def test_healthy(capsys, tmp_path: Path) -> None:
    code, report, _ = doctor(capsys, "--out", str(tmp_path))
    assert (code, report["ok"], report["failed"]) == (0, True, [])
    assert {c["name"] for c in report["checks"]} == {
        "versions", "recipe", "devices", "storage", "ray", "mlflow", "weights",
    }  # fmt: skip
    assert "e4t" in report["methods"]
    assert {"image_folder", "lfw", "tiny_world"} <= set(report["sources"])
    assert {"ingest", "mask", "caption", "clip", "latent"} <= set(report["stages"])
    assert not list(tmp_path.glob(".doctor-*"))


@pytest.mark.usefixtures("ray_local")
def test_each_failure_has_its_advice_and_the_rest_still_runs(capsys, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    code, report, err = doctor(
        capsys,
        "--out", str(tmp_path / "file" / "below"),
        "--set", "backbone.path=/no/such/model", "--set", "backbone.random_seed=null",
        "--set", "workers.device=cuda", "--set", "mlflow.uri=http://127.0.0.1:9",
    )  # fmt: skip
    assert code == 1
    assert set(report["failed"]) >= {"storage", "weights", "mlflow"}
    by_name = {c["name"]: c for c in report["checks"]}
    assert "/no/such/model" in by_name["weights"]["text"]
    assert by_name["ray"]["ok"]
    for name in report["failed"]:
        assert by_name[name]["advice"] in err
        assert by_name[name]["advice"]


@pytest.mark.usefixtures("ray_local")
def test_s3_storage(capsys, moto_s3) -> None:
    code, report, _ = doctor(capsys, "--out", moto_s3(), "--set", "mlflow.uri=sqlite:////tmp/e4t-doctor-test.db")
    assert code == 0, report
    code, report, _ = doctor(
        capsys, "--out", "s3://no-such-bucket-here/x", "--set", "mlflow.uri=sqlite:////tmp/e4t-doctor-test.db"
    )
    assert code == 1
    assert report["failed"] == ["storage"]
