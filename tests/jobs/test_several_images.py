"""`personalize.images`: one image of an identity, several or all of them, from the draw to what evaluation holds out;
and methods that need no checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from e4t_core.errors import UsageError
from e4t_core.storage import Store
from jobs import __main__ as jobs_main
from jobs._adapter_set import AdapterSet
from jobs._people import Chosen, choose, draw
from jobs._recipe import Recipe, load
from jobs._rows import seen_keys
from jobs._sections import PersonalizeConfig
from jobs._units import ImageSet, Unit, committed
from jobs.personalize import Personalizer, Task
from pipelines.loader import ShardDataset

SMALL = (
    "method.personalize.steps=2",
    "method.personalize.samples=1",
    "method.personalize.probe=1",
    "personalize.threads=1",
    "personalize.identities_per_shard=2",
    "personalize.max_identities=3",
    "generate.sampler.steps=2",
    "generate.prompts=[{name: photo, template: 'a photo of {}', concept_less: a photo}]",
)
ONE, ALL = "personalize.images=1", "personalize.images=all"


def config(**fields: Any) -> PersonalizeConfig:
    return PersonalizeConfig(**fields)


def recipe_of(name: str, *sets: str) -> Recipe:
    return load(name, [*SMALL, *sets])


# --- which images


def test_fewer_are_the_first_of_more_and_the_last_are_held_out() -> None:
    images = {f"{n:032x}": n for n in range(6)}
    every = draw("ann", images, config(images="all"), 0)
    assert sorted(every.values()) == list(range(6))
    for count in range(1, 7):
        some = draw("ann", images, config(images=count, min_images=6), 0)
        assert list(some) == list(every)[:count]
    held = draw("ann", images, config(images="all", held_out=2, min_images=3), 0)
    assert list(held) == list(every)[:4]
    backwards = dict(reversed(images.items()))
    assert list(draw("ann", backwards, config(images="all"), 0)) == list(every)
    orders = {tuple(draw(who, images, config(images="all"), seed)) for who in ("ann", "bob") for seed in range(4)}
    assert len(orders) == 8


@pytest.mark.parametrize(
    ("fields", "needed"), [({"images": 3}, 3), ({"images": "all", "held_out": 2}, 3), ({"images": 2, "held_out": 2}, 4)]
)
def test_identities_with_too_few_images_are_left_out_by_name(fields: dict[str, Any], needed: int) -> None:
    with pytest.raises(ValueError, match=f"min_images is 1: set min_images={needed} to leave smaller ones out"):
        config(**fields)
    config(**fields, min_images=needed)


def test_a_method_that_learns_from_one_image_is_given_no_more() -> None:
    with pytest.raises(
        UsageError, match=r"personalize\.images is 'all', and method 'e4t' learns .* one image; .*dreambooth, lora"
    ):
        load("tiny", [ALL])
    with pytest.raises(UsageError, match=r"personalize\.images is 2, and method 'hyperdreambooth'"):
        load("hyperdreambooth_tiny", ["personalize.images=2"])
    assert load("lora_tiny", [ALL]).personalize.images == "all"
    assert load("taming_encoder_tiny", [ALL]).personalize.images == "all"


def test_recipes_from_before_there_were_several_keep_their_hashes() -> None:
    assert not {"images", "held_out"} & config().dump().keys()
    assert config(images="all").dump()["images"] == "all"
    assert "seconds" not in load("lora_tiny").method.dump()["personalize"]
    assert Chosen("ann", ("k",), (3,), ((1, 2),)).content == ["ann", "k", 1, 2]


# --- the road


def personalized(shards: str, out: Path, recipe: Recipe) -> tuple[Personalizer, list[dict[str, Any]]]:
    """All identities as one unit, in this process and without a checkpoint."""
    actor = Personalizer(Task(recipe, shards, 1, None, str(out), {"shards": f"{shards}#1"}))
    unit = Unit("adapters", 0, "f" * 16, tuple(choose(actor.dataset, recipe.personalize, recipe.seed)))
    assert actor.run(unit) == 0
    rows: list[dict[str, Any]] = committed(Store(out), [unit])[0]["rows"]
    return actor, rows


def test_the_whole_set_is_learned_from_and_recorded(shards: str, tmp_path: Path) -> None:
    groups = ShardDataset.open(shards).identities()
    keys = ShardDataset.open(shards).table["key"].to_pylist()
    several, whole = personalized(shards, tmp_path / "all", recipe_of("textual_inversion_tiny", ALL))
    _, single = personalized(shards, tmp_path / "one", recipe_of("textual_inversion_tiny", ONE))
    for many, one in zip(whole, single, strict=True):
        assert set(many["input_keys"]) == {keys[row] for row in groups[many["identity"]]}
        assert len(many["input_keys"]) == 2
        assert one["input_keys"] == [one["input_key"]] == many["input_keys"][:1]
        assert '"images": 2' in many["meta_json"]
        assert many["crc32"] != one["crc32"], "another set, another word"
        assert (many["status"], many["steps"]) == ("ok", 2)
    assert several.task.checkpoint is None


def test_without_pretraining_no_checkpoint_is_asked_for_or_read(
    shards: str, ray_local: None, tracking: str, tmp_path: Path
) -> None:
    """The commands as they are typed; what evaluation takes for seen is the whole set."""

    def start(command: str, *words: str, out: str) -> dict[str, Any]:
        over = (*SMALL, ALL, "evaluate.bootstrap_samples=100", "metrics.clip_t=null", f"mlflow.uri={tracking}")
        sets = [word for text in over for word in ("--set", text)]
        return jobs_main.start(command, ["--recipe", "textual_inversion_tiny", *sets, *words, "--out", out])

    adapters, images = str(tmp_path / "adapters"), str(tmp_path / "images")
    plan = start("personalize", "--shards", shards, "--dry-run", out=adapters)
    assert (plan["identities"], plan["units"], plan["method"]) == (3, 2, "textual_inversion")
    done = start("personalize", "--shards", shards, out=adapters)
    assert (done["identities"], done["failed"], done["steps"]) == (3, 0, 2)
    made = AdapterSet.open(adapters)
    assert not {"checkpoint", "checkpoint_sha256"} & made.manifest["inputs"].keys()
    assert start("generate", "--shards", shards, "--adapters", adapters, out=images)["images"] == 3
    drawn = ImageSet.open(images)
    for row in made.table.to_pylist():
        rows = drawn.table.filter([one == row["identity"] for one in drawn.table["identity"].to_pylist()])
        assert seen_keys(rows) == set(row["input_keys"])
    scored = start("evaluate", "--shards", shards, "--images", images, out=str(tmp_path / "evaluation"))
    assert scored["images"] == 3
    found = pq.read_table(scored["rows"])
    assert set(found["heldout"].to_pylist()) == {0}, "both images of each were learned from"
    assert found["score_identity_heldout"].null_count == 3
    with pytest.raises(UsageError, match="method 'textual_inversion' needs no pre-training"):
        start("pretrain", "--shards", shards, out=str(tmp_path / "none"))
