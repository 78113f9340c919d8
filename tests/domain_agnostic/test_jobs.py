"""The recipes, the columns from the stages to the loss, and the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from e4t_core.backbones import load_backbone
from e4t_core.methods.domain_agnostic import PersonalizeConfig
from e4t_core.storage import Store
from jobs import __main__ as jobs_main
from jobs._models import clip_dims, open_shards
from jobs._people import Chosen, load_identities
from jobs._recipe import Recipe, load
from pipelines.loader import ShardLoader
from pipelines.sources.mix import MixConfig
from pipelines.sources.tiny_world.source import TinyWorldConfig
from tests.domain_agnostic.conftest import in_step
from tests.e4t.conftest import rng
from tests.shards.support import build

TINY, ABLATIONS = "domain_agnostic_tiny", "domain_agnostic_ablations_tiny"
DOMAINS = {"faces", "cats", "art", "objects"}
SMALL = (
    *(
        f"source.parts.{part}.{field}"
        for part in sorted(DOMAINS)
        for field in ("identities=1", "images_per_identity=2")
    ),
    "method.width=16",
    "method.hyper_width=8",
    "method.rank=2",
    "method.personalize.steps=2",
    "method.personalize.samples=1",
    "method.personalize.probe=1",
)
LITTLE = ("backbone.resolution=32", "stages.ingest.size=32")
FIG_4_AND_5B = {
    "full", "no_tuning", "no_dual_path", "no_dual_path_in_tuning", "no_hypernetwork", "no_regularization", "l2_only",
    "nearest_cosine",
}  # fmt: skip


def test_the_papers_values() -> None:
    """Sections 4.3, 4.4 and 5.1."""
    recipe, ablations = load("domain_agnostic_sd15"), load("domain_agnostic_ablations_sd15")
    method = recipe.method.dump()
    assert (recipe.source.name, recipe.train.steps, ablations.train.steps) == ("imagenet", 150_000, 50_000)
    rates = (recipe.train.learning_rate(recipe.train.steps, 1), recipe.train.base_lr * method["hyper_rate"])
    assert rates == pytest.approx((1e-4, 1e-5))
    assert (method["personalize"]["steps"], method["personalize"]["lr"]) == (12, 2e-3)
    assert method["dual_path"] == {"blend": 0.25, "per": "attention"}
    assert method["regularization"] == "contrastive"
    assert (recipe.clip.path, recipe.clip.every) == ("ViT-H-14", 2)
    assert recipe.stages["clip"].dump()["tokens"] is True
    assert "class" not in str(recipe.stages["caption"].dump()["mode"])


def test_a_method_that_is_switched_to_keeps_no_section_of_the_old_one() -> None:
    switched = load("tiny", ["method.name=domain_agnostic"]).method.dump()
    assert switched["personalize"] == PersonalizeConfig().dump()
    assert switched["domain_word"] == "person"


@pytest.mark.parametrize("name", [ABLATIONS, "domain_agnostic_ablations_sd15"])
def test_every_switch_of_fig_4_and_5b_and_what_they_share(tmp_path: Path, name: str) -> None:
    words = ["--recipe", name, "--out", str(tmp_path), "--dry-run"]
    plan = jobs_main.start("ablate", words)["variants"]
    beside = {key: plan.pop(key) for key in set(plan) - FIG_4_AND_5B}
    assert beside == ({"e4t_of_faces": "bundled:e4t_face"} if name == ABLATIONS else {})  # of one domain
    assert set(plan) == FIG_4_AND_5B
    assert plan["full"] == plan["no_tuning"] == plan["no_dual_path_in_tuning"]
    assert len(set(plan.values())) == 6


def sources(recipe: Recipe) -> dict[str, TinyWorldConfig]:
    assert isinstance(recipe.source, MixConfig)
    found = {}
    for name, part in recipe.source.parts.items():
        assert isinstance(part, TinyWorldConfig)
        found[name] = part
    return found


def test_one_encoder_for_all_domains_and_classes_that_no_training_saw() -> None:
    recipe = load(ABLATIONS)
    assert recipe.ablations is not None
    people = load(ABLATIONS, [f"{key}={value}" for key, value in _flow(recipe.ablations.people).items()])
    training, test = sources(recipe), sources(people)
    assert set(training) == set(test) == DOMAINS
    assert {part.domain for part in training.values()} == {"face", "cat", "art", "object"}
    assert {part.split for part in training.values()} == {"train"}
    assert {part.split for part in test.values()} == {"test"}
    seen, unseen = training["objects"].classes, test["objects"].classes
    assert seen is not None
    assert unseen is not None
    assert not set(seen) & set(unseen)
    assert len(seen) >= 30


def _flow(changes: dict[str, Any]) -> dict[str, str]:
    return {key: str(value).replace("'", "") for key, value in changes.items()}


# --- from the columns to the loss


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load(TINY, [*SMALL, *LITTLE])


@pytest.fixture(scope="module")
def shards(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two pictures of one concept of each domain, made in this process."""
    where = tmp_path_factory.mktemp("shards")
    manifest, _ = build(Store(where), recipe.build_source(), recipe.build_stages(), samples_per_shard=8)
    assert manifest.head["samples"] == 8
    return str(where)


