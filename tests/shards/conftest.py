"""Ten small texts, and a store made of them; a file that needs others has fixtures of the same names."""

from __future__ import annotations

from pathlib import Path

import pytest

from e4t_core.storage import Store
from tests.shards.fakes import chain, folder_source, people
from tests.shards.support import build


@pytest.fixture
def src(tmp_path: Path) -> Path:
    """The source's folder."""
    people(tmp_path / "src", 10)
    return tmp_path / "src"


@pytest.fixture
def store(tmp_path: Path, src: Path) -> Store:
    """Three shards in three columns."""
    store = Store(tmp_path / "store")
    build(store, folder_source(src), chain())
    return store
