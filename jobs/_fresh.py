"""Images that are scored as they are drawn, so that an evaluation of any size stores no more of them than it is told.

A unit is drawn, scored and forgotten one identity at a time. The pictures of the first ``evaluate.keep_identities`` are
committed as ``generate`` would, and published under ``images/`` of the evaluation for its report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa

from e4t_core.record import fingerprint
from e4t_core.storage import Store
from jobs._adapter_set import AdapterSet
from jobs._drawing import Painter, Picture, Task, commit_pictures, count_images, drawing_task
from jobs._job import Job
from jobs._lineage import lineage, public
from jobs._rows import IMAGE_ROWS
from jobs._scores import SCHEMA, Metrics, Scorer, judged, score_key
from jobs._units import Unit, done, each_commit, publish_streamed

FOLDER = "images"


@dataclass(frozen=True)
class Fresh:
    """What is drawn and scored.

    Attributes:
        task: where images come from; its ``out`` is where those that are kept go.
        units: of identities.
        kept: the part of each unit whose pictures stay; units without any are not in it.
    """

    task: Task
    units: tuple[Unit, ...]
    kept: Mapping[int, Unit]

    @classmethod
    def of(cls, job: Job) -> Fresh:
        """What the job's flags ask for.

        Raises:
            UsageError: a flag is missing, or what they name does not belong together.
        """
        task, units = drawing_task(job, job.store.url(FOLDER))
        return cls(task, tuple(units), _kept(units, job.recipe.evaluate.keep_identities))

    def __len__(self) -> int:
        return count_images(self.task.recipe, self.units)

    def images(self, units: set[int]) -> int:
        """Images of some units."""
        return count_images(self.task.recipe, [unit for unit in self.units if unit.number in units])

    def keys(self, references: str, metrics: Metrics) -> dict[int, str]:
        """Unit -> key of its scores; ``references`` is a content fingerprint of the real images."""
        facts = {"schema": SCHEMA, "references": references, "metrics": judged(metrics)}
        return {unit.number: score_key(unit.number, {**facts, "drawn": unit.fingerprint}) for unit in self.units}

    def without_pictures(self) -> set[int]:
        """Units that should have left pictures and have not."""
        return set(self.kept) - done(Store(self.task.out), list(self.kept.values()))

    def publish(self, job: Job) -> dict[str, Any]:
        """The version of the images that stay; returns its manifest."""
        task, kept = self.task, [self.kept[number] for number in sorted(self.kept)]
        store = Store(task.out)
        about = {
            "kind": "images",
            "method": task.method,
            "identities": sum(len(unit.items) for unit in kept),
            "images": count_images(task.recipe, kept),
            "drawn": len(self),
            "failed": AdapterSet.open(task.adapters, task.adapters_version).manifest["failed"],
            "recipe": public(task.recipe.dump()),
            "recipe_hash": task.recipe.hash,
            "inputs": dict(task.inputs),
            **lineage("evaluate", job.args),
        }
        return publish_streamed(store, each_commit(store, kept), IMAGE_ROWS, lambda: about)


def _kept(units: Sequence[Unit], most: int | None) -> dict[int, Unit]:
    """The first ``most`` identities, all if None."""
    left, out = most, {}
    for unit in units:
        items = unit.items if left is None else unit.items[:left]
        left = None if left is None else left - len(items)
        if items:
            made_from = {"drawn": unit.fingerprint, "kept": [identity for identity, _ in items]}
            out[unit.number] = Unit(unit.kind, unit.number, fingerprint(made_from), items)
    return out


@dataclass
class DrawingScorer(Scorer):
    """Draws units and scores them; what it draws with is loaded when the first one comes.

    Attributes:
        fresh: the units.
    """

    fresh: Fresh | None = None
    _pngs: dict[tuple[str, int], bytes] = field(default_factory=dict)

    def score(self, unit: int) -> pa.Table:
        """As :meth:`Scorer.score`; pictures that stay are committed before the scores are."""
        fresh, scored, staying = self._what, [], list[Picture]()
        kept = fresh.kept.get(unit)
        names = {identity for identity, _ in kept.items} if kept else set()
        for identity, pictures in self._painter.draw(self._by_number[unit]):
            self._pngs = {(one.row["prompt"], one.row["index"]): one.png for one in pictures}
            part = pa.Table.from_pylist([one.row for one in pictures], IMAGE_ROWS)
            scored.append(self._identity(part, identity))
            staying += pictures if identity in names else []
        if kept:
            commit_pictures(Store(fresh.task.out), kept, staying)
        return pa.concat_tables(scored)

    def _encoded(self, rows: pa.Table) -> list[bytes]:
        return [self._pngs[row["prompt"], row["index"]] for row in rows.select(["prompt", "index"]).to_pylist()]

    @property
    def _what(self) -> Fresh:
        assert self.fresh is not None
        return self.fresh

    @cached_property
    def _by_number(self) -> dict[int, Unit]:
        return {unit.number: unit for unit in self._what.units}

    @cached_property
    def _painter(self) -> Painter:
        return Painter(self._what.task, lambda images: None)
