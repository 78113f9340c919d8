"""Where tracking stores are, how long they are waited for, and what is said when they do not serve."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from mlflow.exceptions import InvalidUrlException, MlflowException
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from e4t_core.errors import UserError
from e4t_core.storage import Store
from jobs._lineage import shown

KEY_TAG = "e4t.key"
"""Tag with our own name of a run, by which it is found whatever became of the answer when it was made."""
BRIEF = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "15"}
"""While a job works: what does not get through in seconds is spooled. MLflow's own patience is four minutes a request.
Variables that the user has set stay as they are."""
BRIEF_FILE = {**BRIEF, "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}
"""A server answers when it has stored the file."""
ONCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
"""Creating is not idempotent: a retry whose first answer was lost would make a second run."""
_REFUSALS = (MlflowException, SQLAlchemyError, OSError, ImportError)
"""What MLflow's stores raise when they cannot be reached, refuse, or lack their database's driver."""
_CLIENTS = ("boto3", "botocore", "google", "azure")
"""Packages whose errors mean the same where a store keeps its artifacts in a bucket that clients write to."""
_BUSY = (408, 429)
_environment = threading.RLock()


class TrackingError(UserError):
    """The tracking server cannot be reached, or refuses."""


class Away(TrackingError):
    """The tracking server does not answer now, and may later."""


def beside(out: str | None) -> str:
    """The sqlite store of a local ``--out``; of the current folder if that is remote or None."""
    store = Store(out) if out else None
    folder = Path(store.root) if store and store.local else Path.cwd()
    return f"sqlite:///{folder}/mlflow.db"


def absolute(uri: str) -> str:
    """``uri`` as a worker in another directory must be given it."""
    path = sqlite_path(uri)
    return uri if path is None else f"sqlite:///{path.absolute()}"


def sqlite_path(uri: str) -> Path | None:
    """The database file of an sqlite URI; None for other stores."""
    name = uri.removeprefix("sqlite:///")
    return None if name == uri or name in ("", ":memory:") else Path(name)


def artifacts_beside(uri: str) -> str | None:
    """With sqlite, MLflow would put artifacts under whatever folder the process runs in; a server knows its own."""
    path = sqlite_path(uri)
    return None if path is None else (path.parent / "mlflow-artifacts").as_uri()


@contextlib.contextmanager
def patience(settings: Mapping[str, str]) -> Iterator[None]:
    """Environment variables that MLflow's client reads at every request, for the time inside.

    They are the process's, so only one thread at a time is inside.
    """
    with _environment:
        ours = {name: value for name, value in settings.items() if name not in os.environ}
        os.environ.update(ours)
        try:
            yield
        finally:
            for name in ours:
                os.environ.pop(name, None)


@contextlib.contextmanager
def once() -> Iterator[None]:
    """No second try of a request, whatever the environment says."""
    with _environment:
        before = {name: os.environ.pop(name, None) for name in ONCE}
        try:
            with patience(ONCE):
                yield
        finally:
            os.environ.update({name: value for name, value in before.items() if value is not None})


@contextlib.contextmanager
def told(uri: str) -> Iterator[None]:
    """Turn what MLflow raises into a message that names the store.

    Raises:
        Away: it does not answer now.
        TrackingError: it never will, as it is addressed.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, _REFUSALS) and type(error).__module__.split(".")[0] not in _CLIENTS:
            raise
        raise (Away if _may_pass(uri, error) else TrackingError)(
            f"{_name(uri)} at {shown(uri)} does not serve ({reason(error)}); start it, correct mlflow.uri or "
            "MLFLOW_TRACKING_URI, or unset both to log to sqlite in the --out folder"
        ) from error


def reason(error: BaseException) -> str:
    """Kind and first line of ``error``."""
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {shown(lines[0][:300])}"


def _name(uri: str) -> str:
    return "the MLflow server" if _remote(uri) else "the MLflow store"


def _remote(uri: str) -> bool:
    return urlsplit(uri).scheme in ("http", "https")


def _may_pass(uri: str, error: Exception) -> bool:
    """Whether the same request may succeed later: nobody listens, time ran out, or the server has trouble of its own.
    A local file that cannot be opened stays so."""
    if not _remote(uri):
        return sqlite_path(uri) is None and isinstance(error, OperationalError)
    if isinstance(error, MlflowException):
        status = int(error.get_http_status_code())
        return not isinstance(error, InvalidUrlException) and (status >= 500 or status in _BUSY)
    return isinstance(error, OSError)
