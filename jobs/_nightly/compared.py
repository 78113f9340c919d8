"""A night's scores beside those of the last good nights that measured the same with the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pandas as pd

from e4t_core.metrics import _statistics
from jobs._nightly.decision import Figure, Finding, confirm, decide
from jobs._nightly.history import Night, Scores, good_nights, newest, since_it_moved
from jobs._run_folder import differences
from jobs._scores import HELD_OUT, SCORE
from jobs._sections import NightlyConfig

SCORED = ".scored"
_SHOWN = 4


@dataclass(frozen=True)
class Verdict:
    """The outcome of a night.

    Attributes:
        status: ``regressed`` if something dropped; ``first`` if no method could be compared; else ``good``.
        findings: of every score that could be compared.
        basis: method -> ``compared_with`` (a date, or None), ``not_compared`` (why), ``changes`` of its settings since.
    """

    status: str
    findings: Sequence[Finding]
    basis: Mapping[str, Mapping[str, Any]]


def compare(
    config: NightlyConfig,
    methods: Mapping[str, Mapping[str, Any]],
    scores: Scores,
    before: Sequence[Night],
    scores_of: Callable[[Night], Scores],
) -> Verdict:
    """Compare each method with the last good night that has its fingerprint, all scores in one test.

    What moved has to be confirmed by the mean of up to ``config.confirm`` good nights, the last one among them.

    Args:
        methods: what the history keeps of each, ``facts``, ``fingerprint`` and ``settings`` among it.
        scores: tonight's.
        before: earlier nights, oldest first.
        scores_of: a night's.
    """
    good = {name: good_nights(before, name, method["fingerprint"]) for name, method in methods.items()}
    there = {night["date"]: scores_of(night) for nights in good.values() for night in nights[-config.confirm :]}
    figures = [
        figure
        for name, nights in good.items()
        if nights
        for figure in _figures(
            config, name, methods[name]["scores"], there[nights[-1]["date"]].get(name, {}), scores[name]
        )
    ]
    usual = [
        replace(figure, before=_usual([_values(there[night["date"]], figure) for night in several]))
        for figure in figures
        if len(several := since_it_moved(good[figure.method], figure.method, figure.metric)[-config.confirm :]) > 1
    ]
    decided = partial(decide, alpha=config.alpha, samples=config.bootstrap_samples)
    findings = confirm(decided(figures), decided(usual))
    dropped = any(finding.verdict == "drop" for finding in findings)
    status = "regressed" if dropped else "good" if figures else "first"
    basis = {name: _basis(name, method, good[name], before) for name, method in methods.items()}
    return Verdict(status, findings, basis)


def _figures(
    config: NightlyConfig,
    method: str,
    titles: Mapping[str, Mapping[str, Any]],
    before: Mapping[str, Mapping[str, float]],
    now: Mapping[str, Mapping[str, float]],
) -> list[Figure]:
    out = []
    for metric, values in now.items():
        then = before.get(metric, {})
        if not then and not values:
            continue  # as held-out scores where everybody has one photo
        score = titles[metric.removesuffix(SCORED)]
        counted = metric.endswith(SCORED)
        title = f"{score['title']}, images scored" if counted else score["title"]
        higher = counted or bool(score["higher_is_better"])
        out.append(Figure(method, metric, title, then, values, effect(config, metric), higher))
    return out


def _values(scores: Scores, figure: Figure) -> Mapping[str, float]:
    return scores.get(figure.method, {}).get(figure.metric, {})


def _usual(nights: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of several nights, of the identities that all of them have."""
    everywhere = set.intersection(*map(set, nights))
    return {who: sum(night[who] for night in nights) / len(nights) for who in everywhere}


def effect(config: NightlyConfig, metric: str) -> float:
    """The smallest change of a score that matters."""
    name = "scored" if metric.endswith(SCORED) else metric
    return config.effects.get(name, config.effects.get(name.removesuffix(HELD_OUT), config.effect))


def _basis(name: str, method: Mapping[str, Any], good: Sequence[Night], before: Sequence[Night]) -> dict[str, Any]:
    if good:
        base = good[-1]
        changes = differences(base["methods"][name]["settings"], method["settings"])
        return {"compared_with": base["date"], "not_compared": None, "changes": _since(changes, base["date"])}
    last = newest(before, name)
    if last is None:
        why = "is not compared: no good night has it yet"
    else:
        lines = differences(last["methods"][name]["facts"], method["facts"])
        why = f"is not compared: no good night measured the same; that of {last['date']} is another: {_few(lines)}"
    return {"compared_with": None, "not_compared": why, "changes": []}


def _since(changes: Sequence[str], date: str) -> list[str]:
    return [f"since {date}, {line}" for line in changes]


def _few(lines: Sequence[str]) -> str:
    more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    return "; ".join(lines[:_SHOWN]) + more


def per_identity(rows: pd.DataFrame, column: str) -> dict[str, dict[str, float]]:
    """The score's mean by identity, and under ``<score>.scored`` the share of images that have one.

    A score that is not in the rows (one of a whole set of images) has no identities and is not judged. An identity
    without held-out images lacks no held-out score.
    """
    if f"{SCORE}{column}" not in rows:
        return {}
    due = rows[rows["heldout"] > 0] if column.endswith(HELD_OUT) else rows
    share = due[f"{SCORE}{column}"].notna().groupby(due["identity"]).mean()
    means = _statistics.per_identity(zip(due["identity"], due[f"{SCORE}{column}"].astype(float), strict=True))
    return {column: means, f"{column}{SCORED}": {str(k): float(v) for k, v in share.items()}}
