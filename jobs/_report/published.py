"""What the papers report, to be read beside ours: their models, data and face network are others, so a level says
little and a difference between rows says something."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs._report import words


@dataclass(frozen=True)
class Table:
    """One published table.

    Attributes:
        title: where it stands.
        methods: our methods that it is shown with.
        rows: label -> metric (our score columns) -> value.
    """

    title: str
    methods: tuple[str, ...]
    rows: Mapping[str, Mapping[str, float]]


def _rows(columns: Sequence[str], **rows: Sequence[float]) -> dict[str, dict[str, float]]:
    return {
        name.replace("_", " "): dict(zip(columns, values, strict=False))  # a paper may leave the last ones out
        for name, values in rows.items()
    }


_SUBJECTS = ("identity", "dino", "clip_i", "clip_t")
TABLES = (
    Table(
        "HyperDreamBooth, table 1",
        ("hyperdreambooth", "dreambooth", "textual_inversion"),
        _rows(
            _SUBJECTS,
            HyperDreamBooth=(0.655, 0.473, 0.577, 0.286),
            DreamBooth=(0.618, 0.441, 0.546, 0.282),
            Textual_Inversion=(0.623, 0.289, 0.472, 0.277),
        ),
    ),
    Table(
        "HyperDreamBooth, table 2 (DreamBooth in fewer iterations at a higher rate; CLIP-T left out)",
        ("hyperdreambooth", "dreambooth"),
        _rows(
            _SUBJECTS,
            DreamBooth_Agg_1_400_iterations=(0.615, 0.323, 0.431),
            DreamBooth_Agg_2_40_iterations=(0.616, 0.360, 0.467),
        ),
    ),
    Table(
        "HyperDreamBooth, table 3",
        ("hyperdreambooth",),
        _rows(
            _SUBJECTS,
            full=(0.655, 0.473, 0.577, 0.286),
            no_hyper=(0.647, 0.392, 0.498),
            only_hyper=(0.631, 0.414, 0.501),
            k_1=(0.648, 0.464, 0.570),
        ),
    ),
    Table(
        "Taming Encoder, table 1 (OSim, TSim, KID)",
        ("taming_encoder", "dreambooth", "textual_inversion"),
        _rows(
            ("clip_i", "clip_t", "kid"),
            Textual_Inversion_1_image=(0.23, 0.18, 20.34),
            Textual_Inversion_5_images=(0.31, 0.20, 17.31),
            DreamBooth_1_image=(0.33, 0.28, 24.57),
            DreamBooth_5_images=(0.34, 0.31, 16.89),
            InstructPix2Pix=(0.37, 0.36, 15.08),
            Taming_Encoder=(0.46, 0.35, 13.23),
        ),
    ),
)


STATEMENTS = {
    "domain_agnostic": "The domain-agnostic paper gives its ablation (figure 5b) in words: without tuning, object "
    "similarity drops by 20 %; without the dual path in tuning, alignment with the prompt drops by nearly 30 %. Tuning "
    "took roughly 70 GB as E4T does it, and fewer than 30 GB their way.",
}
"""What a paper says of a method in its text alone."""
_TITLES = {"identity": "face rec.", "dino": "DINO", "clip_i": "CLIP-I", "clip_t": "CLIP-T", "kid": "KID"}


def told(methods: Iterable[str]) -> list[str]:
    """Statements that belong to these methods."""
    ours = set(methods)
    return [text for method, text in STATEMENTS.items() if method in ours]


def beside(methods: Iterable[str], columns: Sequence[str]) -> list[dict[str, Any]]:
    """Tables that belong to these methods, with a cell for each of our score columns. What we have no column for is
    in a row's ``more``."""
    ours = set(methods)
    return [
        {"title": table.title, "rows": [_row(label, row, columns) for label, row in table.rows.items()]}
        for table in TABLES
        if ours.intersection(table.methods)
    ]


def _row(label: str, row: Mapping[str, float], columns: Sequence[str]) -> dict[str, Any]:
    more = [f"{_TITLES[metric]} {words.number(value)}" for metric, value in row.items() if metric not in columns]
    return {"label": label, "more": ", ".join(more), "cells": [words.number(row.get(c)) for c in columns]}
