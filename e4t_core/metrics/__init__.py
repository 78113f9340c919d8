"""Evaluation metrics, one file each, under the papers' names."""

from e4t_core.metrics.base import Metric, MetricConfig
from e4t_core.registry import Registry

METRICS: Registry[Metric] = Registry("metric", "e4t_core.metrics", Metric)

__all__ = ["METRICS", "Metric", "MetricConfig"]
