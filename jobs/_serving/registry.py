"""A bundle as a version of a model in MLflow's registry."""

from __future__ import annotations

import contextlib
import os
import tomllib
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

import e4t_core
import jobs
import pipelines
from jobs._serving.predictor import BUNDLE, INPUT, OUTPUT
from jobs._tracking import Run
from jobs._tracking.places import told

CONTENT_TAG = "e4t.content"
"""Tag of a version: a fingerprint of what it holds."""
MODEL_FILE = Path(__file__).with_name("model.py")
"""The script that loads the model."""
_SETTING = "MLFLOW_TRACKING_URI"


def registered(uri: str, name: str, content: str) -> ModelVersion | None:
    """The newest version of ``name`` with this content, if there is one.

    Raises:
        TrackingError: the store does not serve, or has no registry.
    """
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    with told(uri):
        try:
            found = client.search_model_versions(f"name = '{name}' AND tags.`{CONTENT_TAG}` = '{content}'")
        except MlflowException as error:
            if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                return None
            raise
    return max(found, key=lambda version: int(version.version), default=None)


def register(
    run: Run, name: str, folder: Path, content: str, facts: Mapping[str, Any], description: str
) -> ModelVersion:
    """Log the bundle in ``folder`` as the run's model and register it.

    The model holds the bundle, this program's code as it is, and its pinned requirements: it needs nothing else but
    the backbone at the place that its recipe names. It is loaded from a script, so there is no pickle in it.

    Args:
        facts: tags of the version.
        description: of the version, in Markdown.

    Raises:
        TrackingError: the store does not serve, or refuses.
    """
    client = MlflowClient(tracking_uri=run.uri, registry_uri=run.uri)
    with told(run.uri), _at(run.uri):
        made = Model.log(
            artifact_path=None,
            name=BUNDLE,
            flavor=mlflow.pyfunc,
            run_id=run.id,
            registered_model_name=name,
            tags={**facts, CONTENT_TAG: content},
            python_model=str(MODEL_FILE),
            artifacts={BUNDLE: str(folder)},
            code_paths=[str(Path(package.__path__[0])) for package in (e4t_core, pipelines, jobs)],
            pip_requirements=requirements(),
            signature=ModelSignature(INPUT, OUTPUT),  # an example would be drawn here, on a machine without a GPU
        )
        return client.update_model_version(name, str(made.registered_model_version), description)


@contextlib.contextmanager
def _at(uri: str) -> Iterator[None]:
    """Logging a model knows no other way to be told where than the process's own setting. That one is kept in the
    environment too, and would lead everything that follows to the same place."""
    before = os.environ.get(_SETTING)
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)
        if before is not None:
            os.environ[_SETTING] = before


def requirements() -> list[str]:
    """What this program is pinned to: of the checkout that it runs from, or as it was installed."""
    project = Path(jobs.__path__[0]).parent / "pyproject.toml"
    if project.exists():
        return list(tomllib.loads(project.read_text())["project"]["dependencies"])
    return [line for line in metadata.requires("e4t") or [] if "extra ==" not in line]
