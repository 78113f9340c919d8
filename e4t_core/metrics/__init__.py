"""Evaluation metrics, one file each, under the papers' names, and the statistics over their scores."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from e4t_core.metrics.base import BaseMetric, Metric, MetricConfig, SetMetric, SetMetricConfig, SetScore
from e4t_core.registry import Registry

if TYPE_CHECKING:
    from e4t_core.metrics._statistics import Interval, bootstrap_difference, bootstrap_mean, per_identity

METRICS: Registry[BaseMetric] = Registry("metric", "e4t_core.metrics", BaseMetric)
_STATISTICS = ("Interval", "bootstrap_difference", "bootstrap_mean", "per_identity")
"""They need scipy, and a command that only reads a recipe should not wait for it."""


def __getattr__(name: str) -> Any:
    if name in _STATISTICS:
        return getattr(importlib.import_module("e4t_core.metrics._statistics"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


__all__ = [
    "METRICS",
    "BaseMetric",
    "Interval",
    "Metric",
    "MetricConfig",
    "SetMetric",
    "SetMetricConfig",
    "SetScore",
    "bootstrap_difference",
    "bootstrap_mean",
    "per_identity",
]
