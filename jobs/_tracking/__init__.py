"""MLflow, thinly: run handles that drivers and Ray workers log to, and a spool for when no server answers.

Everything goes through :class:`mlflow.MlflowClient` with a run id; the fluent API keeps its active run in
process-wide state, which Ray workers do not share.
"""

from jobs._tracking.places import Away, TrackingError
from jobs._tracking.runs import PARENT_TAG, Run, Tracker, flatten

__all__ = ["PARENT_TAG", "Away", "Run", "Tracker", "TrackingError", "flatten"]
