"""The methods of a night: each is its own recipe for learning, and the nightly's for everything that is compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from e4t_core.errors import UsageError
from e4t_core.record import fingerprint
from jobs._recipe import Recipe, load
from jobs._run_folder import decisive
from jobs._sections import ActorsConfig, NightlyConfig, NightlyMethod
from jobs._variants import assignments, data_of

_ALONE = ("nightly=null", "ablations=null")
"""A method's own recipe says nothing of the others, nor of who is told."""
_WHOLE = ("generate", "metrics", "evaluate", "ray", "mlflow")
_PARTS = {
    "backbone": ("path", "random_seed"),
    "clip": ("path", "pretrained", "random_seed"),
    "personalize": (
        "min_images", "max_images", "max_identities", "held_out", "allowed_failed_share", *ActorsConfig.model_fields
    ),
}  # fmt: skip
"""One protocol for all, on the same machines: sections, and fields of sections, that every method takes from the
nightly's recipe."""
_PEOPLE = ("source", "shards")
"""Taken from it as well once a method has learned: until then, data are the method's own."""
_BUDGET = "method.personalize.seconds"


@dataclass(frozen=True)
class Entrant:
    """One method of a night.

    Attributes:
        name: its key in ``nightly.methods``.
        which: recipe as ``--recipe`` takes it.
        learning: ``--set`` for its pre-training and the data of that.
        benchmark: ``--set`` for everything that is compared.
        given: the checkpoint, if the recipe gives one.
        as_long_as: the entrant whose measured time is its budget, if it has one.
    """

    name: str
    which: str
    learning: tuple[str, ...]
    benchmark: tuple[str, ...]
    given: str | None
    as_long_as: str | None = None

    @cached_property
    def recipe(self) -> Recipe:
        """Of everything that is compared."""
        return load(self.which, self.benchmark)

    @cached_property
    def training(self) -> Recipe:
        """Of its pre-training."""
        return load(self.which, self.learning)

    @property
    def learns(self) -> bool:
        """Whether it is pre-trained here, unless that was done on an earlier night."""
        return self.given is None and self.recipe.build_method().pretrains

    @property
    def people(self) -> str:
        """Folder of the people's shards. The seed decides nothing of them, so nights of other seeds share them."""
        made = data_of(self.recipe)["made"]
        return f"people/{fingerprint({k: v for k, v in made.items() if k != 'seed'})}"

    @property
    def shards(self) -> str:
        """Folder of the shards that it is pre-trained on."""
        return f"shards/{fingerprint(data_of(self.training)['made'])}"

    @property
    def checkpoint(self) -> str:
        """Folder of the pre-training; a hash of what decides it."""
        return f"pretrained/{fingerprint({**decisive(self.training.dump()), 'data': data_of(self.training)})}"

    def within(self, seconds: float) -> Entrant:
        """The same, with a budget for learning one identity."""
        return replace(self, benchmark=(*self.benchmark, f"{_BUDGET}={float(f'{seconds:.4g}')}"))


def benchmark(which: str, sets: Sequence[str], config: NightlyConfig) -> Recipe:
    """The nightly's own recipe with the people that it is about."""
    return load(which, [*assignments(config.people), *without_nightly(sets), *_ALONE])


def entrants(
    which: str, sets: Sequence[str], config: NightlyConfig, names: Sequence[str], places: Mapping[str, Any]
) -> list[Entrant]:
    """The named methods.

    Args:
        which, sets: the nightly's recipe as the command line names it.
        places: further changes for everything, as where runs are logged.

    Raises:
        UsageError: a recipe does not resolve, a method has neither a checkpoint nor data to learn from, or it is to
            learn as long as one that is not named, or cannot.
    """
    whole = benchmark(which, sets, config)
    own = [*assignments(config.people), *without_nightly(sets)]
    found = [_entrant(name, config.methods[name], which, own, whole, places) for name in names]
    for entrant in found:
        _check_time(entrant, names)
    return found


def _entrant(
    name: str,
    method: NightlyMethod,
    which: str,
    own: Sequence[str],
    shared: Recipe,
    places: Mapping[str, Any],
) -> Entrant:
    changes, whole = assignments(method.changes), shared.dump()
    if method.recipe is None:
        learning = (*own, *changes, *assignments(places), *_ALONE)
        people: list[str] = []
    else:
        learning = (*changes, *assignments({**_shared(shared), **places}), *_ALONE)
        people = assignments({"seed": whole["seed"], **{key: whole[key] for key in _PEOPLE}, **_ingest(whole)})
    named = f"name={_title(whole, name, load(method.recipe or which, learning))}"
    out = Entrant(
        name, method.recipe or which, learning, (*learning, *people, named), method.checkpoint, method.as_long_as
    )
    if method.recipe is None and out.learns:
        raise UsageError(
            f"nightly.methods.{name} has neither a checkpoint nor a recipe of its own: give what `pretrain` wrote as "
            f"--set nightly.methods.{name}.checkpoint=URI, or what it learns from as nightly.methods.{name}.recipe=NAME"
        )
    return out


def _check_time(entrant: Entrant, names: Sequence[str]) -> None:
    """Tell before the first hour what would be told after it."""
    other = entrant.as_long_as
    if other is None:
        return
    where = f"nightly.methods.{entrant.name}.as_long_as"
    if other not in names:
        raise UsageError(f"{where} is {other}, whose time is measured in the same night: --only {other},{entrant.name}")
    try:
        load(entrant.which, entrant.within(1.0).benchmark)
    except UsageError as error:
        raise UsageError(f"{where}: method '{entrant.recipe.method.name}' takes no time limit: {error}") from error


def without_nightly(sets: Sequence[str]) -> list[str]:
    """Assignments without those to the section ``nightly``."""
    return [text for text in sets if text.partition("=")[0].strip().split(".")[0] != "nightly"]


def _shared(recipe: Recipe) -> dict[str, Any]:
    whole = recipe.dump()
    parts = {
        f"{section}.{field}": getattr(getattr(recipe, section), field, None)  # a dump leaves later defaults out
        for section, fields in _PARTS.items()
        for field in fields
    }
    return {**{section: whole[section] for section in _WHOLE}, **parts}


def _ingest(whole: Mapping[str, Any]) -> dict[str, Any]:
    """The same pixels for all."""
    return {"stages.ingest": whole["stages"]["ingest"]}


def _title(whole: Mapping[str, Any], name: str, recipe: Recipe) -> str:
    """The nightly's name; with ``name`` where that is not the method's own, so that reports tell variants apart."""
    return str(whole["name"]) if recipe.method.name == name else f"{whole['name']}_{name}"
