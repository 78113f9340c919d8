"""What a night's figures were measured on and with: data and weights by content, and the protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from e4t_core.backbones import backbone_weights_fingerprint, clip_weights_fingerprint
from e4t_core.errors import DataError, UsageError, nearest
from e4t_core.record import fingerprint
from e4t_core.storage import Store
from jobs import _scores
from jobs._nightly.entrants import Entrant
from jobs._recipe import Recipe
from jobs._run_folder import RunFolder
from pipelines.shards import maintenance
from pipelines.shards.manifest import load_manifest

DATA = "data"
_SELECTION = ("min_images", "max_images", "max_identities", "held_out")
"""Of ``personalize``: who is measured, and on which of their photos."""
_DIGITS = 16
"""Of a SHA-256, as of every other fingerprint."""


def weights(recipe: Recipe, entrants: Sequence[Entrant]) -> dict[str, str]:
    """Name, as in ``nightly.pins``, -> content fingerprint of all weights that are given; what a hub has is pulled."""
    metrics = _scores.build(recipe.metrics, recipe.models, recipe.evaluate.device)
    judges = {f"metrics.{name}": metric.weights() for name, metric in metrics.items()}
    given = {f"methods.{e.name}": trained(e.given) for e in entrants if e.given is not None}
    found = {"backbone": backbone_weights_fingerprint(recipe.backbone), "clip": clip_weights_fingerprint(recipe.clip)}
    return {**found, **{name: value[:_DIGITS] for name, value in judges.items() if value}, **given}


def trained(checkpoint: str) -> str:
    """Content of a finished pre-training's module, hashed now and compared with its record.

    Raises:
        DataError: it is not finished, or its bytes are not those that its record names.
    """
    folder = RunFolder(Store(checkpoint))
    record = folder.trained()
    found = folder.sha256("module.safetensors")
    if found != record.facts["sha256"]:
        raise DataError(
            f"{checkpoint}/module.safetensors is damaged: its SHA-256 is {found}, its record says "
            f"{record.facts['sha256']}; copy it anew"
        )
    return found[:_DIGITS]


def people(uri: str) -> str:
    """Content fingerprint of the people's images, every byte of the store read and compared with its hash.

    Raises:
        DataError: something in the store is damaged.
    """
    problems = maintenance.verify(Store(uri))["problems"]
    if problems:
        raise DataError(f"{len(problems)} problems in {uri}; the first: {problems[0]}")
    return fingerprint({str(n): ref.sha256 for n, ref in load_manifest(Store(uri)).refs("ingest").items()})


def check(pins: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Compare what is there with what the recipe says must be there.

    Args:
        pins: ``nightly.pins``.
        found: fingerprints by the same names; a pin that is not among them is not checked.

    Raises:
        DataError: another content, naming both.
    """
    for name, value in found.items():
        if pins.get(name, value) != value:
            raise DataError(
                f"nightly.pins.{name} is {pins[name]!r} and {value!r} is there: bring back what was pinned, or, if it "
                f"was changed on purpose, --set nightly.pins.{name}={value} (nights before it will not be compared)"
            )


def check_names(pins: Mapping[str, str], known: Sequence[str]) -> None:
    """Refuse pins of nothing.

    Raises:
        UsageError: a name that no data or weights have.
    """
    for name in pins:
        if name not in known:
            raise UsageError(f"nightly.pins.{name}: there is no such thing to pin{nearest(name, known)}")


def facts(recipe: Recipe, entrant: Entrant, checkpoint: str | None, data: str) -> dict[str, Any]:
    """What must be the same for two nights' figures of a method to be compared; their fingerprint is its.

    Seeds are not in it, nor is anything that is under test: code and versions, the method's settings, the sampler. A
    change of those is compared, and told beside what moved.
    """
    ours = entrant.recipe
    metrics = _scores.build(ours.metrics, ours.models, ours.evaluate.device)
    selection = {key: getattr(ours.personalize, key) for key in _SELECTION}
    return {
        "recipe": recipe.name,
        "method": ours.method.name,
        "data": data,
        "identities": selection,
        "prompts": fingerprint([prompt.dump() for prompt in ours.generate.prompts]),
        "images_per_prompt": ours.generate.images_per_prompt,
        "metrics": {name: fingerprint(judge) for name, judge in _scores.judges(metrics).items()},
        "weights": {
            "backbone": backbone_weights_fingerprint(ours.backbone),
            "clip": clip_weights_fingerprint(ours.clip),
            "checkpoint": trained(checkpoint) if checkpoint else None,
        },
    }


def under_test(entrant: Entrant) -> dict[str, Any]:
    """Settings that a night may change and still be compared.

    Of a budget that is measured anew every night, whose it is: the seconds themselves are among the method's costs.
    """
    dumped = entrant.recipe.dump()
    timed = {"as_long_as": entrant.as_long_as} if entrant.as_long_as else {}
    return {"method": dumped["method"], "generate": {"sampler": dumped["generate"]["sampler"]}, **timed}
