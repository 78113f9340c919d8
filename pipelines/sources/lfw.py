"""``lfw``: Labeled Faces in the Wild as published, or any folder in that layout."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from e4t_core.errors import DataError
from e4t_core.storage import Entry, Store
from e4t_core.texts import read_text
from pipelines.sources._listing import first_by_id, folders, is_image, open_folder, smaller
from pipelines.sources._text import csv_rows
from pipelines.sources.base import RawSample, Source, SourceConfig, SourceItem

_SHOWN = 5
_log = logging.getLogger(__name__)


class LfwConfig(SourceConfig):
    """Which people are taken.

    Attributes:
        list: path or URI of a list of people: ``peopleDevTest.txt`` as published (a count, then
            ``Name<TAB>images`` lines), or a csv with the header ``name,images`` or ``name``. Without it, all.
        min_images, max_images: take people with that many images, both bounds included (E4T section 4: 3 and 10).
        on_mismatch: what happens when list and files disagree: ``error``, or ``skip`` those people and log them.
    """

    list: str | None = None
    min_images: Annotated[int, Field(ge=1)] = 1
    max_images: Annotated[int, Field(ge=1)] | None = None
    on_mismatch: Literal["error", "skip"] = "error"

    @model_validator(mode="after")
    def _ordered(self) -> LfwConfig:
        if self.max_images is not None and self.max_images < self.min_images:
            raise ValueError(f"max_images {self.max_images} is below min_images {self.min_images}; both are included")
        return self


class Lfw(Source):
    """Files Name/Name_0001.jpg, one folder a person.

    Ids are ``Name/Name_0001``, without extension; the label ``identity`` is ``Name``.
    """

    name: ClassVar[str] = "lfw"
    Config: ClassVar[type[SourceConfig]] = LfwConfig
    config: LfwConfig

    @cached_property
    def _store(self) -> Store:
        return open_folder(self.config.path, self.name)

    def items(self, limit: int | None = None) -> Iterator[SourceItem]:
        """Stream the chosen people's images.

        Disagreements are raised at the end of the listing, all at once, so a caller must exhaust it before it
        believes it; ``limit`` does that.

        Raises:
            UsageError: no path is given.
            DataError: folder or list is missing or malformed, they disagree, or nobody has that many images.
        """
        return first_by_id(self._all(), smaller(limit, self.config.limit))

    def read(self, item: SourceItem) -> RawSample:
        return RawSample(image=self._store.read(item.uri.removeprefix(self._store.url(""))))

    def _all(self) -> Iterator[SourceItem]:
        listed = read_list(self.config.list) if self.config.list else None
        present: set[str] = set()
        faults: list[str] = []
        chosen = 0
        for folder, entries in folders(self._store):
            images = [entry for entry in entries if is_image(entry.key)]
            if not images or "/" in folder or not folder or (listed is not None and folder not in listed):
                continue
            present.add(folder)
            fault = _fault(folder, images, listed[folder] if listed else None)
            if fault:
                faults.append(fault)
            elif self._wanted(len(images)):
                chosen += 1
                yield from self._person(folder, images)
        faults += [f"{name} is listed but has no images" for name in sorted(set(listed or ()) - present)]
        self._judge(faults, present, chosen)

    def _wanted(self, images: int) -> bool:
        return self.config.min_images <= images <= (self.config.max_images or images)

    def _person(self, name: str, images: list[Entry]) -> Iterator[SourceItem]:
        for entry in images:
            sample = entry.key.rpartition(".")[0]
            yield SourceItem(sample, self._store.url(entry.key), entry.etag, {"identity": name})

    def _judge(self, faults: list[str], present: set[str], chosen: int) -> None:
        """Raise or log what is wrong with the whole."""
        c = self.config
        if not present:
            raise DataError(
                f"no 'Name/Name_0001.jpg' in '{c.path}'{' of anybody on ' + c.list if c.list else ''}; "
                "source.path must be the folder that holds the people's folders"
            )
        if faults:
            several = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
            text = (
                f"{len(faults)} people disagree with '{c.list or 'the layout'}': {'; '.join(faults[:_SHOWN])}{several}"
            )
            if c.on_mismatch == "error":
                raise DataError(
                    f"'{c.path}': {text}. Complete the folder, correct the list, or set source.on_mismatch=skip",
                    mismatches=len(faults),
                )
            _log.warning("%s: %s; skipped", c.path, text)
        if not chosen:
            raise DataError(
                f"none of the {len(present)} people in '{c.path}' has from {c.min_images} to "
                f"{c.max_images or 'any number of'} images; change source.min_images or source.max_images"
            )


def _fault(name: str, images: list[Entry], listed: int | None) -> str | None:
    """What is wrong with one person's files, if anything."""
    stems = [entry.key.rpartition("/")[2].rpartition(".")[0] for entry in images]
    strange = [stem for stem in stems if not re.fullmatch(re.escape(name) + r"_\d{4}", stem)]
    if strange:
        return f"{name}/{strange[0]} is not named like {name}_0001"
    if len(set(stems)) < len(stems):
        return f"{name} has {max(stems, key=stems.count)} in two formats"
    if listed is not None and listed != len(images):
        return f"{name} is listed with {listed} images and has {len(images)}"
    return None


def read_list(uri: str) -> Mapping[str, int | None]:
    """A list of people: name -> number of images, or None where the list does not say.

    Raises:
        DataError: it is missing, neither of the two formats, or names somebody twice.
    """
    lines = [line.strip() for line in read_text(uri, "source.list").splitlines() if line.strip()]
    people: dict[str, int | None] = {}
    for number, (person, images) in _rows(lines, uri):
        if person in people:
            raise DataError(f"source.list '{uri}' names '{person}' twice, again in line {number}; list everybody once")
        people[person] = images
    return people


def _rows(lines: list[str], uri: str) -> Iterator[tuple[int, tuple[str, int | None]]]:
    if lines[0].isdecimal():  # a superscript is a digit, and no number
        return _published(lines, uri)
    if lines[0].lower().replace(" ", "") in ("name,images", "name"):
        return _csv(lines, uri)
    raise DataError(
        f"source.list '{uri}' starts with '{lines[0][:60]}'; it should start with the number of people (as "
        "peopleDevTest.txt does), or be a csv with the header 'name,images' or 'name'"
    )


def _published(lines: list[str], uri: str) -> Iterator[tuple[int, tuple[str, int | None]]]:
    if int(lines[0]) != len(lines) - 1:
        raise DataError(
            f"source.list '{uri}' announces {lines[0]} people and lists {len(lines) - 1}; "
            "give one list as published, whole"
        )
    for number, line in enumerate(lines[1:], 2):
        name, _, images = line.partition("\t")
        yield number, (name, _count(images, number, line, uri))


def _csv(lines: list[str], uri: str) -> Iterator[tuple[int, tuple[str, int | None]]]:
    counted = "," in lines[0]
    for number, row in csv_rows(lines[1:], f"source.list '{uri}'", first=2):
        if len(row) != 1 + counted:
            raise DataError(
                f"source.list '{uri}', line {number}: {row!r} should have {1 + counted} columns: {lines[0]}"
            )
        yield number, (row[0].strip(), _count(row[1], number, ",".join(row), uri) if counted else None)


def _count(text: str, number: int, line: str, uri: str) -> int:
    if not text.strip().isdecimal():
        raise DataError(f"source.list '{uri}', line {number}: '{line}' should be a name and its number of images")
    return int(text)
