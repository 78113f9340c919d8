"""The recipes, the column of targets from the stage to the loss, and the commands."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch

from e4t_core.backbones import load_backbone
from e4t_core.errors import UsageError
from e4t_core.methods import Identity
from e4t_core.methods.hyperdreambooth import HyperDreamBoothModule, PersonalizeConfig
from e4t_core.storage import Store
from jobs import __main__ as jobs_main
from jobs._models import clip_dims, open_shards
from jobs._people import Chosen, load_identities
from jobs._recipe import Recipe, load
from jobs.personalize import Personalizer
from pipelines.loader import ShardDataset, ShardLoader
from tests.e4t.conftest import rng
from tests.jobs.ablating import told
from tests.shards.support import build

__all__ = ["told"]
TINY = "hyperdreambooth_tiny"
SMALL = (
    "source.identities=2",
    "source.images_per_identity=2",
    "backbone.resolution=32",
    "stages.ingest.size=32",
    "stages.lidb.tune={steps: 2, samples: 1, identities: 4, lr: 0.01, probe: 1}",
    "stages.lidb.lidb={a: 4, b: 3, seed: 0}",
    "method.lidb={a: 4, b: 3, seed: 0}",
    "method.width=16",
    "method.heads=2",
    "method.personalize.steps=2",
    "method.personalize.samples=1",
)


def test_the_papers_values() -> None:
    """Sections 4 and 5; table 3's switches are fields."""
    method = load("hyperdreambooth_sd15").method.dump()
    assert (method["lidb"]["a"], method["lidb"]["b"], method["blocks"]) == (100, 50, 2)
    assert (method["personalize"]["steps"], method["personalize"]["start"]) == (40, "hypernetwork")
    assert method["personalize"]["rank"] > 1
    assert method["iterations"] > 1
    source = load("hyperdreambooth_sd15").source
    assert (source.name, source.limit) == ("celeba_hq", 15_000)


def test_a_method_that_is_switched_to_keeps_no_section_of_the_old_one() -> None:
    switched = load("tiny", ["method.name=hyperdreambooth"]).method.dump()
    assert switched["personalize"] == PersonalizeConfig().dump()
    assert switched["domain_word"] == "person"


def test_variants_of_table_3_and_what_they_share(tmp_path: Path) -> None:
    words = ["--recipe", "hyperdreambooth_ablations_tiny", "--out", str(tmp_path), "--dry-run"]
    plan = jobs_main.start("ablate", words)["variants"]
    assert list(plan) == ["full", "only_hyper", "no_hyper", "k_1", "nothing"]
    assert plan["full"] == plan["only_hyper"] == plan["no_hyper"] == plan["nothing"] != plan["k_1"]


def test_ablate_makes_targets_to_train_on_and_none_of_the_people(
    tmp_path: Path, told: list[argparse.Namespace]
) -> None:
    jobs_main.start(
        "ablate", ["--recipe", "hyperdreambooth_ablations_tiny", "--out", str(tmp_path), "--only", "no_hyper"]
    )
    each = ["pretrain", "personalize", "generate", "evaluate"]
    assert [t.command for t in told] == ["targets", "preprocess", *each, "report"]
    assert load(told[1].recipe, told[1].set).source.dump()["split"] == "test"


# --- from the column to the loss


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load(TINY, SMALL)


