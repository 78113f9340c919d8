"""Scores and places of pictures as arrays over identities and prompts: what the page's browser works on."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from jobs._report.inputs import Entry
from jobs._report.ranking import ranking
from jobs._scores import SCORE

ABSENT = -1
"""In place of a picture's row: nothing was drawn."""
NOTHING, UNSCORED, _TOP = 65535, 65534, 65533
"""Codes of a score in the page: nothing drawn, drawn but without a score, the highest score of the column."""


@dataclass(frozen=True)
class Grid:
    """What was scored.

    Attributes:
        identities: I of them, in the order of the first entry's ranking, then those that it lacks.
        prompts: P of them, columns ``prompt``, ``prompt_text`` and ``kind``.
        scores: S score columns -> title and direction, as ``evaluation.json`` has them.
        ranked_by: the score column that ranks.
        values: per entry the mean over a prompt's images, (I, P, S); NaN where nothing could be scored.
        pictures: per entry the row of a prompt's first image in the images' table, (I, P); :data:`ABSENT` where there
            is none, :data:`~jobs._report.inputs.DROPPED` where it was not kept.
    """

    identities: list[str]
    prompts: pd.DataFrame
    scores: dict[str, dict[str, Any]]
    ranked_by: str
    values: list[np.ndarray]
    pictures: list[np.ndarray]

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> Grid:
        """Over all identities and prompts that any entry has."""
        ranked_by, means = ranking(entries[0])
        ranked = [str(name) for name in means.index]
        others = {str(name) for entry in entries[1:] for name in entry.rows["identity"].unique()}
        identities = [*ranked, *sorted(others.difference(ranked))]
        prompts = pd.concat([e.rows[["prompt", "prompt_text", "kind"]] for e in entries]).drop_duplicates("prompt")
        scores = {column: score for entry in reversed(entries) for column, score in entry.scores.items()}
        axes = pd.Index(identities), pd.Index(prompts["prompt"])
        return cls(
            identities,
            prompts.reset_index(drop=True),
            scores,
            ranked_by,
            [_values(entry, *axes, list(scores)) for entry in entries],
            [_pictures(entry, *axes) for entry in entries],
        )

    def pictured(self) -> list[int]:
        """Identities, by number, that any entry has pictures of."""
        kept_I = np.any([(rows_IP >= 0).any(1) for rows_IP in self.pictures], axis=0)
        return [int(n) for n in np.flatnonzero(kept_I)]

    def packed(self) -> tuple[list[dict[str, Any]], list[str]]:
        """The scores as the page holds them: each column's title, direction and range, and per entry base64 of
        little-endian 16-bit codes (I, P, S), where 0 is the lowest and 65533 the highest score of the column."""
        columns, ranges = [], []
        for at, score in enumerate(self.scores.values()):
            known = np.concatenate([v[:, :, at][np.isfinite(v[:, :, at])] for v in self.values])
            low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
            columns.append({"title": score["title"], "up": score["higher_is_better"], "low": low, "high": high})
            ranges.append((low, (high - low) or 1.0))
        low_S, span_S = np.array(ranges).T
        return columns, [_coded(v, rows, low_S, span_S) for v, rows in zip(self.values, self.pictures, strict=True)]


def _values(entry: Entry, identities: pd.Index, prompts: pd.Index, columns: Sequence[str]) -> np.ndarray:
    shape = len(identities), len(prompts)
    cell = np.ravel_multi_index(_at(entry.rows, identities, prompts), shape)
    out = np.full((*shape, len(columns)), np.nan, np.float32)
    for at, column in enumerate(columns):
        if column not in entry.scores:
            continue
        scores = entry.rows[f"{SCORE}{column}"].to_numpy(np.float64, na_value=np.nan)
        known = np.isfinite(scores)
        total = np.bincount(cell[known], scores[known], shape[0] * shape[1])
        count = np.bincount(cell[known], minlength=shape[0] * shape[1])
        out[:, :, at] = np.where(count, total / np.maximum(count, 1), np.nan).reshape(shape)
    return out


def _pictures(entry: Entry, identities: pd.Index, prompts: pd.Index) -> np.ndarray:
    out = np.full((len(identities), len(prompts)), ABSENT, np.int64)
    out[_at(entry.first, identities, prompts)] = entry.places(entry.first)
    return out


def _at(rows: pd.DataFrame, identities: pd.Index, prompts: pd.Index) -> tuple[np.ndarray, np.ndarray]:
    return identities.get_indexer(pd.Index(rows["identity"])), prompts.get_indexer(pd.Index(rows["prompt"]))


def _coded(values_IPS: np.ndarray, pictures_IP: np.ndarray, low_S: np.ndarray, span_S: np.ndarray) -> str:
    codes = np.round((values_IPS - low_S) / span_S * _TOP)
    codes = np.where(np.isfinite(codes), codes, UNSCORED)
    codes[pictures_IP == ABSENT] = NOTHING
    return base64.b64encode(codes.astype("<u2").tobytes()).decode()
