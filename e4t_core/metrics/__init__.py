"""Evaluation metrics, one file each, under the papers' names."""

from e4t_core.metrics.base import BaseMetric, Metric, MetricConfig, SetMetric, SetMetricConfig, SetScore
from e4t_core.registry import Registry

METRICS: Registry[BaseMetric] = Registry("metric", "e4t_core.metrics", BaseMetric)

__all__ = ["METRICS", "BaseMetric", "Metric", "MetricConfig", "SetMetric", "SetMetricConfig", "SetScore"]
