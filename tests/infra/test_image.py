"""``infra/Dockerfile`` holds what ``make setup`` installs and what the product is."""

from __future__ import annotations

import re
import tomllib

from tests.support.infra import INFRA
from tests.support.processes import ROOT

DOCKERFILE = (INFRA / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def copied() -> set[str]:
    """What the image takes from the checkout."""
    lines = re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE)
    return {word for line in lines for word in line.split()[:-1]}


def test_it_starts_from_one_release_of_a_python_that_the_project_runs_on() -> None:
    (base,) = re.findall(r"^FROM (\S+)$", DOCKERFILE, re.MULTILINE)
    release = re.fullmatch(r"python:(\d+)\.(\d+)\.\d+-slim-[a-z]+", base)
    assert release, f"{base} is not one release of Python on one of Debian"
    assert (int(release[1]), int(release[2])) >= (3, 11)
    assert f"{release[1]}.{release[2]}" == PROJECT["tool"]["mypy"]["python_version"]


def test_it_installs_the_lock_as_make_setup_does() -> None:
    pinned = re.compile(r"uv==([\d.]+)")
    assert pinned.findall(DOCKERFILE) == pinned.findall((ROOT / "Makefile").read_text()) != []
    assert "--require-hashes -r requirements.lock" in DOCKERFILE


def test_it_has_every_package_and_what_the_build_reads() -> None:
    packages = {pattern.removesuffix("*") for pattern in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
    files = {"pyproject.toml", "requirements.lock", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]}
    assert copied() == packages | files
    assert all((ROOT / name).exists() for name in copied())


def test_only_what_is_copied_is_sent_to_the_builder() -> None:
    lines = (INFRA / "Dockerfile.dockerignore").read_text().split()
    assert lines.index("*") < min(lines.index(f"!{name}") for name in copied())
    assert {line[1:] for line in lines if line.startswith("!")} == copied()
