"""Which identities are best and worst."""

from __future__ import annotations

import pandas as pd

from jobs._report.inputs import Entry
from jobs._scores import SCORE

_RANKED_BY = ("identity", "clip_i", "clip_t")


def ranking(entry: Entry) -> tuple[str, pd.Series]:
    """(score column, identity -> its mean, best first); identities that could not be scored come last."""
    column = next((c for c in _RANKED_BY if c in entry.scores), next(iter(entry.scores)))
    means = entry.rows.groupby("identity")[f"{SCORE}{column}"].mean()
    lowest_first = not entry.scores[column]["higher_is_better"]
    return column, means.sort_values(ascending=lowest_first, kind="stable", na_position="last")


def choose(means: pd.Series, most: int) -> list[tuple[str, str]]:
    """(identity, note): all if there are few, else the best and the worst."""
    names = [str(name) for name in means.index]
    if len(names) <= most:
        return [(name, "") for name in names]
    best, worst = (most + 1) // 2, most // 2
    top = [(name, f"no. {rank} of {len(names)}") for rank, name in enumerate(names[:best], 1)]
    first = len(names) - worst
    return top + [(name, f"no. {first + rank} of {len(names)}") for rank, name in enumerate(names[first:], 1)]
