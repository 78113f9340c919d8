"""Pictures in the page: which identities are shown, and how their images are inlined."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from PIL import Image

from jobs._report import words
from jobs._report.inputs import Entry, Shards
from jobs._scores import SCORE

_SIDE, _BYTES = 224, 16_000
"""Pictures of more pixels a side or more bytes are re-encoded: a page of many must stay a page."""
_RANKED_BY = ("identity", "clip_i", "clip_t")


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
    """

    label: str
    series: int
    scores: list[str]
    note: str
    kinds: list[str]
    pictures: list[Picture]


@dataclass(frozen=True)
class Person:
    """One identity's block.

    Attributes:
        note: why it is shown, when not all are.
    """

    name: str
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


def ranking(entry: Entry) -> tuple[str, pd.Series]:
    """(score column, identity -> its mean, best first); identities that could not be scored come last."""
    column = next((c for c in _RANKED_BY if c in entry.scores), next(iter(entry.scores)))
    means = entry.rows.groupby("identity")[f"{SCORE}{column}"].mean()
    return column, means.sort_values(ascending=False, kind="stable", na_position="last")


def choose(means: pd.Series, most: int) -> list[tuple[str, str]]:
    """(identity, note): all if there are few, else the best and the worst."""
    names = [str(name) for name in means.index]
    if len(names) <= most:
        return [(name, "") for name in names]
    best, worst = (most + 1) // 2, most // 2
    top = [(name, f"no. {rank} of {len(names)}") for rank, name in enumerate(names[:best], 1)]
    first = len(names) - worst
    return top + [(name, f"no. {first + rank} of {len(names)}") for rank, name in enumerate(names[first:], 1)]


def people(entries: Sequence[Entry], shards: Shards, most: int) -> tuple[str, list[Person]]:
    """(title of the score that ranks them, blocks), ranked by the first method."""
    column, means = ranking(entries[0])
    chosen = choose(means, most)
    return entries[0].scores[column]["title"], [_person(name, note, entries, shards) for name, note in chosen]


def _person(name: str, note: str, entries: Sequence[Entry], shards: Shards) -> Person:
    having = [(entry, rows) for entry in entries if len(rows := entry.rows[entry.rows["identity"] == name])]
    keys = list(dict.fromkeys(key for _, rows in having for key in rows["input_key"]))
    inputs = [
        Picture(inline(data), f"photo of {name} that was learned from", "input", key)
        for key, data in zip(keys, shards.photos(keys), strict=True)
    ]
    return Person(name, note, inputs, [_strip(entry, name, rows) for entry, rows in having])


def _strip(entry: Entry, name: str, rows: pd.DataFrame) -> Strip:
    first = rows.sort_values("index", kind="stable").drop_duplicates("prompt")
    first = first.sort_index()
    facts = list(zip(first["prompt"], first["prompt_text"], first["index"], strict=True))
    data = entry.pictures([(name, prompt, int(index)) for prompt, _, index in facts])
    pictures = [
        Picture(inline(picture), f"{entry.label}: {text}", prompt.replace("_", " "), text)
        for picture, (prompt, text, _) in zip(data, facts, strict=True)
    ]
    means = {
        column: rows[f"{SCORE}{column}"].astype(float).mean()
        for column in entry.scores
        if not column.endswith("_heldout")
    }
    scores = [f"{entry.scores[c]['title']} {words.number(None if v != v else float(v), 2)}" for c, v in means.items()]
    return Strip(entry.label, entry.series, scores, _near(rows), first["kind"].to_list(), pictures)


def _near(rows: pd.DataFrame) -> str:
    """The words nearest to what the method learned, where it names any."""
    known = rows["near"].dropna().to_list() if "near" in rows else []
    return f"S* is near: {known[0]}" if known else ""


def cover(person: Person, most: int = 5) -> list[Picture]:
    """What one person looks like at a glance: the photo, and one picture of each kind of prompt, then others."""
    strip = person.strips[0]
    order = sorted(range(len(strip.kinds)), key=lambda i: (strip.kinds[:i].count(strip.kinds[i]), i))
    return person.inputs[:1] + [strip.pictures[i] for i in sorted(order[:most])]
