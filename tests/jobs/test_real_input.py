"""Real photographs through every command: people in LFW's layout, and one cat."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.__main__ import main
from jobs._report.inputs import load_entries

QUICK = [
    "shards.samples_per_shard=8", "train.steps=2", "train.batch_size=2", "train.checkpoint_every=2",
    "method.personalize.steps=2", "method.personalize.batch_size=2", "generate.sampler.steps=2",
    "personalize.max_identities=2", "evaluate.bootstrap_samples=50", "evaluate.cpus=0", "generate.cpus=0.5",
    "personalize.cpus=0.5", "workers.cpus=0.5",
]  # fmt: skip

CASES = {
    "lfw": (["source.name=lfw", "source.min_images=2"], "lfw_like", 14, 2),
    "cat": (["source.name=image_folder", "method.domain_word=cat", "personalize.min_images=1"], "subjects/cat", 5, 1),
}


def run(capsys: pytest.CaptureFixture[str], command: str, *words: str) -> dict:
    code = main([command, "--recipe", "tiny", *words, "--json"])
    out, err = capsys.readouterr()
    assert code == 0, err
    return json.loads(out.splitlines()[-1])


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize("case", ["lfw", pytest.param("cat", marks=pytest.mark.full)])
def test_the_road_on_real_photographs(
    case: str, capsys, real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    source, folder, samples, people = CASES[case]
    sets = [w for text in [f"source.path={real_data / folder}", *source, *QUICK] for w in ("--set", text)]
    at = {name: str(tmp_path / name) for name in ("shards", "checkpoint", "adapters", "images", "evaluation", "report")}
    made = run(capsys, "preprocess", *sets, "--out", at["shards"])
    assert (made["samples"], made["quarantined"]) == (samples, 0)
    shards, checkpoint = ("--shards", at["shards"]), ("--checkpoint", at["checkpoint"])
    assert run(capsys, "pretrain", *sets, *shards, "--out", at["checkpoint"])["steps"] == 2
    tuned = run(capsys, "personalize", *sets, *shards, *checkpoint, "--out", at["adapters"])
    assert (tuned["identities"], tuned["failed"]) == (people, 0)
    drawn = run(capsys, "generate", *sets, *shards, *checkpoint, "--adapters", at["adapters"], "--out", at["images"])
    assert drawn["images"] == people * 8
    run(capsys, "evaluate", *sets, *shards, "--images", at["images"], "--out", at["evaluation"])
    run(
        capsys,
        "report",
        *sets,
        *shards,
        "--images",
        at["images"],
        "--evaluation",
        at["evaluation"],
        "--out",
        at["report"],
    )
    page = (tmp_path / "report" / "report.html").read_text()
    names = load_entries([at["evaluation"]], [])[0].rows["identity"].unique()
    assert len(names) == people
    assert all(name in page for name in names)
