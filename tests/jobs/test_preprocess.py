"""preprocess and shards as a user runs them: exit codes, summaries, what a second run does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.__main__ import main
from tests.support.corpus import encoded, quadrants


def jpeg(width: int, height: int) -> bytes:
    return encoded(quadrants(width=width, height=height), "JPEG")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos" / "somebody"
    folder.mkdir(parents=True)
    for i in range(6):
        (folder / f"{i}.jpg").write_bytes(jpeg(48 + i, 40))
    return folder.parent


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict, str]:
    code = main([*words, "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out.splitlines()[-1]), err


def preprocess(capsys: pytest.CaptureFixture[str], photos: Path, out: Path, *more: str) -> tuple[int, dict, str]:
    recipe = tmp_recipe(out)
    words = ["preprocess", "--recipe", recipe, "--set", f"source.path={photos}", "--out", str(out), *more]
    return run(capsys, *words)


def tmp_recipe(out: Path) -> str:
    """The tiny recipe with two cheap stages and small shards."""
    path = out.parent / "two_stages.yaml"
    path.write_text(
        "extends: tiny\nname: two_stages\nshards: {samples_per_shard: 2}\n"
        "stages: {ingest: {size: 32}, clip: null, latent: null, caption: null}\n"
    )
    return str(path)


@pytest.mark.usefixtures("ray_local")
def test_again_has_nothing_to_do_and_ls_sums_it_up(capsys, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, summary, _ = preprocess(capsys, photos, out)
    assert code == 0
    assert (summary["samples"], summary["quarantined"], summary["planned"]) == (6, 0, 6)
    assert summary["shards_done"] > 0
    code, again, _ = preprocess(capsys, photos, out)
    assert (code, again["shards_done"], again["version"]) == (0, 0, summary["version"])
    code, listed, _ = run(capsys, "shards", "ls", str(out))
    assert code == 0
    assert (listed["samples"], listed["quarantined"]) == (6, 0)
    assert {"ingest", "mask"} <= set(listed["stages"])
    code, verified, _ = run(capsys, "shards", "verify", str(out))
    assert (code, verified["problems"]) == (0, [])


@pytest.mark.usefixtures("ray_local")
def test_too_many_bad_is_exit_code_3_with_the_good_committed(capsys, photos: Path, tmp_path: Path) -> None:
    (photos / "somebody" / "torn.jpg").write_bytes(jpeg(64, 64)[:300])
    (photos / "somebody" / "nothing.jpg").write_bytes(b"")
    out = tmp_path / "out"
    code, summary, err = preprocess(capsys, photos, out)
    assert code == 3
    assert "2 of 8 samples are quarantined" in err
    assert "shards.allowed_bad_share = 0.01" in err
    assert (summary["samples"], summary["quarantined"]) == (6, 2)
    assert summary["reasons"] == {"truncated": 1, "empty": 1}
    code, _, _ = preprocess(capsys, photos, out, "--set", "shards.allowed_bad_share=0.5")
    assert code == 0


@pytest.mark.usefixtures("ray_local")
def test_verify_and_gc_speak_through_exit_codes(capsys, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    preprocess(capsys, photos, out)
    orphan = out / "data" / "ingest" / "000000-0123456789abcdef.tar"
    orphan.write_bytes(b"left over by a driver that was killed")
    code, plan, _ = run(capsys, "shards", "gc", str(out), "--grace-hours", "0", "--dry-run")
    assert (code, plan["objects"], orphan.exists()) == (0, 1, True)
    code, _, err = run(capsys, "shards", "gc", str(out), "--grace-hours", "0")
    assert (code, orphan.exists()) == (2, True)
    assert "--yes" in err
    code, _, _ = run(capsys, "shards", "gc", str(out), "--grace-hours", "0", "--yes")
    assert (code, orphan.exists()) == (0, False)
    victim = sorted((out / "data" / "mask").iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:-1] + b"x")
    code, report, err = run(capsys, "shards", "verify", str(out))
    assert code == 1
    assert victim.name in err
    assert len(report["problems"]) == 1


@pytest.mark.usefixtures("ray_local")
def test_diff_names_the_column_that_changed(capsys, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _, first, _ = preprocess(capsys, photos, out)
    (photos / "somebody" / "new.jpg").write_bytes(jpeg(50, 50))
    _, second, _ = preprocess(capsys, photos, out)
    assert second["version"] == first["version"] + 1
    code, report, _ = run(capsys, "shards", "diff", str(out), str(first["version"]), str(second["version"]))
    assert code == 0
    assert any("new" in line for line in report["text"])
    code, _, err = run(capsys, "shards", "diff", str(out), "1")
    assert code == 2
    assert "give two manifest versions" in err


@pytest.mark.usefixtures("ray_local")
def test_a_person_is_forgotten_on_request(capsys, photos: Path, tmp_path: Path) -> None:
    out, ids = str(tmp_path / "out"), tmp_path / "ids.txt"
    preprocess(capsys, photos, Path(out))
    _, before, _ = run(capsys, "shards", "ls", out)
    code, _, err = run(capsys, "shards", "forget", out)
    assert (code, "--ids FILE" in err) == (2, True)
    first = sorted(p.relative_to(photos).as_posix() for p in photos.rglob("*.jpg"))[0]
    ids.write_text(f"{first}\n")
    forget = ["shards", "forget", out, "--ids", str(ids)]
    code, plan, _ = run(capsys, *forget, "--dry-run")
    assert (code, plan["samples"], plan["version"]) == (0, 1, None)
    code, _, err = run(capsys, *forget)
    assert (code, "nothing was changed; give --yes" in err) == (2, True)
    code, report, _ = run(capsys, *forget, "--yes")
    assert (code, report["withdrawn"], report["version"]) == (0, [1], 2)
    _, after, _ = run(capsys, "shards", "ls", out)
    assert after["samples"] == before["samples"] - 1
    _, again, _ = preprocess(capsys, photos, Path(out))
    assert (again["version"], again["shards_done"]) == (2, 0)


def test_a_dry_run_says_why(capsys, photos: Path, tmp_path: Path) -> None:
    code, summary, err = preprocess(capsys, photos, tmp_path / "o", "--dry-run")
    assert code == 0
    assert summary["stages"][0]["why"] == {"not made yet": summary["stages"][0]["to_do"]}
    assert "not made yet" in err


def test_an_empty_folder_and_a_missing_one_are_told(capsys, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "missing"):
        words = ["preprocess", "--set", f"source.path={tmp_path / folder}", "--out", str(tmp_path / "o"), "--dry-run"]
        code, summary, _ = run(capsys, *words)
        assert code == 1
        assert str(tmp_path / folder) in summary["error"]
