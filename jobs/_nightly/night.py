"""One night: every method through the ordinary commands, then the comparison with the last good night."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from e4t_core.errors import DataError, UsageError
from e4t_core.record import fingerprint
from e4t_core.storage import Store
from jobs._job import Job
from jobs._lineage import lineage
from jobs._models import absolute
from jobs._nightly import compared, pins
from jobs._nightly.decision import fewest
from jobs._nightly.entrants import Entrant, benchmark, entrants, without_nightly
from jobs._nightly.history import History, Night, Scores
from jobs._people import select
from jobs._preprocess import PREPROCESS, makes_columns
from jobs._recipe import Recipe
from jobs._scores import SCORE
from jobs._sections import ActorsConfig, NightlyConfig
from jobs._variants import assignments, words_of
from pipelines.loader import ShardDataset

Start = Callable[[str, Sequence[str]], dict[str, Any]]
"""Runs one command with its words; returns its summary."""
_RESOURCES = {"resources", *ActorsConfig.model_fields}
"""A night may go on with other actors and devices than it was begun with."""


@dataclass
class Runner:
    """Runs one date's night.

    Attributes:
        job: the invocation.
        date: ``YYYY-MM-DD``.
        config: the recipe's section.
        names: the methods to run.
        start: runs an ordinary command.
    """

    job: Job
    date: str
    config: NightlyConfig
    names: Sequence[str]
    start: Start

    @cached_property
    def history(self) -> History:
        """What is kept under ``--out``."""
        return History(self.job.store)

    @cached_property
    def recipe(self) -> Recipe:
        """The benchmark."""
        return benchmark(self.job.args.recipe, self.job.args.set, self.config)

    @cached_property
    def entrants(self) -> list[Entrant]:
        """The methods."""
        return entrants(self.job.args.recipe, self.job.args.set, self.config, self.names, self._places())

    def asked(self) -> dict[str, Any]:
        """Everything that decides the night: two starts of a date must agree on it."""
        config = self.config.dump()
        judged = {key: config[key] for key in ("alpha", "confirm", "effects", "effect", "bootstrap_samples", "pins")}
        methods = {
            e.name: {
                "checkpoint": e.given,
                "recipe": _decisive(e.recipe),
                "training": _decisive(e.training) if e.learns else None,
                **({"as_long_as": e.as_long_as} if e.as_long_as else {}),
            }
            for e in self.entrants
        }
        return {"recipe": self.recipe.name, "nightly": judged, "methods": methods}

    def plan(self) -> dict[str, Any]:
        """What would be run, on which weights; runs nothing."""
        return {
            "methods": {e.name: e.given or (e.checkpoint if e.learns else None) for e in self.entrants},
            "fingerprints": self._weights(),
            "begun": self.history.begun(self.date),
        }

    def run(self) -> Night:
        """Do what is missing of the night, and commit it."""
        self._weights()
        self.history.begin(self.date, self.asked(), lineage("nightly", self._quiet()))
        with self.job.ray():
            data = {uri: self._people(uri, e) for uri, e in {e.people: e for e in self.entrants}.items()}
            # first those whose time is measured, then those that learn as long as they
            made = {e.name: self._method(e) for e in sorted(self.entrants, key=lambda e: e.as_long_as is not None)}
        words = [word for e in self.entrants for word in ("--evaluation", self._url(e.name, "evaluation"))]
        report = self._do("report", self.recipe.name, self.job.args.recipe, self._own, *words, out=self._key("report"))
        results = {name: Store(self._url(name, "evaluation")).read_json("evaluation.json") for name in made}
        scores = {name: scores_of(Store(self._url(name, "evaluation")), result) for name, result in results.items()}
        methods = {e.name: self._told(e, data[e.people], made[e.name], results[e.name]) for e in self.entrants}
        return self._commit(methods, scores, str(report["report"]))

    # --- data and weights

    def _weights(self) -> dict[str, str]:
        found = pins.weights(self.recipe, self.entrants)
        # of every method with weights of its own: `--only` leaves out methods, not their pins
        theirs = [f"methods.{name}" for name, method in self.config.methods.items() if method.checkpoint is not None]
        pins.check_names(self.config.pins, [pins.DATA, *found, *theirs])
        pins.check(self.config.pins, found)
        return found

    def _people(self, folder: str, entrant: Entrant) -> str:
        """Make and verify one store of people; returns their content fingerprint."""
        self._do(PREPROCESS, entrant.name, entrant.which, entrant.benchmark, out=folder)
        uri = absolute(self.job.store.url(folder))
        data = pins.people(uri)
        self.job.say(f"nightly: every byte of {uri} is right; its images are {data}")
        pins.check(self.config.pins, {pins.DATA: data})
        there = len(select(ShardDataset.open(uri).identities(), self.recipe.personalize, uri))
        needed = fewest(self.config.alpha)
        if there < needed:
            raise UsageError(
                f"{there} identities can show no drop at nightly.alpha = {self.config.alpha:g}, whatever becomes of "
                f"them: it takes {needed} or more; raise personalize.max_identities or what the source gives"
            )
        return data

    # --- the methods

    def _method(self, entrant: Entrant) -> str | None:
        """A method through the ordinary commands; returns its checkpoint."""
        checkpoint = entrant.given or (self._pretrained(entrant) if entrant.learns else None)
        people = ("--shards", self.job.store.url(entrant.people))
        using = (*people, *(("--checkpoint", checkpoint) if checkpoint else ()))
        adapters, images = (("--" + what, self._url(entrant.name, what)) for what in ("adapters", "images"))
        if entrant.as_long_as is not None:
            entrant = entrant.within(self._took(entrant.as_long_as))
        self._compared("personalize", entrant, "adapters", *using)
        self._compared("generate", entrant, "images", *using, *adapters)
        self._compared("evaluate", entrant, "evaluation", *people, *images)
        return checkpoint

    def _pretrained(self, entrant: Entrant) -> str:
        """Once for all nights: a night checks what was pre-trained, it does not wait for a pre-training."""
        uri = self.job.store.url(entrant.checkpoint)
        if not Store(uri).exists("record.json"):
            learning = (entrant.name, entrant.which, entrant.learning)
            self._do(makes_columns(entrant.training), *learning, out=entrant.shards)
            shards = ("--shards", self.job.store.url(entrant.shards))
            self._do("pretrain", *learning, *shards, out=entrant.checkpoint)
        return uri

    def _took(self, name: str) -> float:
        """Mean seconds in which a method learned one identity this night; a night that goes on reads the same ones."""
        uri = self._url(name, "evaluation")
        (figures,) = Store(uri).read_json("evaluation.json")["methods"]
        seconds = figures["costs"].get("seconds_personalize", {}).get("mean")
        if not seconds:
            raise DataError(f"{uri} has no time in which {name} learned one identity, for others to learn as long")
        return float(seconds)

    def _compared(self, command: str, entrant: Entrant, what: str, *words: str) -> dict[str, Any]:
        return self._do(
            command, entrant.name, entrant.which, entrant.benchmark, *words, out=self._key(entrant.name, what)
        )

    def _do(self, command: str, title: str, which: str, sets: Sequence[str], *words: str, out: str) -> dict[str, Any]:
        self.job.say(f"nightly: {self.date}: {title}: {command}")
        return self.start(command, words_of(which, sets, *words, out=self.job.store.url(out)))

    # --- what came out

    def _told(self, entrant: Entrant, data: str, checkpoint: str | None, result: Mapping[str, Any]) -> dict[str, Any]:
        """What the history keeps of a method, beside its scores."""
        (figures,) = result["methods"]
        facts = pins.facts(self.recipe, entrant, checkpoint, data)
        return {
            "method": entrant.recipe.method.name,
            "facts": facts,
            "fingerprint": fingerprint(facts),
            "settings": pins.under_test(entrant),
            "scores": figures["scores"],
            "costs": {name: cost["mean"] for name, cost in figures["costs"].items()},
            "identities": figures["identities"],
            "images": figures["images"],
            "failed": dict(result["images"]["failed"]),
        }

    def _commit(self, methods: dict[str, dict[str, Any]], scores: Scores, report: str) -> Night:
        before = [night for night in self.history.nights() if night["date"] < self.date]
        verdict = compared.compare(self.config, methods, scores, before, self.history.scores)
        night = {
            "date": self.date,
            "recipe": self.recipe.name,
            "seed": self.recipe.seed,
            "status": verdict.status,
            "findings": [asdict(finding) for finding in verdict.findings],
            "test": {
                "alpha": self.config.alpha,
                "samples": self.config.bootstrap_samples,
                "confirm": self.config.confirm,
            },
            "methods": {name: {**methods[name], **verdict.basis[name]} for name in methods},
            "report": report,
            "finished": time.time(),
            **lineage("nightly", self._quiet()),
        }
        return self.history.commit(night, scores)

    # --- places

    def _key(self, *parts: str) -> str:
        return "/".join(("nights", self.date, *parts))

    def _url(self, *parts: str) -> str:
        return self.job.store.url(self._key(*parts))

    @property
    def _own(self) -> tuple[str, ...]:
        return (*without_nightly(self.job.args.set), *assignments(self._places()), "nightly=null")

    def _places(self) -> dict[str, str]:
        """All nights log to one store: the recipe's, the environment's, or one beside them."""
        store = self.job.store
        if self.job.recipe.mlflow.uri or os.environ.get("MLFLOW_TRACKING_URI") or not store.local:
            return {}
        return {"mlflow.uri": f"sqlite:///{os.path.abspath(store.root)}/mlflow.db"}

    def _quiet(self) -> Any:
        """The command line for records, without the webhook."""
        args = type(self.job.args)(**vars(self.job.args))
        args.set = [text for text in args.set if "webhook" not in text]
        return args


def scores_of(store: Store, result: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Metric -> identity -> mean over its images, of an evaluation of one method; ``<metric>.scored`` is the share of
    the identity's images that have a score, so that a method whose faces are not found is no better for it."""
    (figures,) = result["methods"]
    with store.open(result["rows"]) as file:
        found = pq.ParquetFile(file)
        wanted = {"identity", "heldout", *(f"{SCORE}{column}" for column in figures["scores"])}
        rows: pd.DataFrame = found.read([name for name in found.schema_arrow.names if name in wanted]).to_pandas()
    out: dict[str, dict[str, float]] = {}
    for column in figures["scores"]:
        out |= compared.per_identity(rows, column)
    lost = dict.fromkeys(result["images"]["failed"], 0.0)
    return {m: {**lost, **values} if m.endswith(compared.SCORED) else values for m, values in out.items()}


def _decisive(recipe: Recipe) -> dict[str, Any]:
    """A recipe without where it runs and on how much."""
    return dict(_lean({key: value for key, value in recipe.dump().items() if key not in ("ray", "mlflow", "workers")}))


def _lean(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _lean(inner) for key, inner in value.items() if key not in _RESOURCES}
    return value
