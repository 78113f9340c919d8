"""Figures out of score rows: means over identities with bootstrap intervals, and what could not be scored."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from e4t_core.metrics import Metric
from e4t_core.metrics._statistics import Interval, bootstrap_mean, per_identity
from jobs._scores import HELD_OUT, SCORE
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
Figures = dict[str, Any]


def aggregate(table: pd.DataFrame, scores: Mapping[str, Metric], config: EvaluateConfig, seed: int) -> list[Figures]:
    """One entry per method: counts, scores over everything and by prompt kind, costs and traces.

    Args:
        table: score rows (see ``_scores``).
        scores: score -> the metric that gave it.
        seed: of the resampling.
    """
    maker = _Maker(scores, config, seed)
    return [maker.method(str(name), rows) for name, rows in table.groupby("method", sort=True)]


class _Maker:
    def __init__(self, scores: Mapping[str, Metric], config: EvaluateConfig, seed: int) -> None:
        self.scores, self.config, self.seed = scores, config, seed

    def method(self, name: str, rows: pd.DataFrame) -> Figures:
        return {
            "method": name,
            "identities": rows["identity"].nunique(),
            "prompts": rows["prompt"].nunique(),
            "images": len(rows),
            "scores": self.scored(rows),
            "kinds": {str(kind): self.scored(part) for kind, part in rows.groupby("kind", sort=False)},
            "costs": {cost: self.cost(rows, cost) for cost in COSTS if cost in rows},
            "norms": norm_curve(rows),
        }

    def scored(self, rows: pd.DataFrame) -> Figures:
        return {column: self.score(rows, column, metric) for column, metric in self.scores.items()}

    def score(self, rows: pd.DataFrame, column: str, metric: Metric) -> Figures:
        """``failures`` counts images that should have a score and have none; an identity without held-out images
        is no failure of the held-out score."""
        due = rows[rows["heldout"] > 0] if column.endswith(HELD_OUT) else rows
        values = due[f"{SCORE}{column}"].astype(float)
        interval = self.interval(zip(due["identity"], values, strict=True))
        return {
            "title": title(column, metric),
            "higher_is_better": metric.higher_is_better,
            **_figures(interval),
            "images": int(values.notna().sum()),
            "failures": int(values.isna().sum()),
        }

    def cost(self, rows: pd.DataFrame, column: str) -> Figures:
        return _figures(self.interval(zip(rows["identity"], rows[column].astype(float), strict=True)))

    def interval(self, values: Iterable[tuple[str, float]]) -> Interval:
        return bootstrap_mean(
            per_identity(values),
            samples=self.config.bootstrap_samples,
            confidence=self.config.confidence,
            seed=self.seed,
        )


def identity_means(rows: pd.DataFrame, column: str) -> dict[str, float]:
    """Identity -> mean of one score, of those that have one."""
    return per_identity(zip(rows["identity"], rows[f"{SCORE}{column}"].astype(float), strict=True))


def title(column: str, metric: Metric) -> str:
    """What papers call the score."""
    return f"{metric.title}, held out" if column.endswith(HELD_OUT) else metric.title


def norm_curve(rows: pd.DataFrame) -> Figures | None:
    """Median and quartiles over identities of the predicted embedding's norm at each denoising step (E4T fig. 7)."""
    curves = norm_curves(rows)
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
    return {name: value for name, value in out.items() if value is not None}


def text_table(methods: Sequence[Figures]) -> list[str]:
    """The scores as lines for a terminal."""
    titles = [score["title"] for score in methods[0]["scores"].values()]
    width = max(len("method"), *(len(m["method"]) for m in methods))
    lines = [" ".join([f"{'method':<{width}}", *(f"{t:>24}" for t in titles)])]
    for method in methods:
        cells = [_cell(score) for score in method["scores"].values()]
        lines.append(" ".join([f"{method['method']:<{width}}", *(f"{cell:>24}" for cell in cells)]))
    return lines


def _cell(score: Figures) -> str:
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
