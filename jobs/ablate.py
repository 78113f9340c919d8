"""Variants of one method, each trained, personalized, drawn and scored alike, on one page (E4T fig. 4b)."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from e4t_core.errors import UsageError
from e4t_core.record import fingerprint
from jobs.__main__ import start
from jobs._job import Job, chosen
from jobs._preprocess import PREPROCESS, makes_columns
from jobs._recipe import load
from jobs._run_folder import decisive
from jobs._sections import AblationsConfig
from jobs._variants import assignments, data_of, words_of

HELP = "variants of a method, each pre-trained, personalized, drawn and scored alike, compared on one page"
RECIPE = "e4t_ablations_tiny"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of this job."""
    parser.add_argument(
        "--only", metavar="A,B", help="these of ablations.variants and ablations.beside; the first is the reference"
    )


def run(job: Job) -> dict[str, Any]:
    """Every variant through the ordinary commands; does only what is missing.

    Variants whose pre-training would be the same share it, so that switches of tuning cost no training; likewise only
    variants that change the data have shards of their own.
    """
    known = _compared(_section(job))
    data = data_of(load(job.args.recipe, [*job.args.set, "ablations=null"]))
    variants = [_Variant(job, name, *known[name], data=data) for name in chosen(job.args.only, tuple(known), "variant")]
    trainings = {variant.pretraining for variant in variants if not variant.given}
    job.say(f"ablate: {len(variants)} variants, {len(trainings)} pre-trainings -> {job.out}")
    if job.dry_run:
        return {"dry_run": True, "out": job.out, "variants": {v.name: v.pretraining for v in variants}}
    with job.ray():
        made: set[str] = set()
        for variant in variants:
            for folder, preprocess in variant.data().items():
                if folder not in made:
                    preprocess()
                    made.add(folder)
            variant.run()
    scored = [word for v in variants for word in ("--evaluation", job.store.url(v.place("evaluation")))]
    report = _start(job, "report", job.recipe.name, {}, *scored, out="report")
    return {"out": job.out, "report": report["report"], "variants": {v.name: v.scores for v in variants}}


def _section(job: Job) -> AblationsConfig:
    found = job.recipe.ablations
    if found is None:
        raise UsageError(f"recipe '{job.recipe.name}' has no section 'ablations'; use --recipe {RECIPE} or extend it")
    return found


def _compared(section: AblationsConfig) -> dict[str, tuple[dict[str, Any], str | None]]:
    """Name -> changes to the recipe, and the checkpoint if it is given.

    Raises:
        UsageError: a variant and a method beside have one name, or a method beside wants a checkpoint and has none.
    """
    out: dict[str, tuple[dict[str, Any], str | None]] = {name: (v, None) for name, v in section.variants.items()}
    for name, beside in section.beside.items():
        if name in out:
            raise UsageError(f"ablations.beside.{name} has the name of a variant; give it another")
        theirs = load(beside.recipe, ["ablations=null"])
        if beside.checkpoint is None and theirs.build_method().pretrains:
            raise UsageError(
                f"ablations.beside.{name} is pre-trained, and not here: give what `pretrain` wrote for it as "
                f"--set ablations.beside.{name}.checkpoint=URI"
            )
        out[name] = ({"method": theirs.dump()["method"], **beside.changes}, beside.checkpoint)
    return out


class _Variant:
    """One way of doing it, with its places below ``--out``.

    Attributes:
        given: its checkpoint, if that is not made here.
        suffix: of its folders of shards, ``shards`` and ``people``; empty where they are the recipe's own.
        pretraining: a hash of what decides it; the checkpoint if that is given.
    """

    def __init__(
        self, job: Job, name: str, changes: Mapping[str, Any], given: str | None = None, *, data: Mapping[str, Any]
    ) -> None:
        self.job, self.name, self.changes, self.given = job, name, changes, given
        self.recipe = load(job.args.recipe, [*job.args.set, *_assignments(changes)])
        ours, decides = data_of(self.recipe), decisive(self.recipe.dump())
        self.suffix = "" if ours["made"] == data["made"] else f"-{fingerprint(ours['made'])}"
        self.pretraining = given or fingerprint(decides if ours == data else {**decides, "data": ours})
        self.scores: dict[str, Any] = {}

    @property
    def trains(self) -> bool:
        """Whether it is pre-trained here."""
        return self.given is None and self.recipe.build_method().pretrains

    def data(self) -> dict[str, Callable[[], object]]:
        """Folder -> what makes it: what it learns from, if it does here, and the identities that are personalized."""
        job, changes = self.job, dict(self.changes) if self.suffix else {}
        title = self.name if self.suffix else job.recipe.name
        out: dict[str, Callable[[], object]] = {}
        if self.trains:
            folder = f"shards{self.suffix}"
            out[folder] = partial(_start, job, makes_columns(self.recipe), title, changes, out=folder)
        folder = f"people{self.suffix}"
        out[folder] = partial(_start, job, PREPROCESS, title, {**changes, **_section(job).people}, out=folder)
        return out

    def place(self, what: str) -> str:
        """By kind, so that the variants share one tracking store."""
        return f"{what}/{self.name}"

    def run(self) -> None:
        people = self.job.store.url(f"people{self.suffix}")
        made = {name: self.job.store.url(self.place(name)) for name in ("adapters", "images")}
        using = {"shards": people}
        if self.given:
            using["checkpoint"] = self.given
        elif self.trains:
            checkpoint = f"pretrained/{self.pretraining}"
            self._do("pretrain", checkpoint, shards=self.job.store.url(f"shards{self.suffix}"))
            using["checkpoint"] = self.job.store.url(checkpoint)
        self._do("personalize", self.place("adapters"), **using)
        self._do("generate", self.place("images"), **using, adapters=made["adapters"])
        done = self._do("evaluate", self.place("evaluation"), shards=people, images=made["images"])
        self.scores = done["scores"]

    def _do(self, command: str, out: str, **flags: str) -> dict[str, Any]:
        words = [word for flag, value in flags.items() for word in (f"--{flag}", value)]
        changes = {"name": self.name, **self.changes}
        return _start(self.job, command, self.name, changes, *words, out=out)


def _start(job: Job, command: str, title: str, changes: Mapping[str, Any], *words: str, out: str) -> dict[str, Any]:
    """One ordinary command with the variant's changes to the recipe."""
    job.say(f"ablate: {title}: {command}")
    sets = [*job.args.set, *_assignments(changes)]
    return start(command, words_of(job.args.recipe, sets, *words, out=job.store.url(out)))


def _assignments(changes: Mapping[str, Any]) -> list[str]:
    """A variant's own recipe says nothing of the others."""
    return [*assignments(changes), "ablations=null"]
