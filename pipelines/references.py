"""For every drawn sample another one of its identity (Taming Encoder section 3.4, cross-reference regularization).

Which one is computed from (seed, position in the order, row) alone, so it is the same for any number of ranks and
threads, and a run resumes with the exact pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from e4t_core.schema import decode_array

if TYPE_CHECKING:
    from pipelines.loader import ShardDataset

_STREAM = 0x5EF
"""Keeps the draws apart from those of the order, which the same seed makes."""
_ROWS_AT_ONCE = 4096


class Partners:
    """Row -> another row of its identity; itself if there is none.

    Args:
        dataset: where rows are.
        seed: of the draws.
        nearest: samples without identity label take the one of them with the nearest face embedding (column
            ``identity``) whose cosine is at least this; None leaves them to themselves.

    Raises:
        UsageError: ``nearest`` is given and there is no column ``identity``.
    """

    def __init__(self, dataset: ShardDataset, seed: int, nearest: float | None = None) -> None:
        self.seed = seed
        self._of = dataset.table["identity"].to_pylist()
        self._groups = dataset.identities()
        unlabelled = [row for row, identity in enumerate(self._of) if identity is None]
        self._near = _Nearest(dataset, unlabelled, nearest) if nearest is not None else None

    def __call__(self, at: int, row: int) -> int:
        """The partner of ``row``, which is drawn at position ``at``."""
        identity = self._of[row]
        if identity is None:
            return self._near(row) if self._near else row
        group = self._groups[identity]
        if len(group) == 1:
            return row
        others = [other for other in group if other != row]
        draws = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, at, _STREAM])))
        return others[int(draws.integers(len(others)))]


class _Nearest:
    """Nearest neighbours among some rows, by cosine of face embeddings, which have unit length."""

    def __init__(self, dataset: ShardDataset, rows: Sequence[int], least: float) -> None:
        dataset.check_columns(["identity"])
        self._rows, self._least = np.array(rows, np.int64), least
        self._place = {row: place for place, row in enumerate(rows)}
        self._faces_NE = _faces(dataset, rows)

    def __call__(self, row: int) -> int:
        place = self._place[row]
        cosines = self._faces_NE @ self._faces_NE[place]
        cosines[place] = -np.inf
        best = int(cosines.argmax())
        return int(self._rows[best]) if cosines[best] >= self._least else row


def _faces(dataset: ShardDataset, rows: Sequence[int]) -> NDArray[np.float32]:
    found = []
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        samples = dataset.samples(rows[start : start + _ROWS_AT_ONCE], ["identity"])
        found += [decode_array(s["identity.npy"], f"identity.npy of '{s['__id__']}'") for s in samples]
    return np.stack(found).astype(np.float32) if found else np.zeros((0, 1), np.float32)
