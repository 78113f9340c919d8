"""The import directions of the architecture: each layer imports only lower ones."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYER_0 = {"errors", "config", "schema", "storage", "_refusals", "texts", "record", "registry", "bundled", "memory"}
LAYER_1 = {"backbones", "models", "adapters", "losses", "images"}
LAYER_2 = {"methods", "training", "sampling", "metrics"}
LAYER_0_LIBRARIES = {"numpy", "pydantic", "yaml", "fsspec", "pyarrow"}


def layer(module: str) -> int | None:
    """0 to 4, or None for a module that is not ours."""
    parts = module.split(".")
    if parts[0] == "e4t_core":
        name = parts[1] if len(parts) > 1 else "errors"
        for number, names in enumerate((LAYER_0, LAYER_1, LAYER_2)):
            if name in names:
                return number
        raise AssertionError(f"e4t_core.{name} belongs to no layer of tests/core/test_layers.py")
    return {"pipelines": 3, "jobs": 4, "tests": 5, "infra": 6}.get(parts[0])


def imports(path: Path) -> Iterator[str]:
    """Dotted names of everything the file imports, at any depth of its code."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files(*folders: str) -> list[Path]:
    return sorted(p for folder in folders for p in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def ours(name: str) -> bool:
    return name.split(".")[0] in {"e4t_core", "pipelines", "jobs", "tests", "infra"}


@pytest.mark.parametrize("path", files("e4t_core", "pipelines", "jobs"), ids=module_name)
def test_imports_only_lower_layers(path: Path) -> None:
    here = layer(module_name(path))
    assert here is not None
    for name in imports(path):
        if ours(name) and name != "e4t_core":
            there = layer(name)
            assert there is not None
            assert there <= here, f"{module_name(path)} (layer {here}) imports {name} (layer {there})"


@pytest.mark.parametrize("path", files("e4t_core"), ids=module_name)
def test_core_knows_neither_ray_nor_mlflow(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports(path)} & {"ray", "mlflow"}


def test_layer_0_needs_no_torch() -> None:
    import sys

    for name in LAYER_0:
        path = ROOT / "e4t_core" / name
        for imported in imports(path / "__init__.py" if path.is_dir() else path.with_suffix(".py")):
            top = imported.split(".")[0]
            assert ours(imported) or top in LAYER_0_LIBRARIES or top in sys.stdlib_module_names, f"{name}: {imported}"


def test_ray_data_lives_in_one_file() -> None:
    users = {module_name(p) for p in files("pipelines") if any(n.split(".")[0] == "ray" for n in imports(p))}
    assert users == {"pipelines.executor"}


@pytest.mark.parametrize("module", ["personalize", "generate", "_scores", "_train_worker"])
def test_what_actors_import_is_without_what_the_driver_alone_needs(module: str) -> None:
    """An actor imports the file its class is in: MLflow and its database would be a second and 100 MB of each."""
    code = f"import sys, jobs.{module}; print(*{{'mlflow', 'sqlalchemy'}} & {{*sys.modules}})"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_methods_and_jobs_never_import_each_other() -> None:
    for path in files("e4t_core/methods"):
        own = module_name(path).split(".")[:3]
        for name in imports(path):
            parts = name.split(".")
            # what methods share: the contract, and the modules that the registry passes over
            shared = len(parts) < 3 or parts[2] == "base" or parts[2].startswith("_")
            if parts[:2] == ["e4t_core", "methods"] and not shared:
                assert len(own) < 3 or own[2] == parts[2], f"{module_name(path)} imports {name}"
    entry_points = {p.stem for p in (ROOT / "jobs").glob("*.py") if not p.stem.startswith("_")}
    for path in files("jobs"):
        for name in imports(path):
            parts = name.split(".")
            assert parts[0] != "jobs" or len(parts) < 2 or parts[1] not in entry_points, f"{path.name} imports {name}"


def test_nobody_imports_infra() -> None:
    for path in files("e4t_core", "pipelines", "jobs", "tests"):
        assert not any(name.split(".")[0] == "infra" for name in imports(path)), path


def test_top_level_is_what_the_architecture_names() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    tops = {name.split("/")[0] for name in listed}
    allowed = {
        "pipelines", "e4t_core", "jobs", "infra", "tests", "pyproject.toml", "README.md",
        "Makefile", "requirements.lock", ".ci", ".gitignore", "LICENSE", "CONTRIBUTING.md",
    }  # fmt: skip
    assert tops <= allowed, tops - allowed
