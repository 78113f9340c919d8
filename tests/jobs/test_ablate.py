"""`ablate`: several variants of a method through the ordinary commands, on one page."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from e4t_core.errors import UsageError
from jobs._recipe import load, names
from tests.jobs.ablating import told
from tests.jobs.conftest import SMALL, everything, start

__all__ = ["told"]
LITTLE = (
    "train.steps=2",
    "source.identities=2",
    "personalize.max_identities=2",
    "generate.prompts=[{name: photo, template: 'a photo of {}', concept_less: a photo}]",
    "evaluate.bootstrap_samples=100",
    "ablations.people={source.split: test, source.identities: 2, source.styles: [photo]}",
)
FIG_4B = {
    "full", "no_tuning", "tune_components_only", "tune_denoiser_only", "no_iterative_refinement",
    "no_embedding_regularization", "direct_offsets", "no_offsets", "hypernetwork_offsets",
}  # fmt: skip


def ablate(*words: str) -> dict[str, object]:
    """The job on the small road."""
    return start("ablate", "--recipe", "e4t_ablations_tiny", *words, sets=LITTLE)


def test_every_switch_of_fig_4b_is_in_the_recipe(tmp_path: Path) -> None:
    plan = ablate("--out", str(tmp_path / "new"), "--dry-run")["variants"]
    assert isinstance(plan, dict)
    assert set(plan) == FIG_4B
    tuning = ("full", "no_tuning", "tune_components_only", "tune_denoiser_only")
    assert len({plan[name] for name in tuning}) == 1  # switches of tuning share a pre-training
    assert len(set(plan.values())) == 6
    assert not (tmp_path / "new").exists()


def test_a_variant_goes_through_the_ordinary_commands(tmp_path: Path, told: list[argparse.Namespace]) -> None:
    done = ablate("--out", str(tmp_path), "--only", "full,no_tuning")
    each = ["pretrain", "personalize", "generate", "evaluate"]
    assert [t.command for t in told] == ["preprocess", "preprocess", *each, *each, "report"]
    training, people = told[:2]
    assert load(training.recipe, training.set).source.split == "train"  # type: ignore[attr-defined]
    assert load(people.recipe, people.set).source.split == "test"  # type: ignore[attr-defined]
    full, untuned = told[2:6], told[6:10]
    assert full[0].out == untuned[0].out
    assert full[1].checkpoint == full[2].checkpoint == full[0].out
    assert (full[0].shards, full[1].shards) == (training.out, people.out)
    for commands, name, tune in ((full, "full", "all"), (untuned, "no_tuning", "none")):
        recipes = [load(c.recipe, c.set) for c in commands]
        assert {r.name for r in recipes} == {name}
        assert {r.method.personalize.tune for r in recipes} == {tune}  # type: ignore[attr-defined]
        assert commands[2].adapters == commands[1].out
        assert commands[3].images == commands[2].out
    assert told[-1].evaluation == [full[3].out, untuned[3].out]
    assert done == {
        "out": str(tmp_path),
        "report": "page",
        "variants": {name: {"evaluate": 1.0} for name in ("full", "no_tuning")},
    }


BESIDE = "ablations.beside={other: {recipe: lora_tiny, changes: {method.personalize.steps: 3}}"
GIVEN = ', faces: {recipe: e4t_face_tiny, checkpoint: "bundled:e4t_face", changes: {method.personalize.mask: false}}}'


def test_other_methods_stand_beside_the_variants(tmp_path: Path, told: list[argparse.Namespace]) -> None:
    ablate("--out", str(tmp_path), "--only", "full,other,faces", "--set", BESIDE + GIVEN)
    each = ["personalize", "generate", "evaluate"]
    assert [t.command for t in told] == ["preprocess", "preprocess", "pretrain", *each, *each, *each, "report"]
    full, other, faces = told[3:6], told[6:9], told[9:12]
    assert {t.shards for t in (full[0], *other, *faces)} == {full[0].shards}  # the same people
    recipes = [load(c.recipe, c.set) for c in (full[0], other[0], faces[0])]
    assert [r.method.name for r in recipes] == ["e4t", "lora", "e4t"]
    assert [r.name for r in recipes] == ["full", "other", "faces"]
    assert recipes[1].method.dump()["personalize"]["steps"] == 3
    assert recipes[2].method.dump()["personalize"]["mask"] is False
    assert {repr(r.generate) for r in recipes} == {repr(recipes[0].generate)}  # the same prompts, the same judges
    assert {repr(r.metrics) for r in recipes} == {repr(recipes[0].metrics)}
    assert (other[0].checkpoint, faces[0].checkpoint, faces[1].checkpoint) == (None, *["bundled:e4t_face"] * 2)


def test_what_nobody_trains_on_is_not_made(tmp_path: Path, told: list[argparse.Namespace]) -> None:
    ablate("--out", str(tmp_path), "--only", "faces,other", "--set", BESIDE + GIVEN)
    assert [Path(t.out).name for t in told if t.command == "preprocess"] == ["people"]


def test_a_name_says_one_thing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ablations\.beside\.full has the name of a variant"):
        ablate("--out", str(tmp_path), "--set", "ablations.beside={full: {recipe: lora_tiny}}")


def test_a_method_beside_is_not_trained_on_the_variants_data(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"beside\.faces is pre-trained, and not here.*beside\.faces\.checkpoint=URI"):
        ablate("--out", str(tmp_path), "--set", "ablations.beside={faces: {recipe: e4t_face_tiny}}")


@pytest.mark.full
def test_variants_are_compared_on_one_page(tmp_path: Path, ray_local: None) -> None:
    words = ("--out", str(tmp_path), "--only", "full,no_tuning")
    done = ablate(*words)
    page = (tmp_path / "report" / "report.html").read_text()
    assert "e4t: full, no_tuning" in page
    assert [label for label in ("full", "no_tuning") if f"</span>{label}</th>" in page] == ["full", "no_tuning"]
    assert len(list((tmp_path / "pretrained").glob("*/module.safetensors"))) == 1
    assert set(done["variants"]) == {"full", "no_tuning"}  # type: ignore[call-overload]
    before = everything(tmp_path / "adapters")
    ablate(*words)
    assert everything(tmp_path / "adapters") == before


def test_unknown_variants_and_recipes_without_any(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no variant is called 'no_tunning'; did you mean 'no_tuning'"):
        ablate("--out", str(tmp_path), "--only", "no_tunning")
    with pytest.raises(UsageError, match="recipe 'tiny' has no section 'ablations'; use --recipe e4t_ablations_tiny"):
        start("ablate", "--out", str(tmp_path))


def test_ablations_do_not_enter_a_variants_recipe() -> None:
    assert "e4t_ablations_tiny" in names()
    recipe = load("e4t_ablations_tiny", [*SMALL, "ablations=null"])
    assert recipe.ablations is None
    assert "ablations" not in recipe.dump()
