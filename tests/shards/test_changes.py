"""How two versions differ, why, and what the difference took."""

from __future__ import annotations

from pathlib import Path

import pytest

from e4t_core.storage import Store
from pipelines.shards.changes import diff
from pipelines.shards.manifest import load_manifest
from pipelines.stages.base import Resources
from tests.shards.fakes import MODELS, FakeConfig, Join, Read, Upper, chain, folder_source, make, write_texts
from tests.shards.support import build


def test_diff_says_what_changed_and_why(store: Store, src: Path) -> None:
    write_texts(src, {"q-bad.txt": "bad"})
    (src / "p00-000.txt").write_text("other text")
    (src / "p01-004.txt").unlink()
    stages = [make(Read), make(Upper, text="!"), make(Join)]
    build(store, folder_source(src), stages)
    report = diff(store, 1, 2)
    assert report["samples"] == {"added": 1, "removed": 1, "newly quarantined": 0, "newly whole": 0}
    read, upper, join = (report["stages"][name] for name in ("read", "upper", "join"))
    assert (read["identity"], read["shards"]) == ({}, {"remade (source items changed)": [0, 1], "added": [3]})
    assert upper["identity"] == {"settings.text": ("", "!")}
    assert upper["shards"] == {
        "remade (stage changed; upstream read changed)": [0, 1],
        "remade (stage changed)": [2],
        "added": [3],
    }
    assert join["shards"]["remade (upstream upper changed)"] == [2]
    assert report["text"][3].startswith("upper: settings.text: '' -> '!'; 2 shards remade (stage changed; upstream")


def test_diff_of_a_retry_and_of_a_lost_column(store: Store, src: Path) -> None:
    write_texts(src, {"q-bad.txt": "bad"})
    build(store, folder_source(src), chain())
    build(store, folder_source(src), chain()[:2], retry_quarantined=True)
    report = diff(store, 2, 3)
    assert report["stages"]["read"]["shards"] == {"remade (quarantined samples retried, same bytes)": [3]}
    assert report["stages"]["join"]["shards"] == {"removed": [0, 1, 2, 3]}
    assert report["samples"] == {"added": 0, "removed": 0, "newly quarantined": 0, "newly whole": 0}
    assert diff(store, 3, 3)["text"][2:] == ["read: unchanged", "upper: unchanged"]


def test_diff_tells_what_the_remade_shards_took(store: Store, src: Path) -> None:
    upper = Upper(FakeConfig(text="!", seconds=0.01, resources=Resources(batch_size=2, gpus=0.5)), MODELS)
    build(store, folder_source(src), [make(Read), upper, make(Join)])
    report = diff(store, 1, 2)
    cost = report["stages"]["upper"]["cost"]
    assert report["stages"]["read"]["cost"] == {}
    assert (cost["shards"], cost["samples"]) == (3, 10)
    assert cost["bytes"] == sum(ref.bytes for ref in load_manifest(store).refs("upper").values())
    assert cost["seconds"] > 10 * 0.01
    assert cost["gpu_hours"] == pytest.approx(cost["seconds"] * 0.5 / 3600)
    assert any("s of workers, 0.00 GPU-hours" in line for line in report["text"])
