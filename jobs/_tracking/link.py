"""A process's way to one tracking store: events are sent, or wait in the spool, and are never logged twice."""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, Experiment, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT, MLFLOW_PARENT_RUN_ID
from mlflow.utils.validation import MAX_METRICS_PER_BATCH, MAX_PARAMS_TAGS_PER_BATCH

from jobs._lineage import shown
from jobs._tracking.events import Event, RunName
from jobs._tracking.places import (
    BRIEF,
    BRIEF_FILE,
    KEY_TAG,
    TrackingError,
    artifacts_beside,
    once,
    patience,
    reason,
    sqlite_path,
    told,
)
from jobs._tracking.spool import Spool

PAUSE_S = 30.0
"""After a failure the store is left alone for so long: a job must not wait for a dead server again and again."""
_EARLIER = ""
"""The writer of what a run had before this process came to it."""
_log = logging.getLogger(__name__)


@dataclass
class _Known:
    """A run on the store, and what of it is there already.

    Attributes:
        id: MLflow's.
        params: their names; those are never sent again, since MLflow lets none change.
        steps: of each metric that was asked for, step -> writer.
        made: created by this process, so there was nothing before.
    """

    id: str
    params: set[str]
    made: bool
    steps: dict[str, dict[int, str]] = field(default_factory=dict)


