"""Figures out of score rows: means over identities with bootstrap intervals, and what could not be scored.

Rows pass through a unit at a time; what is kept of them is a line of sums for each (identity, kind of prompt).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from e4t_core.metrics import Metric
from e4t_core.metrics._statistics import Interval, bootstrap_mean, per_identity
from jobs._rows import LOST, SCORE, due, title
from jobs._sections import EvaluateConfig

COSTS = (
    "steps",
    "seconds_setup",
    "seconds_personalize",
    "seconds_generate",
    "peak_memory_bytes",
    "bytes_adapter",
)
"""E4T table 2 and what else a personalization costs; the same for all images of an identity but seconds_generate."""
TOTALS = ("seconds_identity", "seconds_image")
"""All that an identity took, set-up apart: learning it and drawing all of its images; and its share per image."""
_GROUP = ["method", "identity", "kind"]
Figures = dict[str, Any]


class Sums:
    """What aggregates need of the rows, however many there are.

    Args:
        scores: score -> the metric that gives it.
    """

    def __init__(self, scores: Mapping[str, Metric]) -> None:
        self.scores = scores
        self.curves: dict[str, dict[str, list[float]]] = {}
        self.prompts: dict[str, set[str]] = {}
        self.lost = Counter[tuple[str, str]]()
        self._parts: list[pd.DataFrame] = []

    def add(self, rows: pd.DataFrame) -> None:
        """Rows of some identities, each whole."""
        values = {column: rows[f"{SCORE}{column}"].astype(float) for column in self.scores}
        values |= {cost: rows[cost].astype(float) for cost in COSTS if cost in rows}
        sums: dict[str, Any] = {name: rows[name] for name in _GROUP}
        sums |= {f"{name}.sum": column.fillna(0.0) for name, column in values.items()}
        sums |= {f"{name}.count": column.notna() for name, column in values.items()}
        for column, metric in self.scores.items():
            condition = due(column, metric)
            sums[f"{column}.due"] = rows[condition] > 0 if condition in rows else True
        frame = pd.DataFrame(sums).assign(images=1)
        self._parts.append(frame.groupby(_GROUP, sort=False, as_index=False).sum())
        for method, part in rows.groupby("method", sort=False):
            self._note(str(method), part)

    def _note(self, method: str, rows: pd.DataFrame) -> None:
        self.prompts.setdefault(method, set()).update(rows["prompt"])
        self.curves.setdefault(method, {}).update(norm_curves(rows))
        first = rows.drop_duplicates("identity")
        for name in (str(column) for column in rows if str(column).startswith(LOST)):
            self.lost[method, name] += int(first[name].sum())

    def methods(self) -> Iterable[tuple[str, pd.DataFrame]]:
        """Each method's lines."""
        if self._parts:
            for name, lines in pd.concat(self._parts, ignore_index=True).groupby("method", sort=True):
                yield str(name), lines


def aggregate(
    tables: Iterable[pd.DataFrame], scores: Mapping[str, Metric], config: EvaluateConfig, seed: int
) -> list[Figures]:
    """One entry per method: counts, scores over everything and by prompt kind, costs and traces.

    Args:
        tables: score rows (see ``_rows``); all of an identity's in one table.
        scores: score -> the metric that gave it.
        seed: of the resampling.
    """
    sums = Sums(scores)
    for table in tables:
        sums.add(table)
    return summed(sums, config, seed)


def summed(sums: Sums, config: EvaluateConfig, seed: int) -> list[Figures]:
    """:func:`aggregate` of rows that have passed through ``sums``."""
    maker = _Maker(sums, config, seed)
    return [maker.method(name, lines) for name, lines in sums.methods()]


class _Maker:
    def __init__(self, sums: Sums, config: EvaluateConfig, seed: int) -> None:
        self.sums, self.config, self.seed = sums, config, seed

    def method(self, name: str, lines: pd.DataFrame) -> Figures:
        return {
            "method": name,
            "identities": lines["identity"].nunique(),
            "prompts": len(self.sums.prompts[name]),
            "images": int(lines["images"].sum()),
            "scores": {column: score | self.lost(name, column) for column, score in self.scored(lines).items()},
            "kinds": {str(kind): self.scored(part) for kind, part in lines.groupby("kind", sort=False)},
            "costs": self.costs(lines),
            "norms": norm_curve(self.sums.curves.get(name, {})),
        }

    def scored(self, lines: pd.DataFrame) -> Figures:
        return {column: self.score(lines, column, metric) for column, metric in self.sums.scores.items()}

    def score(self, lines: pd.DataFrame, column: str, metric: Metric) -> Figures:
        """``failures`` counts images that should have a score and have none; an identity without held-out images is no
        failure of the held-out score."""
        found = int(lines[f"{column}.count"].sum())
        return {
            "title": title(column, metric),
            "higher_is_better": metric.higher_is_better,
            **_figures(self.interval(_means(lines, column))),
            "images": found,
            "failures": int(lines[f"{column}.due"].sum()) - found,
        }

    def lost(self, method: str, column: str) -> Figures:
        """Real images in which the score's metric saw nothing, where that can be."""
        key = (method, f"{LOST}{self.sums.scores[column].name}")
        return {"lost": self.sums.lost[key]} if key in self.sums.lost else {}

    def costs(self, lines: pd.DataFrame) -> Figures:
        known = [cost for cost in COSTS if f"{cost}.sum" in lines]
        figures = {cost: _figures(self.interval(_means(lines, cost))) for cost in known}
        if {"seconds_personalize", "seconds_generate"} <= set(known):
            totals = _totals(lines)
            figures |= {name: _figures(self.interval(values)) for name, values in totals.items()}
        return figures

    def interval(self, values: Mapping[str, float]) -> Interval:
        return bootstrap_mean(
            values, samples=self.config.bootstrap_samples, confidence=self.config.confidence, seed=self.seed
        )


