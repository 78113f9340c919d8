"""The nightly's page: tonight's verdict, every score over the nights, every night in a line; of the history alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jobs._nightly import words as night_words
from jobs._nightly.history import Night
from jobs._nightly.spark import Point, spark
from jobs._report import words
from jobs._report.html import template

_MOST = 90
"""Nights that a sparkline shows."""
_LISTED = 60
_CLASSES = {"good": "good", "first": "first", "regressed": "bad"}


def render(nights: Sequence[Night]) -> str:
    """The page as one HTML document.

    Args:
        nights: oldest first, at least one.
    """
    last = nights[-1]
    return template("nightly.html").render(
        recipe=last["recipe"],
        date=last["date"],
        verdict=_word(last),
        kind=_kind(last),
        sentence=night_words.sentence(last),
        accepted=last["accepted"],
        moved=[_moved(f) for f in last["findings"] if f["verdict"] != "same"],
        confidence=100 * (1 - last["test"]["alpha"]),
        methods=[_method(name, nights[-_MOST:]) for name in last["methods"]],
        shown=min(len(nights), _MOST),
        nights=[_listed(night) for night in reversed(nights[-_LISTED:])],
        older=max(len(nights) - _LISTED, 0),
        total=len(nights),
        command=last["command"],
        environment=last["environment"],
    )


def _word(night: Night) -> str:
    if night["accepted"]:
        return "Accepted"
    return {"good": "Good", "first": "First night", "regressed": "Regressed"}[night["status"]]


def _kind(night: Night) -> str:
    return "accepted" if night["accepted"] else _CLASSES[night["status"]]


def _moved(finding: dict[str, Any]) -> dict[str, Any]:
    return {
        **finding,
        "usual": finding.get("usual"),  # nights of before there was one have none
        "change": words.signed(finding["change"]),
        "p": night_words.chance(finding["p"]),
        "range": "" if finding["low"] is None else f"{words.signed(finding['low'])} to {words.signed(finding['high'])}",
    }


def _method(name: str, nights: Sequence[Night]) -> dict[str, Any]:
    method = nights[-1]["methods"][name]
    basis = f"compared with {method['compared_with']}" if method["compared_with"] else method["not_compared"]
    return {
        "name": name,
        "basis": basis,
        "changes": method["changes"],
        "facts": [
            words.plural(method["identities"], "identity", "identities"),
            words.plural(method["images"], "image"),
            f"{words.count(len(method['failed']))} not learned",
            f"{words.seconds(method['costs'].get('seconds_personalize'))} to learn one",
        ],
        "scores": [_score(name, metric, score, nights) for metric, score in method["scores"].items()],
    }


def _score(name: str, metric: str, score: dict[str, Any], nights: Sequence[Night]) -> dict[str, Any]:
    points = [_point(night, name, metric) for night in nights]
    found = next((f for f in nights[-1]["findings"] if (f["method"], f["metric"]) == (name, metric)), None)
    title = f"{score['title']} of {name} over {words.plural(len(points), 'night')}"
    return {**score, "svg": spark(points, title), "change": words.signed(found["change"]) if found else words.DASH}


def _point(night: Night, name: str, metric: str) -> Point:
    method = night["methods"].get(name, {})
    score = method.get("scores", {}).get(metric, {})
    verdict = next((f["verdict"] for f in night["findings"] if (f["method"], f["metric"]) == (name, metric)), "same")
    kind = verdict if verdict in ("drop", "gain") else "good"
    figures = (score.get("mean"), score.get("low"), score.get("high"))
    return Point(night["date"], *figures, kind, method.get("fingerprint", ""))


def _listed(night: Night) -> dict[str, Any]:
    return {
        "date": night["date"],
        "verdict": _word(night),
        "kind": _kind(night),
        "sentence": night["accepted"] or night_words.sentence(night),
        "seed": night["seed"],
        "report": f"nights/{night['date']}/report/report.html",
    }
