"""How good a column is: told from the figures that its commits keep of each sample, no tar is opened."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np

from e4t_core.storage import Store
from pipelines.shards.commit import Commit, all_committed
from pipelines.shards.manifest import Manifest

_LOW, _HIGH = 0.1, 0.9


class Quality:
    """Gathers the figures of one column's commits, which are given one at a time."""

    def __init__(self) -> None:
        self._values: defaultdict[str, list[float]] = defaultdict(list)
        self._failed = Counter[str]()
        self._samples = self._tried = self._improved = 0

    def add(self, commit: Commit) -> None:
        """Count one shard."""
        self._samples += len(commit.facts)
        self._tried += commit.ref.n_ok + commit.ref.n_bad
        self._failed.update(q.reason for q in commit.quarantined)
        for figures in commit.facts.values():
            for name, value in figures.items():
                self._values[name].append(value)
            # a sample without a loss afterwards is none that improved
            self._improved += figures.get("loss_after", np.inf) < figures.get("loss_before", -np.inf)

    def summary(self) -> dict[str, Any] | None:
        """None of a column that keeps no figures, else as JSON values:

        ``samples`` that have figures; ``figures``: name -> ``low``, ``median`` and ``high`` (a tenth of the samples
        lies below ``low``, a tenth above ``high``); ``improved``: how many of all ``tried`` samples end with a lower
        loss than they begin with (None where losses are not among the figures); ``failed``: reason -> samples.
        """
        if not self._values:
            return None
        return {
            "samples": self._samples,
            "tried": self._tried,
            "figures": {name: _spread(self._values[name]) for name in sorted(self._values)},
            "improved": self._improved if "loss_before" in self._values else None,
            "failed": dict(sorted(self._failed.items())),
        }


def quality(store: Store, manifest: Manifest, stage: str) -> dict[str, Any] | None:
    """:meth:`Quality.summary` of a version's column.

    Raises:
        DataError: a commit is gone.
    """
    found = Quality()
    for commit in all_committed(store, stage, manifest.refs(stage)):
        found.add(commit)
    return found.summary()


def sentence(found: dict[str, Any]) -> str:
    """``250 of 256 improved (97.7%), median loss 0.3120 -> 0.1250; failed: 1 diverged, 5 not_improved``."""
    text = f"{found['samples']} of {found['tried']} have figures"
    if found["improved"] is not None:
        text = f"{found['improved']} of {found['tried']} improved ({found['improved'] / found['tried']:.1%})"
    before, after = (found["figures"].get(name) for name in ("loss_before", "loss_after"))
    if before and after:
        text += f", median loss {before['median']:.4f} -> {after['median']:.4f}"
    failed = ", ".join(f"{n} {reason}" for reason, n in found["failed"].items())
    return f"{text}; failed: {failed}" if failed else text


def _spread(values: list[float]) -> dict[str, float]:
    low, median, high = np.quantile(values, (_LOW, 0.5, _HIGH)).tolist()
    return {"low": low, "median": median, "high": high}
