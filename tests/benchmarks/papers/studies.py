"""What is run: each study is one command of the product, and evaluations that come out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path

from jobs._report.inputs import Entry, load_entries
from tests.benchmarks.papers.kept import keep, load


@dataclass(frozen=True)
class Study:
    """One command and what it leaves.

    Attributes:
        name: folder under the page's own.
        command: name and flags without ``--out``.
        places: where its evaluations are, as a pattern under its folder; what the star stands for names them.
    """

    name: str
    command: tuple[str, ...]
    places: str

    def entries(self, out: Path) -> dict[str, Entry]:
        """Name -> evaluation, of those that are finished."""
        before = self.places.split("*")[0].count("/")
        found = {
            path.relative_to(out / self.name).parts[before]: path.parent
            for path in sorted((out / self.name).glob(f"{self.places}/evaluation.json"))
        }
        entries = load_entries([str(path) for path in found.values()], []) if found else []
        return dict(zip(found, entries, strict=True))


DATE = "2000-01-01"
"""The benchmark is a night that is never compared with another."""
STUDIES = (
    Study("benchmark", ("nightly", "--recipe", "benchmark_tiny", "--date", DATE), f"nights/{DATE}/*/evaluation"),
    Study(
        "hyperdreambooth",
        (
            "ablate",
            "--recipe",
            "hyperdreambooth_ablations_tiny",
            "--set",
            "ablations.people.source.identities=150",
        ),
        "evaluation/*",
    ),
    Study(
        "e4t",
        ("ablate", "--recipe", "e4t_ablations_tiny", "--set", "ablations.people.source.identities=50"),
        "evaluation/*",
    ),
    Study(
        "domain_agnostic",
        (
            "ablate",
            "--recipe",
            "domain_agnostic_ablations_tiny",
            *(
                word
                for part in ("faces", "cats", "art", "objects")
                for word in ("--set", f"ablations.people.source.parts.{part}.identities=13")
            ),
        ),
        "evaluation/*",
    ),
    Study(
        "taming_encoder",
        ("ablate", "--recipe", "taming_encoder_ablations_tiny", "--set", "ablations.people.source.identities=50"),
        "evaluation/*",
    ),
)


@dataclass(frozen=True)
class Results:
    """What was kept of all studies.

    Attributes:
        folder: holds ``STUDY/NAME.parquet``, see :mod:`tests.benchmarks.papers.kept`.
    """

    folder: Path

    @cached_property
    def found(self) -> Mapping[str, Mapping[str, Entry]]:
        """Study -> name -> evaluation, in the studies' order."""
        files = {study.name: sorted((self.folder / study.name).glob("*.parquet")) for study in STUDIES}
        numbers = count()
        return {study: {file.stem: load(file, next(numbers)) for file in of} for study, of in files.items()}

    def entry(self, place: str) -> Entry | None:
        """``study/name``; None if it has not been run."""
        study, name = place.split("/")
        return self.found[study].get(name)


def keep_all(out: Path, folder: Path) -> None:
    """Keep the figures of every evaluation that is finished under ``out``; those kept before and not there stay."""
    for study in STUDIES:
        for name, entry in study.entries(out).items():
            keep(entry, folder / study.name / f"{name}.parquet")
