"""Which identities are best and worst."""

from __future__ import annotations

from collections.abc import Collection

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


def choose(means: pd.Series, most: int, pictured: Collection[str] | None = None) -> list[tuple[str, str]]:
    """(identity, note): all if there are few, else the best and the worst.

    Args:
        means: identity -> score, best first.
        pictured: those that may be chosen; all if None. Ranks are among all.
    """
    ranks = {str(name): rank for rank, name in enumerate(means.index, 1)}
    names = [name for name in ranks if pictured is None or name in pictured]
    if len(names) > most:
        names = [*names[: (most + 1) // 2], *names[len(names) - most // 2 :]]
    if len(names) == len(ranks):
        return [(name, "") for name in names]
    return [(name, f"no. {ranks[name]} of {len(ranks)}") for name in names]
