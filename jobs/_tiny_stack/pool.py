"""The drawn pictures as training reads them: batches that are a function of a generator alone."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from e4t_core.record import fingerprint
from jobs._tiny_stack.config import DomainConfig, PicturesConfig
from jobs._tiny_stack.pictures import ABOUT, LABELS, PIXELS
from jobs._tiny_stack.words import Label

Rows = NDArray[np.int64]


class Pool:
    """Pictures and labels in ``folder``, by row.

    Attributes:
        labels: of every picture.
        domains: rows of each domain.
    """

    def __init__(self, folder: Path, config: PicturesConfig) -> None:
        self._pixels = np.load(folder / PIXELS, mmap_mode="r")
        known = {name: d for name, d in config.domains.items() if d is not None}
        self.labels = [label_of(row, known) for row in pq.read_table(folder / LABELS).to_pylist()]
        self.fingerprint = fingerprint(json.loads((folder / ABOUT).read_text())["settings"])
        rows = defaultdict(list)
        for i, label in enumerate(self.labels):
            rows[label.domain].append(i)
        self.domains: dict[str, Rows] = {name: np.array(found) for name, found in rows.items()}
        shares = np.array([known[name].share for name in self.domains])
        self._shares = shares / shares.sum()

    def __len__(self) -> int:
        return len(self.labels)

    def draw(self, rng: np.random.Generator, count: int) -> Rows:
        """Rows of a batch: each picture's domain by its share, then any of that domain's pictures."""
        names = rng.choice(len(self.domains), size=count, p=self._shares)
        groups = list(self.domains.values())
        return np.array([groups[n][rng.integers(len(groups[n]))] for n in names])

    def images(self, rows: Rows, device: torch.device | str = "cpu") -> Tensor:
        """(B, 3, H, W) in [-1, 1], channels last."""
        pixels = torch.from_numpy(self._pixels[rows]).to(device)
        return pixels.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)

    def at(self, rows: Rows) -> list[Label]:
        """Labels of ``rows``."""
        return [self.labels[int(i)] for i in rows]

    @cached_property
    def identities(self) -> Mapping[str, Mapping[int, Rows]]:
        """Domain -> identity -> rows."""
        out: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
        for i, label in enumerate(self.labels):
            out[label.domain][label.identity].append(i)
        return {d: {n: np.array(rows) for n, rows in people.items()} for d, people in out.items()}


def label_of(row: Mapping[str, Any], domains: Mapping[str, DomainConfig]) -> Label:
    """A stored row with the class words that the recipe gives its domain."""
    words = domains[row["domain"]].class_words or (row["class"],)
    fields = {name: row[name] for name in ("domain", "identity", "style", "scene", "caption", "phrase")}
    return Label(**fields, attributes=tuple(row["attributes"]), class_words=words)


def flipped(images_BCHW: Tensor, rng: np.random.Generator) -> Tensor:
    """Half of the images mirrored."""
    chosen = torch.from_numpy(rng.random(len(images_BCHW)) < 0.5).to(images_BCHW.device)
    return torch.where(chosen[:, None, None, None], images_BCHW.flip(3), images_BCHW)


def rows_of(labels: Sequence[Label], **wanted: str) -> list[int]:
    """Positions of the labels that have all of ``wanted``."""
    return [i for i, label in enumerate(labels) if all(getattr(label, k) == v for k, v in wanted.items())]
