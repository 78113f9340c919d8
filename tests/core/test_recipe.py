"""Every shipped recipe resolves; wrong ones say what is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from e4t_core.errors import UsageError
from jobs import _recipe
from jobs._recipe import in_order, load
from pipelines.stages import STAGES


@pytest.mark.parametrize("name", _recipe.names())
def test_shipped_recipe_resolves_and_builds(name: str) -> None:
    recipe = load(name)
    assert recipe.name == name
    assert next(iter(recipe.build_stages())).name == "ingest"
    assert recipe.build_source().name == recipe.source.name
    assert recipe.build_method().name == recipe.method.name
    assert load(name).hash == recipe.hash


def test_agreed_names_exist() -> None:
    assert {"tiny", "sd15", "nightly_tiny", "nightly_lfw"} <= set(_recipe.names())


def test_paper_hyperparameters_of_e4t() -> None:
    face, cat, art = load("sd15"), load("e4t_cat_sd15"), load("e4t_art_sd15")
    assert (face.train.steps, cat.train.steps, art.train.steps) == (30_000, 60_000, 100_000)
    for recipe in (face, cat, art):
        assert recipe.train.base_lr == 1e-6
        assert recipe.train.scale_lr
        assert recipe.train.batch_size == 16
        dump = recipe.method.dump()
        assert (dump["scale"], dump["reg_weight"]) == (0.1, 0.01)
    personal = {r.method.domain_word: r.method.dump()["personalize"] for r in (face, cat, art)}
    assert (personal["face"]["steps"], personal["face"]["reg_weight"], personal["face"]["mask"]) == (15, 0.1, True)
    for domain in ("cat", "art"):
        assert (personal[domain]["steps"], personal[domain]["base_lr"]) == (5, 3e-6)
        assert (personal[domain]["reg_weight"], personal[domain]["mask"]) == (1e-4, False)
        assert personal[domain]["batch_size"] >= 16


def test_lfw_benchmark_takes_three_to_ten_images() -> None:
    source = load("nightly_lfw").source.dump()
    assert (source["name"], source["min_images"], source["max_images"]) == ("lfw", 3, 10)


def test_hash_follows_results_not_places() -> None:
    base = load("tiny").hash
    assert load("tiny", ["workers.num_workers=2", "mlflow.experiment=x", "ray.num_cpus=2"]).hash == base
    assert load("tiny", ["seed=1"]).hash != base
    assert load("tiny", ["method.scale=0.2"]).hash != base


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("sourc.limit=3", r"unknown key 'sourc'.*did you mean 'source'"),
        ("source.limt=3", r"source\.limt: unknown key 'limt'; did you mean 'limit'"),
        ("source.name=tiny_wrld", r"no source is called 'tiny_wrld'; did you mean 'tiny_world'"),
        ("method.name=e4", r"no method is called 'e4'; did you mean 'e4t'"),
        ("stages.maks={}", r"no stage is called 'maks'; did you mean 'mask'"),
        ("train.steps=ten", r"train\.steps: 'ten' does not fit"),
        ("train=3", r"train: 3 does not fit: this is a section"),
        ("seed=-1", r"seed: -1 does not fit"),
        ("generate.prompts=[]", r"generate\.prompts"),
        ("evaluate.confidence=95", r"evaluate\.confidence: 95"),
        ("method.personalize.step=3", r"method\.personalize\.step: unknown key 'step'; did you mean 'steps'"),
    ],
)
def test_wrong_values_name_the_right_one(assignment: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load("tiny", [assignment])


def test_unknown_recipe_and_missing_file() -> None:
    with pytest.raises(UsageError, match="no recipe is called 'tinny'; did you mean 'tiny'"):
        load("tinny")
    with pytest.raises(UsageError, match=r"no recipe file at '\./none\.yaml'"):
        load("./none.yaml")


def test_recipe_file_extends_and_overrides(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: tiny\nname: mine\ntrain: {steps: 7}\n")
    recipe = load(str(path), ["train.batch_size=2"])
    assert (recipe.name, recipe.train.steps, recipe.train.batch_size) == ("mine", 7, 2)
    assert recipe.source == load("tiny").source
    assert load(f"file://{path}").hash == load(str(path)).hash


def test_a_folder_replaces_the_generated_source(tmp_path: Path) -> None:
    recipe = load("tiny", [f"source.path={tmp_path}", "source.limit=3"])
    assert (recipe.source.name, recipe.source.path, recipe.source.limit) == ("image_folder", str(tmp_path), 3)


def test_naming_another_source_drops_the_old_ones_fields(tmp_path: Path) -> None:
    recipe = load("tiny", ["source.name=lfw", f"source.path={tmp_path}", "source.min_images=3"])
    assert recipe.source.name == "lfw"


def test_stages_come_after_those_they_read() -> None:
    recipe = load("tiny")
    built = {s.name: s for s in recipe.build_stages()}
    order = [s.name for s in in_order(dict(reversed(built.items())))]
    for i, name in enumerate(order):
        assert set(built[name].reads) <= set(order[:i])
    with pytest.raises(UsageError, match=r"reads the column 'ingest': add stages\.ingest"):
        in_order({k: v for k, v in built.items() if k != "ingest"})


def test_every_stage_declares_its_contract() -> None:
    for name in STAGES.names():
        stage = STAGES.get(name)
        assert stage.name == name
        assert stage.version >= 1
        assert stage.writes
        assert set(stage.reads) <= set(STAGES.names())
