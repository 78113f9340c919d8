"""What ``infra/`` says: its manifests as ``kubectl`` renders them, and every command line of the product in them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
import yaml

from tests.support.processes import ROOT

INFRA = ROOT / "infra"
KUBERNETES = INFRA / "kubernetes"


def documents(path: str) -> list[dict[str, Any]]:
    """The documents of a YAML file of ``infra/``."""
    return [doc for doc in yaml.safe_load_all((INFRA / path).read_text()) if doc]


@cache
def rendered(folder: str) -> list[dict[str, Any]]:
    """What ``kubectl apply -k infra/kubernetes/FOLDER`` would apply; skips where there is no kubectl."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl renders the manifests, and it is not on PATH")
    done = subprocess.run(
        [kubectl, "kustomize", str(KUBERNETES / folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return [doc for doc in yaml.safe_load_all(done.stdout) if doc]


def of_kind(docs: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    """Name -> document."""
    return {doc["metadata"]["name"]: doc for doc in docs if doc["kind"] == kind}


def container(cron_job: Mapping[str, Any]) -> dict[str, Any]:
    """The one container of a CronJob."""
    (only,) = cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    return dict(only)


def rayjob_words() -> dict[str, list[str]]:
    """Name -> the words after ``python -m jobs`` of each RayJob, in the order of the file."""
    return {
        d["metadata"]["name"]: _after_jobs(shlex.split(d["spec"]["entrypoint"]))
        for d in documents("kubernetes/jobs/jobs.yaml")
    }


def schedule_words() -> dict[str, list[str]]:
    """Name -> the words after ``python -m jobs`` of each CronJob."""
    found = documents("kubernetes/cluster/schedules.yaml")
    return {d["metadata"]["name"]: _after_jobs(container(d)["args"]) for d in found}


def told_words() -> dict[str, list[str]]:
    """Place -> the words of every command line in a comment or message of ``infra/``."""
    out = {}
    for path in sorted(p for p in INFRA.rglob("*") if p.suffix in (".yaml", ".sh")):
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if match := re.search(r"^ *#.*?(python -m jobs [^#]+)", line):
                out[f"{path.relative_to(INFRA)}:{number}"] = _after_jobs(shlex.split(match[1]))
    return out


def _after_jobs(words: list[str]) -> list[str]:
    assert words[:3] == ["python", "-m", "jobs"], words
    return words[3:]
