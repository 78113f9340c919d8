"""Contact sheets: a shard's pictures in a grid, the outline of each mask drawn over its picture."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from e4t_core.schema import Sample, image_member
from pipelines.loader import ShardDataset

ACROSS, MOST = 8, 64
"""Pictures in a row, and on a sheet."""
_CELL, _GAP = 96, 3
_OUTLINE, _EDGE = (255, 64, 129), (255, 255, 255)


@dataclass(frozen=True)
class Sheet:
    """One shard's.

    Attributes:
        shard: its number.
        samples: good ones in it; ``shown`` of them are on the sheet.
        image: RGBA, transparent between the pictures.
    """

    shard: int
    samples: int
    shown: int
    image: Image.Image

    def png(self) -> bytes:
        """Every pixel as it is."""
        out = io.BytesIO()
        self.image.save(out, "PNG")
        return out.getvalue()

    def webp(self) -> bytes:
        """Small enough to stand in a page."""
        out = io.BytesIO()
        self.image.save(out, "WEBP", quality=82)
        return out.getvalue()


def drawn(dataset: ShardDataset, most: int) -> list[int]:
    """The shards that get a sheet: all that have good samples if they are few, else ``most`` of them, evenly spread.
    None without the column ``ingest``."""
    shards = list(dataset.shard_rows()) if "ingest" in dataset.columns else []
    return [shards[i] for i in spread(len(shards), most)]


def spread(count: int, most: int) -> list[int]:
    """At most ``most`` of ``range(count)``, evenly spread; always the same ones."""
    return sorted({int(i) for i in np.linspace(0, count - 1, min(count, most)).round()})


def sheets(dataset: ShardDataset, shards: Sequence[int]) -> Iterator[Sheet]:
    """One at a time."""
    rows_of = dataset.shard_rows()
    columns = [name for name in ("ingest", "mask") if name in dataset.columns]
    for shard in shards:
        rows = rows_of[shard]
        chosen = dataset.samples([rows[i] for i in spread(len(rows), MOST)], columns)
        yield Sheet(shard, len(rows), len(chosen), _grid([_cell(sample) for sample in chosen]))


def _grid(cells: Sequence[Image.Image]) -> Image.Image:
    pitch = _CELL + _GAP
    width, height = min(len(cells), ACROSS), math.ceil(len(cells) / ACROSS)
    canvas = Image.new("RGBA", (width * pitch - _GAP, height * pitch - _GAP))
    for i, cell in enumerate(cells):
        canvas.paste(cell, (i % ACROSS * pitch, i // ACROSS * pitch))
    return canvas


def _cell(sample: Sample) -> Image.Image:
    with Image.open(io.BytesIO(sample[image_member(sample)])) as image:
        cell = image.convert("RGB").resize((_CELL, _CELL), Image.Resampling.LANCZOS)
    if "mask.png" in sample:
        with Image.open(io.BytesIO(sample["mask.png"])) as mask:
            _outline(cell, mask.convert("L"))
    return cell


def _outline(cell: Image.Image, mask: Image.Image) -> None:
    """Two lines along the mask's border, so that one of them shows on any ground; none along the picture's own."""
    inside = mask.resize(cell.size, Image.Resampling.BILINEAR).point(lambda level: 255 if level >= 128 else 0)
    grown, shrunk = inside.filter(ImageFilter.MaxFilter(3)), inside.filter(ImageFilter.MinFilter(3))
    for outer, inner, colour in ((grown, inside, _EDGE), (inside, shrunk, _OUTLINE)):
        line = Image.fromarray(np.asarray(outer) - np.asarray(inner))
        cell.paste(colour, (0, 0), line)
