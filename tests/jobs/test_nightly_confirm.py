"""What moved from the last good night has to have moved from the usual too: luck of one night is not told as a drop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from jobs._nightly.compared import Verdict, compare
from jobs._nightly.words import table
from jobs._sections import NightlyConfig

PEOPLE = 12


class Row:
    """Nights of one method with one score, one after the other, compared as `nightly` does."""

    def __init__(self, confirm: int, effect: float = 0.0) -> None:
        self.config = NightlyConfig(methods={"e4t": {}}, effect=effect, bootstrap_samples=200, confirm=confirm)
        self.nights: list[dict[str, Any]] = []
        self.scores: dict[str, Any] = {}

    def add(self, values: Sequence[float], accepted: str | None = None) -> Verdict:
        date = f"2026-01-{len(self.nights) + 1:02d}"
        method = {
            "fingerprint": "same", "facts": {}, "settings": {},
            "scores": {"identity": {"title": "ID", "higher_is_better": True}},
        }  # fmt: skip
        scores = {"e4t": {"identity": {f"p{i}": float(value) for i, value in enumerate(values)}}}
        found = compare(self.config, {"e4t": method}, scores, self.nights, lambda night: self.scores[night["date"]])
        self.scores[date] = scores
        self.nights.append(
            {
                "date": date, "status": found.status, "accepted": accepted, "methods": {"e4t": method},
                "findings": [asdict(finding) for finding in found.findings], "test": {"alpha": 0.05},
            }
        )  # fmt: skip
        return found


def alarms(confirm: int, rng: np.random.Generator, nights: int = 20) -> int:
    row, people = Row(confirm), 0.15 * rng.standard_normal(PEOPLE)
    return sum(row.add(people + 0.05 * rng.standard_t(4, PEOPLE)).status == "regressed" for _ in range(nights))


def test_alarms_of_rows_of_twenty_nights_that_differ_in_noise_are_half_as_many() -> None:
    """With the last good night alone, one row in eight has more than the one alarm that is allowed."""
    unconfirmed = [alarms(1, np.random.default_rng(n)) for n in range(60)]
    confirmed = [alarms(5, np.random.default_rng(n)) for n in range(60)]
    assert sum(confirmed) <= 0.6 * sum(unconfirmed)
    assert sum(many > 1 for many in confirmed) <= sum(many > 1 for many in unconfirmed) / 2


@pytest.mark.parametrize("drop", [0.06, 0.1])
def test_what_got_worse_is_caught_as_often(drop: float) -> None:
    def caught(confirm: int) -> int:
        count = 0
        for seed in range(60):
            rng = np.random.default_rng(seed)
            row, people = Row(confirm), 0.15 * rng.standard_normal(PEOPLE)
            for _ in range(5):
                row.add(people + 0.05 * rng.standard_normal(PEOPLE))
            count += row.add(people - drop + 0.05 * rng.standard_normal(PEOPLE)).status == "regressed"
        return count

    assert caught(5) >= 0.9 * caught(1) > 10


def steady(level: float, seed: int) -> list[float]:
    return list(level + 0.1 * np.arange(PEOPLE) + 0.001 * np.random.default_rng(seed).standard_normal(PEOPLE))


def test_back_from_a_gain_is_a_drop() -> None:
    """The usual begins anew with what moved: otherwise nights from before the gain would hide its loss."""
    row = Row(5, effect=0.2)
    for seed in range(4):
        assert row.add(steady(0.5, seed)).status in ("first", "good")
    assert row.add(steady(0.8, 4)).findings[0].verdict == "gain"
    assert row.add(steady(0.5, 5)).status == "regressed"


def test_an_accepted_drop_is_the_new_usual() -> None:
    row = Row(5)
    for seed in range(3):
        row.add(steady(0.5, seed))
    assert row.add(steady(0.3, 3), accepted="half the steps").status == "regressed"
    after = row.add(steady(0.3, 4))
    assert after.status == "good"
    assert row.add(steady(0.3, 5)).findings[0].usual == pytest.approx(0.3 + 0.1 * np.arange(PEOPLE).mean(), abs=0.01)


def test_a_night_in_which_nobody_was_scored_confirms_nothing_and_hides_nothing() -> None:
    row = Row(5)
    for seed in range(3):
        row.add(steady(0.5, seed))
    row.scores["2026-01-02"] = {}  # as the history gives back a night without a single value
    assert row.add(steady(0.3, 3)).status == "regressed"


def test_luck_is_shown_as_unconfirmed_and_is_no_alarm() -> None:
    row, rng = Row(5), np.random.default_rng(0)
    for _ in range(4):
        row.add(steady(0.5, 0) + 0.05 * rng.standard_normal(PEOPLE))
    lucky = steady(0.5, 0) + np.where(np.arange(PEOPLE) % 2, 0.13, -0.02)
    row.add(lucky)
    after = row.add(steady(0.5, 0) + np.where(np.arange(PEOPLE) % 3, -0.01, 0.03))
    assert (after.status, after.findings[0].verdict) == ("good", "unconfirmed")
    head, line = table(row.nights[-1])
    assert head.split()[:5] == ["method", "score", "usual", "before", "now"]
    assert line.endswith("unconfirmed")
