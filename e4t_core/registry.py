"""Plugins found by their folder: the file ``<package>/<name>.py`` holds the class whose ``name`` is ``<name>``.

Nothing is imported until it is asked for, so listing names costs nothing and one plugin's heavy imports
do not slow another's command.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Generic, TypeVar

from e4t_core.errors import UsageError, nearest

T = TypeVar("T")


class Registry(Generic[T]):
    """The classes of one kind (source, stage, method, metric) under one package."""

    def __init__(self, kind: str, package: str, base: type[T]) -> None:
        self.kind, self.package, self.base = kind, package, base

    def names(self) -> list[str]:
        """Every plugin's name, sorted. Files that start with ``_`` and ``base`` are not plugins."""
        folder = importlib.import_module(self.package).__path__
        return sorted(m.name for m in pkgutil.iter_modules(folder) if not m.name.startswith("_") and m.name != "base")

    def get(self, name: str) -> type[T]:
        """The class called ``name``.

        Raises:
            UsageError: no such plugin; the nearest name is suggested.
        """
        if name not in self.names():
            raise UsageError(f"no {self.kind} is called '{name}'{nearest(name, self.names())}")
        module = importlib.import_module(f"{self.package}.{name}")
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, self.base) and vars(value).get("name") == name:
                return value
        raise TypeError(f"{module.__name__} defines no {self.base.__name__} with name = '{name}'")
