"""MLflow, thinly: one run handle that drivers and Ray workers can both log to.

Everything goes through :class:`mlflow.MlflowClient` with a run id; the fluent API keeps its active run in
process-wide state, which Ray workers do not share.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.entities import Experiment, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import MAX_METRICS_PER_BATCH, MAX_PARAM_VAL_LENGTH, MAX_PARAMS_TAGS_PER_BATCH
from sqlalchemy.exc import SQLAlchemyError

from e4t_core.errors import UserError
from e4t_core.storage import Store
from jobs._sections import MlflowConfig

PARENT_TAG = "mlflow.parentRunId"
_FLUSH_SECONDS = 5.0
_REFUSALS = (MlflowException, SQLAlchemyError, OSError, ImportError)
"""What MLflow's stores raise when they cannot be reached, refuse, or lack their database's driver."""
_BRIEF = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""For the first contact only: a wrong address should fail in seconds. Later requests keep MLflow's patience."""
_log = logging.getLogger(__name__)


class TrackingError(UserError):
    """The tracking server cannot be reached, or refuses."""


def shown(uri: str) -> str:
    """``uri`` without its password, for messages, records and reports."""
    return re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:***@", uri)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested recipe as dotted MLflow params; sequences of plain values stay one param."""
    out: dict[str, str] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            out |= flatten(value, f"{name}.")
        elif isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value):
            out |= flatten({str(i): item for i, item in enumerate(value)}, f"{name}.")
        else:
            out[name] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return out


