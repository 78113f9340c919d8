"""Who is in the benchmark: the published selection, and any number of people of any LFW-like folder."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from e4t_core.errors import UsageError
from e4t_core.storage import Store
from jobs import __main__ as jobs_main
from jobs._recipe import load
from pipelines.sources.lfw import read_list


def plan(source: str, *sets: str) -> dict[str, Any]:
    """What ``personalize --dry-run`` would do with a folder in LFW's layout; opens no image."""
    over = [word for text in (f"source.path={source}", *sets) for word in ("--set", text)]
    return jobs_main.start("personalize", ["--recipe", "nightly_lfw", *over, "--out", "out", "--dry-run"])


def folder(people: dict[str, int]) -> str:
    """Empty files under LFW's names."""
    uri = f"memory://{uuid.uuid4().hex}"
    store = Store(uri)
    for name, images in people.items():
        for number in range(1, images + 1):
            store.put(f"{name}/{name}_{number:04d}.jpg", b"")
    return uri


def test_the_published_list_selects_exactly_232_identities(real_data: Path) -> None:
    """E4T section 4. The list is LFW's own file; it is not part of this repository."""
    published = real_data / "lfw" / "peopleDevTest.txt"
    if not published.is_file():
        pytest.skip(f"LFW's list is not at {published}")
    people = {name: images for name, images in read_list(str(published)).items() if images}
    assert plan(folder(people), f"source.list={published}")["identities"] == 232


def test_it_scales_to_everybody_of_any_folder_in_that_layout() -> None:
    """As many people as LFW has, with as skewed numbers of images."""
    images = np.minimum(np.random.default_rng(0).geometric(0.6, 5749), 40)
    uri = folder({f"Person_{n:04d}": int(count) for n, count in enumerate(images)})
    everybody = ("source.min_images=1", "source.max_images=null")
    assert plan(uri)["identities"] == ((images >= 3) & (images <= 10)).sum()
    assert plan(uri, *everybody)["identities"] == 5749
    some = plan(uri, *everybody, "benchmark.max_identities=5000")
    assert (some["identities"], some["units"]) == (5000, 5000)
    assert plan(uri, *everybody, "benchmark.min_images=4")["identities"] == (images >= 4).sum()


def test_it_is_said_in_one_place_of_a_resolved_recipe() -> None:
    recipe = load("tiny", ["benchmark.max_identities=5000", "benchmark.min_images=3"])
    assert (recipe.personalize.max_identities, recipe.personalize.min_images) == (5000, 3)
    assert recipe.hash == load("tiny", ["personalize.max_identities=5000", "personalize.min_images=3"]).hash
    assert "benchmark" not in recipe.dump()
    with pytest.raises(UsageError, match=r"unknown key 'max_identity'; did you mean 'max_identities'"):
        load("tiny", ["benchmark.max_identity=5000"])
    with pytest.raises(UsageError, match=r"benchmark\.max_identities: 0 does not fit"):
        load("tiny", ["benchmark.max_identities=0"])