def _means(lines: pd.DataFrame, column: str) -> dict[str, float]:
    """Identity -> mean over its images that have a value; without those that have none."""
    sums = lines.groupby("identity", sort=True)[[f"{column}.sum", f"{column}.count"]].sum()
    sums = sums[sums[f"{column}.count"] > 0]
    means = sums[f"{column}.sum"] / sums[f"{column}.count"]
    return {str(identity): float(mean) for identity, mean in means.items()}


def _totals(lines: pd.DataFrame) -> dict[str, dict[str, float]]:
    """:data:`TOTALS` -> identity -> seconds; without identities of which a part is not known."""
    sums = lines.groupby("identity", sort=True)[["images", "seconds_generate.sum", "seconds_generate.count"]].sum()
    sums = sums[sums["seconds_generate.count"] == sums["images"]]
    learned = _means(lines, "seconds_personalize")
    drawn = {str(who): float(seconds) for who, seconds in sums["seconds_generate.sum"].items() if str(who) in learned}
    images = {str(who): float(count) for who, count in sums["images"].items()}
    whole = {who: learned[who] + seconds for who, seconds in drawn.items()}
    return {"seconds_identity": whole, "seconds_image": {who: total / images[who] for who, total in whole.items()}}


def identity_means(rows: pd.DataFrame, column: str) -> dict[str, float]:
    """Identity -> mean of one score, of those that have one."""
    return per_identity(zip(rows["identity"], rows[f"{SCORE}{column}"].astype(float), strict=True))


def norm_curve(curves: Mapping[str, Sequence[float]]) -> Figures | None:
    """Median and quartiles over identities of the predicted embedding's norm at each denoising step (E4T fig. 7)."""
    if not curves:
        return None
    steps = max(len(c) for c in curves.values())
    stacked = np.array([c for c in curves.values() if len(c) == steps])
    low, median, high = np.quantile(stacked, [0.25, 0.5, 0.75], axis=0)
    return {"identities": len(stacked), "median": median.tolist(), "low": low.tolist(), "high": high.tolist()}


def norm_curves(rows: pd.DataFrame) -> dict[str, list[float]]:
    """Identity -> norm per denoising step; empty for methods that record none."""
    if "embedding_norm_json" not in rows:
        return {}
    first = rows.dropna(subset=["embedding_norm_json"]).groupby("identity", sort=True)["embedding_norm_json"].first()
    curves = {str(identity): json.loads(text) for identity, text in first.items()}
    return {identity: curve for identity, curve in curves.items() if curve}


def metrics(figures: Figures) -> dict[str, float]:
    """A method's figures as flat MLflow metrics: ``clip_t``, ``clip_t.low``, ``style/clip_t``, ``cost/steps``..."""
    out = {"images": float(figures["images"]), "identities": float(figures["identities"])}
    for column, score in figures["scores"].items():
        out |= {column: score["mean"], f"{column}.low": score["low"], f"{column}.high": score["high"]}
        out[f"{column}.failures"] = float(score["failures"])
    for kind, scores in figures["kinds"].items():
        for column, score in scores.items():
            out |= {
                f"{kind}/{column}{end}": score[key] for end, key in (("", "mean"), (".low", "low"), (".high", "high"))
            }
    for cost, score in figures["costs"].items():
        out |= {f"cost/{cost}": score["mean"], f"cost/{cost}.low": score["low"], f"cost/{cost}.high": score["high"]}
    for name, found in figures.get("sets", {}).items():
        out |= {name: found["mean"], f"{name}.std": found["std"], f"{name}.failures": float(found["failures"])}
    return {name: value for name, value in out.items() if value is not None}


def text_table(methods: Sequence[Figures]) -> list[str]:
    """The scores as lines for a terminal."""
    titles = [score["title"] for score in methods[0]["scores"].values()]
    width = max(len("method"), *(len(m["method"]) for m in methods))
    lines = [" ".join([f"{'method':<{width}}", *(f"{t:>24}" for t in titles)])]
    for method in methods:
        cells = [with_interval(score) for score in method["scores"].values()]
        lines.append(" ".join([f"{method['method']:<{width}}", *(f"{cell:>24}" for cell in cells)]))
    for method in methods:
        lines += [
            f"{method['method']:<{width}} {f['title']}: {with_spread(f)}" for f in method.get("sets", {}).values()
        ]
    return lines


def with_spread(found: Figures) -> str:
    """``0.0123 ± 0.0004``, or why there is none."""
    return found["note"] if found["mean"] is None else f"{found['mean']:.4f} ± {found['std']:.4f}"


def with_interval(score: Figures) -> str:
    """``0.123 [0.100, 0.140]``."""
    if score["mean"] is None:
        return "not scored"
    mean = f"{score['mean']:.3f}"
    return mean if score["low"] is None else f"{mean} [{score['low']:.3f}, {score['high']:.3f}]"


def _figures(interval: Interval) -> Figures:
    return {
        "mean": _finite(interval.mean),
        "low": _finite(interval.low),
        "high": _finite(interval.high),
        "identities": interval.identities,
    }


def _finite(value: float) -> float | None:
    """JSON has no NaN: what is unknown is null."""
    return value if math.isfinite(value) else None