@pytest.fixture(scope="module")
def shards(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four pictures of two people, made in this process."""
    where = tmp_path_factory.mktemp("shards")
    manifest, _ = build(Store(where), recipe.build_source(), recipe.build_stages())
    assert "lidb" in manifest.stages
    return str(where)


@pytest.fixture(scope="module")
def trained(recipe: Recipe, shards: str) -> Any:
    """Method, module and backbone as a worker has them."""
    method, backbone = recipe.build_method(), load_backbone(recipe.backbone)
    return method, method.build(backbone, clip_dims(ShardDataset.open(shards))), backbone


def test_the_loss_reads_what_the_stage_wrote(recipe: Recipe, shards: str, trained: Any) -> None:
    method, module, backbone = trained
    assert isinstance(module, HyperDreamBoothModule)
    dataset = open_shards(recipe, shards, method.columns)
    assert len(dataset) > 0
    batch = next(iter(ShardLoader(dataset, method.columns, 2, seed=0, workers=0)))
    assert batch["lidb"].shape == (2, module.space.numbers)
    with method.step(module):
        terms = method.pretrain_loss(module, backbone, batch, rng()).terms
    difference = batch["lidb"] - module.space.flat(module.space.initial(1))
    torch.testing.assert_close(terms["distance"].detach(), difference.square().sum(1).mean())
    assert 0 < float(difference.abs().max()) < 0.1  # two steps of 0.01 away from where all began


def test_targets_of_another_meaning_are_refused(shards: str) -> None:
    columns = ("latent", "clip", "lidb")
    with pytest.raises(UsageError, match=r"stages\.lidb\.prompt is 'a sks person' and method\.prompt is 'a sks face'"):
        load(TINY, [*SMALL, "method.prompt=a sks face"])
    absent = load(TINY, [*SMALL, "stages.lidb=null", "method.prompt=a sks face"])
    with pytest.raises(UsageError, match=r"was made with prompt 'a sks person', and method\.prompt is 'a sks face'"):
        open_shards(absent, shards, columns)
    other = load(TINY, [*SMALL, "stages.lidb.tune.lr=0.02"])
    with pytest.raises(UsageError, match=r"column 'lidb' .* tune is .*0\.01.* there and .*0\.02.* here"):
        open_shards(other, shards, columns)


def test_one_failed_identity_is_a_row_and_not_the_units_end(recipe: Recipe, shards: str, trained: Any) -> None:
    dataset = ShardDataset.open(shards)
    chosen = [Chosen(name, ("",), (rows[0],)) for name, rows in dataset.identities().items()]
    good, bad = load_identities(dataset, chosen, recipe.seed)
    assert good.clip_tokens_NTD is not None
    bad.images_N3HW.fill_(float("nan"))
    calls: list[list[Identity]] = []

    class Counted:
        def personalize(self, module: Any, backbone: Any, identities: list[Identity]) -> Any:
            calls.append(identities)
            return trained[0].personalize(module, backbone, identities)

    actor = Personalizer(argparse.Namespace())  # type: ignore[arg-type]
    actor.__dict__["loaded"] = argparse.Namespace(method=Counted(), module=trained[1], backbone=trained[2])
    adapters, failures = actor._tune([good, bad])
    assert (list(adapters), list(failures)) == ([good.id], [bad.id])
    assert "not finite at step 0" in failures[bad.id]
    assert len(calls) == 1


@pytest.mark.full
def test_all_commands(tmp_path: Path, ray_local: None) -> None:
    """The same words as for any method."""
    over = [
        *SMALL,
        *("backbone.resolution=64", "stages.ingest.size=64", "train.steps=2", "train.batch_size=2"),
        "stages.lidb.tune={steps: 8, samples: 2, identities: 4, lr: 0.02, probe: 4}",  # enough for all to improve
        *("generate.sampler.steps=2", "evaluate.bootstrap_samples=100", f"mlflow.uri=sqlite:///{tmp_path}/mlflow.db"),
    ]
    shards, model, adapters, images = (str(tmp_path / name) for name in ("shards", "model", "adapters", "images"))

    def start(command: str, *words: str, out: str) -> dict[str, Any]:
        sets = [word for text in over for word in ("--set", text)]
        return jobs_main.start(command, ["--recipe", TINY, *sets, *words, "--out", out, "--yes"])

    assert start("targets", out=shards)["quality"].keys() == {"lidb"}
    start("pretrain", "--shards", shards, out=model)
    using = ("--shards", shards, "--checkpoint", model)
    done = start("personalize", *using, out=adapters)
    assert (done["identities"], done["steps"], done["failed"]) == (2, 2, 0)
    assert start("generate", *using, "--adapters", adapters, out=images)["images"] == 16
    scores = start("evaluate", "--shards", shards, "--images", images, out=str(tmp_path / "evaluation"))["scores"]
    assert set(scores["hyperdreambooth"]) >= {"clip_t", "identity"}
