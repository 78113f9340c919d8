"""targets as a user runs it: only what is missing, told beforehand; an interruption costs nothing but time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from e4t_core.errors import UsageError
from e4t_core.schema import Sample
from e4t_core.storage import Store
from jobs.__main__ import commands, main
from jobs._recipe import load
from pipelines.shards import layout
from pipelines.shards.commit import load_commit
from pipelines.shards.manifest import load_manifest
from pipelines.stages import STAGES, Stage
from pipelines.stages.lidb import Lidb
from tests.jobs.conftest import SMALL, everything, start
from tests.shards.support import build, content

LIDB = (
    "stages.lidb={tune: {steps: 2, lr: 0.02, identities: 4, probe: 1}, lidb: {a: 12, b: 6}, prompt: a sks person,"
    " resources: {batch_size: 8}}"
)


class Interrupted(Exception):
    """What happens to the worker below."""


class Interrupting(Lidb):
    """Its process ends before the second shard."""

    calls = 0

    def __call__(self, batch: Sequence[Sample]) -> list[Any]:
        self.calls += 1
        if self.calls > 1:
            raise Interrupted
        return super().__call__(batch)


def stages(lidb: type[Lidb] = Lidb) -> list[Stage]:
    recipe = load("tiny", [*SMALL, LIDB])
    return [lidb(s.config, s.models) if s.name == "lidb" else s for s in recipe.build_stages()]


def copied(shards: str, to: Path) -> Store:
    shutil.copytree(shards, to)
    return Store(to)


def targets(*words: str) -> dict[str, Any]:
    return start("targets", *words, sets=(LIDB,))


@pytest.fixture(scope="module")
def calm(shards: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes of an undisturbed run in this process."""
    store = copied(shards, tmp_path_factory.mktemp("calm") / "store")
    build(store, load("tiny", SMALL).build_source(), stages(), samples_per_shard=8)
    return content(store)


@pytest.fixture(scope="module")
def made(shards: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, dict[str, Any]]:
    """A store of two shards whose first was made by a worker that then died, finished by the command; its summary."""
    store = copied(shards, tmp_path_factory.mktemp("targets") / "store")
    with pytest.raises(RuntimeError, match="Interrupted"):
        build(store, load("tiny", SMALL).build_source(), stages(Interrupting), samples_per_shard=8)
    assert len(list(store.list(f"{layout.COMMITS}/lidb"))) == 1
    return store, targets("--out", store.uri)


def test_a_dry_run_says_what_is_missing_and_writes_nothing(shards: str, tmp_path: Path, capsys: Any) -> None:
    store = copied(shards, tmp_path / "store")
    before = everything(tmp_path)
    rows = {row["stage"]: row for row in targets("--out", store.uri, "--dry-run")["stages"]}
    assert {name: row["to_do"] for name, row in rows.items() if row["to_do"]} == {"lidb": 2}
    assert (rows["lidb"]["samples"], rows["lidb"]["why"]) == (10, {"not made yet": 2})
    assert "lidb" in capsys.readouterr().err
    preprocess = start("preprocess", "--out", store.uri, "--dry-run", sets=(LIDB,))
    assert "lidb" not in {row["stage"] for row in preprocess["stages"]}
    assert everything(tmp_path) == before


def test_interrupted_and_resumed_it_is_what_it_would_have_been(made: tuple[Store, Any], calm: dict[str, bytes]) -> None:
    store, summary = made
    assert (summary["version"], summary["shards_done"], summary["quarantined"]) == (2, 1, 0)
    assert content(store) == calm


def test_every_identitys_figures_are_in_its_commit(made: tuple[Store, dict[str, Any]]) -> None:
    store, summary = made
    manifest = load_manifest(store)
    facts: dict[str, Any] = {}
    for number, ref in manifest.refs("lidb").items():
        commit = load_commit(store, layout.commit_key("lidb", number, ref.fingerprint))
        assert commit is not None
        facts |= commit.facts
    assert len(facts) == 10
    for figures in facts.values():
        assert set(figures) == {"loss_before", "loss_after", "steps", "seconds"}
        assert figures["loss_after"] < figures["loss_before"]
    found = summary["quality"]["lidb"]
    assert (found["tried"], found["improved"], found["failed"]) == (10, 10, {})


def test_again_has_nothing_to_do_and_preprocess_keeps_the_column(made: tuple[Store, dict[str, Any]]) -> None:
    store, _ = made
    before = everything(Path(store.root))
    again = targets("--out", store.uri)
    assert (again["version"], again["shards_done"]) == (2, 0)
    assert again["quality"]["lidb"]["improved"] == 10
    kept = start("preprocess", "--out", store.uri, sets=(LIDB,))
    assert (kept["version"], kept["shards_done"]) == (2, 0)
    assert "lidb" in load_manifest(store).stages
    assert everything(Path(store.root)) == before


def test_stats_and_their_page_show_the_quality(made: tuple[Store, dict[str, Any]], tmp_path: Path, capsys: Any) -> None:
    store, _ = made
    assert main(["shards", "stats", store.uri, "--to", str(tmp_path), "--sheets", "0"]) == 0
    told = capsys.readouterr().err
    assert "10 of 10 improved (100.0%), median loss 0." in told
    numbers = json.loads((tmp_path / "stats.json").read_text())
    assert numbers["columns"]["lidb"]["quality"]["improved"] == 10
    page = (tmp_path / "stats.html").read_text()
    assert "10 of 10 samples end with a lower loss" in page
    assert '<th scope="row">loss before</th>' in page


def test_failures_are_quarantined_with_their_reason(shards: str, tmp_path: Path) -> None:
    store = copied(shards, tmp_path / "store")
    still = LIDB.replace("steps: 2, lr: 0.02", "steps: 1, lr: 1e-30")
    recipe = load("tiny", [*SMALL, still])
    manifest, _ = build(store, recipe.build_source(), recipe.build_stages(), samples_per_shard=8)
    assert manifest.head["reasons"] == {"not_improved": 10}


def test_a_recipe_without_targets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no column that is tuned: add stages\.lidb; it has ingest, mask"):
        start("targets", "--out", str(tmp_path / "out"), "--dry-run")


def test_every_stage_is_made_by_a_command() -> None:
    assert {STAGES.get(name).command for name in STAGES.names()} <= set(commands())


def test_a_method_and_its_targets_mean_the_same() -> None:
    load("hyperdreambooth_tiny")
    with pytest.raises(UsageError, match=r"stages\.lidb\.prompt is 'a cat' and method\.prompt is 'a sks person'"):
        load("hyperdreambooth_tiny", ["stages.lidb.prompt=a cat"])
    with pytest.raises(UsageError, match=r"stages\.lidb\.lidb is .*'seed': 1.* and method\.lidb is .*'seed': 0"):
        load("hyperdreambooth_tiny", ["stages.lidb.lidb.seed=1"])
    load("hyperdreambooth_tiny", ["stages.lidb.prompt=a cat", "method.beta=0"])  # then it does not read them
