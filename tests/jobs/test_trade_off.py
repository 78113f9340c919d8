"""The picture of likeness over prompt, of whatever was scored."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from jobs._report.inputs import Entry
from jobs._trade_off import drawn, trade_off

TITLES = {"clip_t": "CLIP-T", "clip_i": "CLIP-I", "identity": "ID"}


def entry(label: str, *scores: str) -> Entry:
    figures: dict[str, Any] = {
        "scores": {
            name: {"title": TITLES[name], "mean": 0.1 * n, "low": 0.1 * n - 0.05, "high": 0.1 * n + 0.05}
            for n, name in enumerate(scores, 1)
        }
    }
    return Entry(label, 0, figures, pd.DataFrame(), {}, place="")


@pytest.mark.parametrize(
    ("scores", "labels"),
    [
        ([("clip_t", "clip_i", "identity")], ("CLIP-T", "ID")),
        ([("clip_t", "clip_i")], ("CLIP-T", "CLIP-I")),
        ([("clip_t", "clip_i", "identity"), ("clip_t", "clip_i")], ("CLIP-T", "CLIP-I")),  # what both have
        ([("clip_t",)], ("CLIP-T", "CLIP-T")),
    ],
)
def test_likeness_is_up_and_the_prompt_across(scores: list[tuple[str, ...]], labels: tuple[str, str]) -> None:
    entries = [entry(f"e{n}", *names) for n, names in enumerate(scores)]
    (axes,) = drawn(entries).axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == labels
    assert len(axes.containers) == len(entries)
    assert trade_off(entries).startswith(b"\x89PNG")
