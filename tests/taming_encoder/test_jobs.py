"""The recipes, the columns from the stage to the loss, and the commands."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch

from e4t_core.errors import UsageError
from e4t_core.schema import decode_array
from e4t_core.storage import Store
from jobs import __main__ as jobs_main
from jobs._models import clip_dims, open_shards
from jobs._people import choose, load_identities
from jobs._recipe import Recipe, load
from jobs._report.published import beside
from pipelines.loader import ShardDataset, ShardLoader
from tests.e4t.conftest import Fixed
from tests.jobs.ablating import told
from tests.shards.support import build

__all__ = ["told"]
TINY, ABLATIONS = "taming_encoder_tiny", "taming_encoder_ablations_tiny"
SMALL = (
    *(f"source.parts.{part}.identities=2" for part in ("faces", "people", "cats", "objects", "art")),
    "source.parts.faces.images_per_identity=2",
    "backbone.resolution=32",
    "stages.ingest.size=32",
)


def recipe_of(*sets: str) -> Recipe:
    return load(TINY, [*SMALL, *sets])


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two people twice, and two others, cats, objects and paintings once."""
    recipe, folder = recipe_of(), tmp_path_factory.mktemp("taming")
    manifest, _ = build(Store(folder), recipe.build_source(), recipe.build_stages(), samples_per_shard=6)
    assert (manifest.head["samples"], manifest.head["quarantined"]) == (12, 0)
    return str(folder)


def test_from_shards_to_the_loss(shards: str) -> None:
    """Every part in a batch by its share, partners of the domain's images, and a gradient."""
    from e4t_core.backbones import load_backbone
    from e4t_core.training import train

    recipe = recipe_of("train.steps=1", "train.batch_size=12", "train.warmup_steps=0")
    method, backbone = recipe.build_method(), load_backbone(recipe.backbone, "cpu")
    dataset = open_shards(recipe, shards, method.columns)
    shares = recipe.source.shares  # type: ignore[attr-defined]
    loader = ShardLoader(dataset, method.columns, 12, seed=1, shares=shares, references=method.references)
    batch = next(iter(loader))
    assert set(batch["parts"]) <= set(shares)
    for part, name, other in zip(batch["parts"], batch["ids"], batch["reference_ids"], strict=True):
        assert (name != other) == (part == "faces")
    module = method.build(backbone, clip_dims(dataset))
    before = [p.detach().clone() for p in module.parameters()]
    train(method, module, backbone, Fixed([batch]), recipe.train, seed=0)
    assert any(not (p == old).all() for p, old in zip(module.parameters(), before, strict=True))


def test_personalizing_reads_the_masked_features(shards: str) -> None:
    recipe = recipe_of()
    dataset = ShardDataset.open(shards)
    (chosen, *_) = choose(dataset, recipe.personalize, 0)
    (one,) = load_identities(dataset, [chosen], 0)
    sample = dataset.samples([chosen.rows[0]], ["ingest", "mask", "clip"])[0]
    stage = next(stage for stage in recipe.build_stages() if stage.name == "clip")
    stage.setup()
    with_mask = stage([{k: v for k, v in sample.items() if not k.startswith("clip")}])[0]
    assert with_mask["clip_cls.npy"] == sample["clip_cls.npy"]  # type: ignore[index]
    assert torch.equal(one.clip_cls_NLD[0], torch.from_numpy(decode_array(sample["clip_cls.npy"], "")).float())


def test_features_with_background_are_refused(shards: str) -> None:
    """Either way round: the column must be made as the recipe says."""
    with pytest.raises(UsageError, match="masked is True there and None here"):
        open_shards(recipe_of("stages.clip.masked=false"), shards, ("clip",))


def test_a_share_of_the_batch_is_the_domains() -> None:
    for name in (TINY, "taming_encoder_sd15"):
        recipe = load(name)
        shares, parts = recipe.source.shares, recipe.method.parts  # type: ignore[attr-defined]
        inside = sum(share for part, share in shares.items() if parts[part] == "domain")
        assert inside == pytest.approx(0.3 * sum(shares.values()))  # r, figure 9
        assert set(parts) == set(shares)


# --- the ablation


def plan_of(tmp_path: Path) -> dict[str, str]:
    words = ["--recipe", ABLATIONS, "--out", str(tmp_path / "new"), "--dry-run"]
    variants: dict[str, str] = jobs_main.start("ablate", words)["variants"]
    return variants


def test_every_switch_of_section_5_is_a_training_of_its_own(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    assert set(plan) == {
        "full", "no_cross_reference", "always_cross_reference", "attention_only", "class_name_captions",
        "full_captions", "general_only", "domain_only", "untrained_encoder", "with_background",
    }  # fmt: skip
    assert len(set(plan.values())) == len(plan)  # shares and stages too, though training's own sections are equal


def test_variants_that_change_the_data_have_shards_of_their_own(tmp_path: Path, told: list[argparse.Namespace]) -> None:
    only = "full,general_only,attention_only,with_background,untrained_encoder"
    jobs_main.start("ablate", ["--recipe", ABLATIONS, "--out", str(tmp_path), "--only", only])
    data = [t for t in told if t.command == "preprocess"]
    names = [Path(t.out).name for t in data]
    assert names[:2] == ["shards", "people"]
    assert len(names) == len(set(names)) == 6  # the recipe's own, and those of two variants
    recipes = dict(zip(names, (load(t.recipe, t.set) for t in data), strict=True))
    for name, recipe in recipes.items():
        kind, dash, suffix = name.partition("-")
        partner = recipes[f"{'people' if kind == 'shards' else 'shards'}{dash}{suffix}"]
        assert (recipe.clip, recipe.stages["clip"]) == (partner.clip, partner.stages["clip"])
        assert recipe.source.name == ("mix" if kind == "shards" else "tiny_world")
    assert {(r.clip.random_seed, r.stages["clip"].masked) for r in recipes.values()} == {  # type: ignore[attr-defined]
        (None, True), (None, False), (0, True),
    }  # fmt: skip
    own = ("untrained_encoder", "with_background")
    for command, kind in (("pretrain", "shards"), ("personalize", "people"), ("generate", "people")):
        for t in (t for t in told if t.command == command):
            recipe, place = load(t.recipe, t.set), Path(t.shards).name
            assert place.startswith(kind)
            assert (place != kind) == (recipe.name in own)
            assert (recipe.clip, recipe.stages["clip"]) == (recipes[place].clip, recipes[place].stages["clip"])
    trainings = {r.name: r for r in (load(t.recipe, t.set) for t in told if t.command == "pretrain")}
    shares = {name: recipe.source.shares["faces"] for name, recipe in trainings.items()}  # type: ignore[attr-defined]
    assert (shares["full"], shares["general_only"]) == (0.3, 0.0)


def test_the_papers_table_is_beside_ours() -> None:
    (table,) = beside(["taming_encoder"], ["clip_i", "clip_t"])
    assert table["rows"][-1] == {"label": "Taming Encoder", "more": "KID 13.230", "cells": ["0.460", "0.350"]}
