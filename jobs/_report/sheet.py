"""The gallery as one picture: a row per identity and method, the photo first, then a column per prompt."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from jobs._report.inputs import Entry, Shards
from jobs._report.ranking import choose, ranking

_CELL, _GAP, _HEAD = 96, 4, 22
"""Pixels: a picture, the space between two, the line of headings."""
_INK, _PAPER = (40, 40, 48), (255, 255, 255)


def sheet(entries: Sequence[Entry], shards: Shards, most: int) -> bytes:
    """A PNG of at most ``most`` identities, best and worst of the first method if there are more."""
    names = [name for name, _ in choose(ranking(entries[0])[1], most, entries[0].pictured)]
    prompts = list(dict.fromkeys(prompt for entry in entries for prompt in entry.rows["prompt"]))
    rows = [(entry, name) for name in names for entry in entries if name in entry.pictured]
    font = ImageFont.load_default(size=13)
    left = math.ceil(max(font.getlength(entry.label) for entry in entries)) + 2 * _GAP if len(entries) > 1 else 0
    canvas = Image.new("RGB", (left + (len(prompts) + 1) * (_CELL + _GAP), _HEAD + len(rows) * (_CELL + _GAP)), _PAPER)
    draw = ImageDraw.Draw(canvas)
    for column, text in enumerate(["photo given", *(p.replace("_", " ") for p in prompts)]):
        draw.text((left + column * (_CELL + _GAP) + _CELL / 2, _HEAD / 2), text, _INK, font, anchor="mm")
    for number, (entry, name) in enumerate(rows):
        y = _HEAD + number * (_CELL + _GAP)
        if left:
            draw.text((_GAP, y + _CELL / 2), entry.label, _INK, font, anchor="lm")
        for column, data in enumerate(_pictures(entry, name, prompts, shards)):
            if data is not None:
                canvas.paste(_cell(data), (left + column * (_CELL + _GAP), y))
    out = io.BytesIO()
    canvas.save(out, "PNG", optimize=True)
    return out.getvalue()


def _pictures(entry: Entry, name: str, prompts: Sequence[str], shards: Shards) -> list[bytes | None]:
    """The photo, then the first picture of each prompt; None where there is none."""
    rows = entry.first[entry.first["identity"] == name]
    drawn = dict(zip(rows["prompt"], entry.pictures(rows), strict=True))
    photo = shards.photos([rows["input_key"].iloc[0]])[0]
    return [photo, *(drawn.get(prompt) for prompt in prompts)]


def _cell(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB").resize((_CELL, _CELL), Image.Resampling.LANCZOS)
