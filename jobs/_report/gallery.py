"""Pictures in the page: which identities are shown, and how their images are inlined."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from PIL import Image

from jobs._report import words
from jobs._report.grid import Grid
from jobs._report.inputs import Entry, Shards, photos_of
from jobs._report.ranking import choose, ranking
from jobs._scores import SCORE

_SIDE, _BYTES = 224, 16_000
"""Pictures of more pixels a side or more bytes are re-encoded: a page of many must stay a page."""


@dataclass(frozen=True)
class Picture:
    """One inlined image."""

    src: str
    alt: str
    caption: str
    title: str


@dataclass(frozen=True)
class Strip:
    """One method's pictures of an identity, in prompt order.

    Attributes:
        note: what the method says of the identity; empty if nothing.
        kinds, prompts: of each picture, the kind of its prompt and the prompt's number in the page's data.
    """

    label: str
    series: int
    scores: list[str]
    note: str
    kinds: list[str]
    prompts: list[int]
    pictures: list[Picture]


@dataclass(frozen=True)
class Person:
    """One identity's block.

    Attributes:
        number: in the page's data.
        note: why it is shown, when not all are.
    """

    name: str
    number: int
    note: str
    inputs: list[Picture]
    strips: list[Strip]


def inline(data: bytes) -> str:
    """A data URI; small images keep their bytes, others become JPEGs of at most :data:`_SIDE` pixels."""
    with Image.open(io.BytesIO(data)) as image:
        kind = (image.format or "").lower()
        if max(image.size) > _SIDE or len(data) > _BYTES:
            image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
            out = io.BytesIO()
            image.convert("RGB").save(out, "JPEG", quality=85, optimize=True)
            data, kind = out.getvalue(), "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def people(entries: Sequence[Entry], shards: Shards, grid: Grid, most: int) -> tuple[str, list[Person]]:
    """(title of the score that ranks them, blocks), ranked by the first method."""
    column, means = ranking(entries[0])
    chosen = choose(means, most, entries[0].pictured)
    blocks = [_person(name, note, entries, shards, grid) for name, note in chosen]
    return entries[0].scores[column]["title"], blocks


def _person(name: str, note: str, entries: Sequence[Entry], shards: Shards, grid: Grid) -> Person:
    having = [(entry, entry.rows[entry.rows["identity"] == name]) for entry in entries if name in entry.pictured]
    keys = photos_of(name, entries)
    inputs = [
        Picture(inline(data), f"photo of {name} that was learned from", "input", key)
        for key, data in zip(keys, shards.photos(keys), strict=True)
    ]
    numbers = {prompt: number for number, prompt in enumerate(grid.prompts["prompt"])}
    strips = [_strip(entry, name, rows, numbers) for entry, rows in having]
    return Person(name, grid.identities.index(name), note, inputs, strips)


def _strip(entry: Entry, name: str, rows: pd.DataFrame, numbers: Mapping[str, int]) -> Strip:
    first = entry.first[entry.first["identity"] == name]
    pictures = [
        Picture(inline(picture), f"{entry.label}: {words.prompt(text)}", words.spaced(prompt), words.prompt(text))
        for picture, prompt, text in zip(entry.pictures(first), first["prompt"], first["prompt_text"], strict=True)
    ]
    means = {
        column: rows[f"{SCORE}{column}"].astype(float).mean()
        for column in entry.scores
        if not column.endswith("_heldout")
    }
    scores = [f"{entry.scores[c]['title']} {words.number(None if v != v else float(v), 2)}" for c, v in means.items()]
    prompts = [numbers[prompt] for prompt in first["prompt"]]
    return Strip(entry.label, entry.series, scores, _near(rows), first["kind"].to_list(), prompts, pictures)


def _near(rows: pd.DataFrame) -> str:
    """The words nearest to what the method learned, where it names any."""
    known = rows["near"].dropna().to_list() if "near" in rows else []
    return f"S* is near: {known[0]}" if known else ""


def cover(person: Person, most: int = 5) -> list[Picture]:
    """What one person looks like at a glance: the photo, and one picture of each kind of prompt, then others."""
    strip = person.strips[0]
    order = sorted(range(len(strip.kinds)), key=lambda i: (strip.kinds[:i].count(strip.kinds[i]), i))
    return person.inputs[:1] + [strip.pictures[i] for i in sorted(order[:most])]