@dataclass(frozen=True)
class Tracker:
    """An experiment on a tracking store that has answered.

    Attributes:
        uri: tracking URI, absolute, so that a worker in another directory means the same store.
        experiment: experiment name.
        experiment_id: its id on that store.
    """

    uri: str
    experiment: str
    experiment_id: str

    @classmethod
    def open(cls, config: MlflowConfig, out: str | None = None) -> Tracker:
        """Reach the store and make sure of the experiment, before any work is spent.

        The URI is ``config.uri``, else ``MLFLOW_TRACKING_URI``, else sqlite in the folder ``out`` (in the current
        folder if ``out`` is remote or None).

        Raises:
            TrackingError: nothing answers there, or it refuses.
        """
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of every table it creates
        uri = _absolute(config.uri or os.environ.get("MLFLOW_TRACKING_URI") or _beside(out))
        with _told(uri), _brief():
            _make_room(uri)
            found = _experiment(MlflowClient(tracking_uri=uri), config.experiment, _artifacts_beside(uri))
        if found.lifecycle_stage != "active":
            raise TrackingError(
                f"MLflow experiment '{config.experiment}' at {shown(uri)} is {found.lifecycle_stage}: restore it "
                "there, or choose another with --set mlflow.experiment=NAME"
            )
        return cls(uri, config.experiment, found.experiment_id)

    @staticmethod
    def attach(uri: str, run_id: str, path: str | os.PathLike[str]) -> None:
        """Add a file to a run that has ended.

        Raises:
            TrackingError: nothing answers there, or it does not know the run.
        """
        database = _sqlite_path(uri)
        if database is not None and not database.exists():  # MLflow would make an empty one
            raise TrackingError(f"there is no MLflow database at {database}; set mlflow.uri to where it is now")
        with _told(uri), _brief():
            MlflowClient(tracking_uri=uri).log_artifact(run_id, os.fspath(path))

    def start(
        self,
        name: str,
        params: Mapping[str, Any],
        parent: Run | str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Run:
        """Start a run.

        Args:
            params: nested values are flattened to dotted names, long values split over ``name``, ``name.part2``...
            parent: the run (or its id) that this one is shown under.
            tags: further tags.
        """
        above = {PARENT_TAG: parent.id if isinstance(parent, Run) else parent} if parent else {}
        with _told(self.uri):
            client = MlflowClient(tracking_uri=self.uri)
            made = client.create_run(self.experiment_id, run_name=name, tags={**above, **(tags or {})})
            run = Run(self.uri, made.info.run_id, name)
            run.params(params)
        return run

    def shared(self, name: str, key: str, params: Mapping[str, Any]) -> Run:
        """The run tagged ``e4t.benchmark = key``, started if there is none: the parent of runs that compare."""
        with _told(self.uri):
            client = MlflowClient(tracking_uri=self.uri)
            found = client.search_runs([self.experiment_id], f"tags.`e4t.benchmark` = '{key}'", max_results=1)
        if found:
            return Run(self.uri, found[0].info.run_id, name)
        return self.start(name, params, tags={"e4t.benchmark": key})


@dataclass
class Run:
    """One MLflow run. Picklable: a copy in a Ray worker logs to the same run.

    As a context manager it flushes at the end and closes as FINISHED, as KILLED when interrupted, as FAILED on
    any other exception.
    """

    uri: str
    id: str
    name: str = ""
    _waiting: list[Metric] = field(default_factory=list, repr=False)
    _sent: float = field(default=0.0, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return Run, (self.uri, self.id, self.name)

    @property
    def client(self) -> MlflowClient:
        """A client of the run's store (cheap: MLflow caches connections)."""
        return MlflowClient(tracking_uri=self.uri)

    def params(self, params: Mapping[str, Any]) -> None:
        """Log nested values as params; MLflow never lets one change."""
        parts = [Param(name, part) for key, value in flatten(params).items() for name, part in _split(key, value)]
        with _told(self.uri):
            for at in range(0, len(parts), MAX_PARAMS_TAGS_PER_BATCH):
                self.client.log_batch(self.id, params=parts[at : at + MAX_PARAMS_TAGS_PER_BATCH], synchronous=True)

    def tags(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        with _told(self.uri):
            self.client.log_batch(self.id, tags=[RunTag(k, str(v)) for k, v in tags.items()], synchronous=True)

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Note finite values; they are sent together every few seconds.

        A store that is away for a while costs nothing but a warning: what is waiting goes out with the next call,
        or with :meth:`close`, which does raise.
        """
        now = int(time.time() * 1000)
        self._waiting += [Metric(_metric_name(k), float(v), now, step) for k, v in values.items() if math.isfinite(v)]
        if time.monotonic() - self._sent < _FLUSH_SECONDS:
            return
        try:
            self.flush()
        except TrackingError as error:
            self._sent = time.monotonic()
            _log.warning("%d figures wait for MLflow: %s", len(self._waiting), error)

    def flush(self) -> None:
        """Send every waiting metric.

        Raises:
            TrackingError: the store cannot be reached; nothing that waits is lost by that.
        """
        with _told(self.uri):
            while self._waiting:
                self.client.log_batch(self.id, metrics=self._waiting[:MAX_METRICS_PER_BATCH], synchronous=True)
                del self._waiting[:MAX_METRICS_PER_BATCH]
        self._sent = time.monotonic()

    def artifact(self, path: str | os.PathLike[str], folder: str | None = None) -> None:
        """Upload one local file, under ``folder`` of the run's artifacts."""
        with _told(self.uri):
            self.client.log_artifact(self.id, os.fspath(path), folder)

    def artifact_from(self, store: Store, key: str, folder: str | None = None) -> None:
        """Upload the object ``key`` of a store."""
        with store.as_local(key) as path:
            self.artifact(path, folder)

    def json(self, name: str, value: Mapping[str, Any]) -> None:
        """Upload ``value`` as the artifact ``name``."""
        with _told(self.uri):
            self.client.log_dict(self.id, dict(value), name)

    def close(self, status: str = "FINISHED") -> None:
        """Flush and end the run as ``FINISHED``, ``FAILED`` or ``KILLED``."""
        self.flush()
        with _told(self.uri):
            self.client.set_terminated(self.id, status)

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            return self.close()
        try:
            self.close("KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED")
        except TrackingError as second:  # the first error is what the user must see
            _log.warning("%s", second)


def _beside(out: str | None) -> str:
    store = Store(out) if out else None
    folder = Path(store.root) if store and store.local else Path.cwd()
    return f"sqlite:///{folder}/mlflow.db"


def _absolute(uri: str) -> str:
    path = _sqlite_path(uri)
    return uri if path is None else f"sqlite:///{path.absolute()}"


def _sqlite_path(uri: str) -> Path | None:
    name = uri.removeprefix("sqlite:///")
    return None if name == uri or name in ("", ":memory:") else Path(name)


def _artifacts_beside(uri: str) -> str | None:
    """With sqlite, MLflow would put artifacts under whatever folder the process runs in; a server knows its own."""
    path = _sqlite_path(uri)
    return None if path is None else (path.parent / "mlflow-artifacts").as_uri()


def _make_room(uri: str) -> None:
    path = _sqlite_path(uri)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)


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


@contextlib.contextmanager
def _brief() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _BRIEF}
    os.environ.update(_BRIEF)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextlib.contextmanager
def _told(uri: str) -> Iterator[None]:
    try:
        yield
    except _REFUSALS as error:
        kind = "the MLflow server" if urlsplit(uri).scheme in ("http", "https") else "the MLflow store"
        reason = shown(str(error).splitlines()[0][:300])
        raise TrackingError(
            f"{kind} at {shown(uri)} does not serve ({type(error).__name__}: {reason}); start it, correct mlflow.uri "
            "or MLFLOW_TRACKING_URI, or unset both to log to sqlite in the --out folder"
        ) from error


def _split(key: str, value: str) -> Iterator[tuple[str, str]]:
    """MLflow cuts long values silently; here nothing of a recipe is lost."""
    for number, at in enumerate(range(0, max(len(value), 1), MAX_PARAM_VAL_LENGTH), start=1):
        yield (key if number == 1 else f"{key}.part{number}"), value[at : at + MAX_PARAM_VAL_LENGTH]


def _metric_name(name: str) -> str:
    return re.sub(r"[^\w./ -]", "_", name)