class Link:
    """Sends events to the store at ``uri``. Picklable: a copy in a worker is a writer of its own.

    Args:
        uri: tracking URI.
        spool: where events wait; None where nothing may be lost because the caller waits for the answer.
    """

    def __init__(self, uri: str, spool: Spool | None) -> None:
        self.uri, self.spool = uri, spool
        self.writer = uuid.uuid4().hex
        self.trouble: str | None = None
        self._runs: dict[str, _Known] = {}
        self._experiments: dict[str, str] = {}
        self._lock = threading.RLock()
        self._pause_until = 0.0
        self._clear = False  # a spool that an earlier process left must be looked for

    def __reduce__(self) -> tuple[type[Link], tuple[str, Spool | None]]:
        return Link, (self.uri, self.spool)

    @property
    def client(self) -> MlflowClient:
        """A client of the store (cheap: MLflow caches connections)."""
        return MlflowClient(tracking_uri=self.uri)

    # --- sending

    def send(self, event: Event, path: str | os.PathLike[str] | None = None) -> None:
        """Log ``event`` now, after all that waits; if that fails, it waits too.

        Args:
            event: what.
            path: of the local file that a ``file`` event is about; its name is the artifact's.

        Raises:
            TrackingError: the store does not serve, and there is no spool.
        """
        event = replace(event, writer=self.writer, uri=shown(self.uri))
        with self._lock:
            if self.spool is None:
                with told(self.uri):
                    return self.apply(event, path)
            if not self._sent(event, path):
                self.spool.add(event, path)
                self._clear = False

    def _sent(self, event: Event, path: str | os.PathLike[str] | None) -> bool:
        if time.monotonic() < self._pause_until:
            return False
        try:
            with patience(BRIEF_FILE if event.kind == "file" else BRIEF):
                self.drain()
                self.apply(event, path)
        except Exception as error:  # noqa: BLE001 -- artifact clients raise what they like; the event is kept, and told
            self.pause(error)
            return False
        self.trouble = None
        return True

    def pause(self, error: BaseException) -> None:
        """Note that the store failed, and leave it alone for a while."""
        self._pause_until = time.monotonic() + PAUSE_S
        if self.trouble is None:
            place = self.spool.uri if self.spool else "nowhere"
            _log.warning("what is logged for %s waits in %s (%s)", shown(self.uri), place, reason(error))
        self.trouble = reason(error)

    def drain(self) -> int:
        """Send all that waits, oldest first; returns how many events. What is sent is no longer there.

        Raises:
            Exception: whatever the store's client raises; that event and all later ones still wait.
        """
        if self._clear or self.spool is None:
            return 0
        sent = 0
        for key in self.spool.waiting():
            event = self.spool.read(key)
            if event is not None:
                with self.spool.file(key, event) as path:
                    self.apply(event, path)
                self.spool.drop(key)
                sent += 1
        self._clear = True
        return sent

    def standing(self, where: str) -> str:
        """Whether all has arrived at ``where``, or how much waits and what sends it."""
        spool = self.spool
        waiting = len(spool.waiting()) if spool else 0
        if spool is None or not waiting:
            return f"logged to {where}"
        return (
            f"{waiting} records wait for {where} ({self.trouble}); when it answers, `python -m jobs report --sync "
            f"{spool.store.uri}` sends them"
        )

    # --- runs

    def reach(self, experiment: str) -> None:
        """Make sure of an experiment.

        Raises:
            TrackingError: nothing answers, or it refuses, or the experiment is deleted.
        """
        with told(self.uri):
            if (path := sqlite_path(self.uri)) is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            found = _experiment(self.client, experiment, artifacts_beside(self.uri))
        if found.lifecycle_stage != "active":
            raise TrackingError(
                f"MLflow experiment '{experiment}' at {shown(self.uri)} is {found.lifecycle_stage}: restore it "
                "there, or choose another with --set mlflow.experiment=NAME"
            )
        self._experiments[experiment] = str(found.experiment_id)

    def known_id(self, run: RunName) -> str | None:
        """MLflow's id of a run; None while the store has not told it."""
        known = self._runs.get(run.key)
        return known.id if known else run.id

    def _known(self, run: RunName) -> _Known:
        if run.key not in self._runs:
            self._runs[run.key] = self._found(run) or self._created(run)
        return self._runs[run.key]

    def _found(self, run: RunName) -> _Known | None:
        if run.id:
            return self._at(self.client.get_run(run.id))
        experiment = self._experiment_id(run.experiment)
        runs = self.client.search_runs(
            [experiment], f"tags.`{KEY_TAG}` = '{run.key}'", max_results=1, order_by=["attributes.start_time ASC"]
        )
        return self._at(runs[0]) if runs else None

    def _at(self, run: Any) -> _Known:
        return _Known(str(run.info.run_id), set(run.data.params), made=False)

    def _created(self, run: RunName) -> _Known:
        above = {MLFLOW_PARENT_RUN_ID: self._known(run.parent).id} if run.parent else {}
        tags = {**run.tags, **above, KEY_TAG: run.key}
        with once():
            made = self.client.create_run(self._experiment_id(run.experiment), run.started, tags, run.name)
        return _Known(str(made.info.run_id), set(), made=True)

    def _experiment_id(self, name: str) -> str:
        if name not in self._experiments:
            self.reach(name)
        return self._experiments[name]

    # --- one event; each may be applied any number of times

    def apply(self, event: Event, path: str | os.PathLike[str] | None) -> None:
        """Log ``event`` with no more care than its kind needs to be repeatable."""
        known = self._known(event.run)
        _APPLY[event.kind](self, known, event, path)

    def _begin(self, known: _Known, event: Event, path: Any) -> None:
        new = [Param(key, value) for key, value in event.body["params"].items() if key not in known.params]
        for at in range(0, len(new), MAX_PARAMS_TAGS_PER_BATCH):
            part = new[at : at + MAX_PARAMS_TAGS_PER_BATCH]
            self.client.log_batch(known.id, params=part, synchronous=True)
            known.params.update(param.key for param in part)

    def _tags(self, known: _Known, event: Event, path: Any) -> None:
        tags = [RunTag(key, value) for key, value in event.body["tags"].items()]
        self.client.log_batch(known.id, tags=tags, synchronous=True)

    def _metrics(self, known: _Known, event: Event, path: Any) -> None:
        new = [Metric(*row) for row in event.body["metrics"] if self._is_new(known, event.writer, row[0], row[3])]
        for at in range(0, len(new), MAX_METRICS_PER_BATCH):
            self.client.log_batch(known.id, metrics=new[at : at + MAX_METRICS_PER_BATCH], synchronous=True)
        for metric in new:
            known.steps[metric.key].setdefault(metric.step, event.writer)

    def _is_new(self, known: _Known, writer: str, key: str, step: int) -> bool:
        if key not in known.steps:
            history = [] if known.made else self.client.get_metric_history(known.id, key)
            known.steps[key] = {metric.step: _EARLIER for metric in history}
        return known.steps[key].get(step, writer) == writer

    def _file(self, known: _Known, event: Event, path: str | os.PathLike[str] | None) -> None:
        if path is None:
            raise ValueError("a file event is sent with its file")
        self.client.log_artifact(known.id, os.fspath(path), event.body["folder"])

    def _inputs(self, known: _Known, event: Event, path: Any) -> None:
        tag = InputTag(MLFLOW_DATASET_CONTEXT, event.body["context"])
        datasets = [DatasetInput(Dataset(**fields), [tag]) for fields in event.body["datasets"]]
        self.client.log_inputs(known.id, datasets)

    def _end(self, known: _Known, event: Event, path: Any) -> None:
        self.client.set_terminated(known.id, event.body["status"], event.body["time"])


_APPLY: Mapping[str, Callable[[Link, _Known, Event, Any], None]] = {
    "begin": Link._begin,
    "tags": Link._tags,
    "metrics": Link._metrics,
    "file": Link._file,
    "inputs": Link._inputs,
    "end": Link._end,
}


def _experiment(client: MlflowClient, name: str, artifacts: str | None) -> Experiment:
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            found = client.get_experiment(client.create_experiment(name, artifact_location=artifacts))
        except MlflowException:
            found = client.get_experiment_by_name(name)  # another job may have made it in between
            if found is None:
                raise
    return found
