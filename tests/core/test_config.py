"""Recipes refuse what they do not know and say what would be right."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e4t_core.config import Config, apply_overrides, merge, parse_yaml, validate
from e4t_core.errors import UsageError


class Inner(Config):
    base_lr: float = 1e-6
    steps: int = 15


class Outer(Config):
    inner: Inner = Inner()
    words: tuple[str, ...] = ()
    name: str | None = None


def test_unknown_key_names_the_nearest_one() -> None:
    with pytest.raises(UsageError, match=r"recipe\.inner\.base_rl: unknown key 'base_rl'; did you mean 'base_lr'\?"):
        validate(Outer, {"inner": {"base_rl": 1.0}}, "recipe")


def test_unknown_key_of_a_section_that_may_be_absent_names_the_nearest_one_too() -> None:
    class May(Config):
        inner: Inner | None = None
        named: dict[str, Inner]

    with pytest.raises(UsageError, match=r"r\.inner\.base_rl: unknown key 'base_rl'; did you mean 'base_lr'\?"):
        validate(May, {"inner": {"base_rl": 1.0}, "named": {}}, "r")
    with pytest.raises(UsageError, match=r"r\.named\.steps\.stps: unknown key 'stps'; did you mean 'steps'\?"):
        validate(May, {"named": {"steps": {"stps": 1}}}, "r")


def test_wrong_type_names_path_and_value() -> None:
    with pytest.raises(UsageError, match=r"recipe\.inner\.steps: 'many' does not fit"):
        validate(Outer, {"inner": {"steps": "many"}}, "recipe")


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(UsageError) as error:
        validate(Outer, {"inner": {"steps": "many", "x": 1}, "name": 3}, "r")
    assert len(str(error.value).splitlines()) == 3


def test_no_silent_conversion_of_numbers_in_quotes() -> None:
    with pytest.raises(UsageError, match="steps"):
        validate(Outer, {"inner": {"steps": "15"}}, "r")


@pytest.mark.parametrize("text", ["1e-6", "1.0e-6", "1E-6", "0.000001", ".000001"])
def test_learning_rates_are_numbers_however_written(text: str) -> None:
    tree = apply_overrides(parse_yaml(f"inner: {{base_lr: {text}}}", "r"), [f"inner.base_lr={text}"])
    assert parse_yaml(f"inner: {{base_lr: {text}}}", "r")["inner"]["base_lr"] == 1e-6
    assert validate(Outer, tree, "r").inner.base_lr == 1e-6


def test_words_that_look_like_names_stay_words() -> None:
    assert apply_overrides({}, ["a.b=dpmsolver++", "c=s3://x/1e5"]) == {"a": {"b": "dpmsolver++"}, "c": "s3://x/1e5"}


def test_overrides_reach_lists_and_null() -> None:
    tree = apply_overrides({"words": ["a"], "name": "x"}, ["words=[b, c]", "name=null"])
    assert validate(Outer, tree, "r") == Outer(words=("b", "c"), name=None)


@pytest.mark.parametrize("text", ["a.b", "=1", "a..b=1", ".a=1"])
def test_malformed_override_says_how_to_write_it(text: str) -> None:
    with pytest.raises(UsageError, match="name=value"):
        apply_overrides({}, [text])


def test_overrides_of_changes_to_a_recipe_are_written_as_their_neighbours_are() -> None:
    """A section beside a dotted name would replace, where it is applied, all that the recipe says there."""
    people = {"source.split": "test", "source.identities": 20}
    tree = apply_overrides({"people": people}, ["people.source.identities=50", "people.source.a.b=1"])
    assert tree == {"people": {"source.split": "test", "source.identities": 50, "source.a.b": 1}}
    tree = apply_overrides({"people": {"source": {"identities": 20}}}, ["people.source.identities=50"])
    assert tree == {"people": {"source": {"identities": 50}}}


def test_override_through_a_value_is_refused() -> None:
    with pytest.raises(UsageError, match="'seed' is the value 3, not a section"):
        apply_overrides({"seed": 3}, ["seed.x=1"])


def test_not_a_mapping_is_refused() -> None:
    with pytest.raises(UsageError, match="holds a list"):
        parse_yaml("- a", "r.yaml")
    with pytest.raises(UsageError, match="is not YAML"):
        parse_yaml("a: [", "r.yaml")


trees = st.recursive(
    st.integers(), lambda leaf: st.dictionaries(st.sampled_from("abc"), leaf, max_size=3), max_leaves=8
).filter(lambda t: isinstance(t, dict))


@given(trees, trees)
def test_merge_is_idempotent_and_right_biased(a: dict, b: dict) -> None:
    once = merge(a, b)
    assert merge(once, b) == once
    for key, value in b.items():
        if not isinstance(value, dict):
            assert once[key] == value