def test_the_loss_and_the_prediction_read_what_the_stages_wrote(recipe: Recipe, shards: str) -> None:
    method, backbone = recipe.build_method(), load_backbone(recipe.backbone)
    dataset = open_shards(recipe, shards, method.columns)
    module: Any = method.build(backbone, clip_dims(dataset))
    batch = next(iter(ShardLoader(dataset, method.columns, 4, seed=0, workers=0)))
    assert batch["clip_tokens"].shape[1] == 64
    with in_step(method, module, backbone):  # type: ignore[arg-type]
        losses = method.pretrain_loss(module, backbone, batch, rng())
        losses.total.backward()
    assert set(losses.terms) == {"diffusion", "embedding_l2", "contrastive", "offset_l2"}
    assert module.encoder.token.weight.grad.any()
    chosen = [Chosen(name, ("",), (rows[0],)) for name, rows in dataset.identities().items()]
    assert [one.identity.partition("/")[0] for one in chosen] == sorted(DOMAINS)
    for adapter in method.personalize(module, backbone, load_identities(dataset, chosen, recipe.seed)):
        assert adapter.meta["near"][0] == "object"  # an untrained encoder says the word that it starts from
        assert len(adapter.meta["near"]) == 5


@pytest.mark.full
def test_all_commands(tmp_path: Path, ray_local: None) -> None:
    """The same words as for any method; the report names the nearest tokens."""
    over = [
        *SMALL,
        *("train.steps=2", "train.batch_size=2", "generate.sampler.steps=2", "evaluate.bootstrap_samples=100"),
        f"mlflow.uri=sqlite:///{tmp_path}/mlflow.db",
    ]
    shards, model, adapters, images, scored = (
        str(tmp_path / name) for name in ("shards", "model", "adapters", "images", "scored")
    )

    def start(command: str, *words: str, out: str) -> dict[str, Any]:
        sets = [word for text in over for word in ("--set", text)]
        return jobs_main.start(command, ["--recipe", TINY, *sets, *words, "--out", out, "--yes"])

    assert start("preprocess", out=shards)["samples"] == 8
    start("pretrain", "--shards", shards, out=model)
    using = ("--shards", shards, "--checkpoint", model)
    done = start("personalize", *using, out=adapters)
    assert (done["identities"], done["steps"], done["failed"]) == (4, 2, 0)
    assert start("generate", *using, "--adapters", adapters, out=images)["images"] == 32
    scores = start("evaluate", "--shards", shards, "--images", images, out=scored)["scores"]
    assert set(scores["domain_agnostic"]) >= {"clip_t", "clip_i"}
    start("report", "--evaluation", scored, out=str(tmp_path / "report"))
    assert "S* is near: object, " in (tmp_path / "report" / "report.html").read_text()
