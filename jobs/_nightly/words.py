"""A night in words: the table of what moved, and the message for a chat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jobs._nightly.history import Night

_SIGNS = {"good": "\N{LARGE GREEN CIRCLE}", "first": "\N{LARGE BLUE CIRCLE}", "regressed": "\N{LARGE RED CIRCLE}"}
_HEAD = ("method", "score", "usual", "before", "now", "change", "95 % interval", "p", "matters from", "people", "")
_INTERVAL = _HEAD[6]


def sentence(night: Night) -> str:
    """The verdict."""
    drops = [f for f in night["findings"] if f["verdict"] == "drop"]
    if night["status"] == "regressed":
        methods = sorted({f["method"] for f in drops})
        return f"{len(drops)} of {len(night['findings'])} scores dropped: {', '.join(methods)}"
    if night["status"] == "first":
        return "nothing to compare with yet: later nights are compared with this one"
    gains = sum(f["verdict"] == "gain" for f in night["findings"])
    return f"no drop in {len(night['findings'])} scores{f', {gains} rose' if gains else ''}"


def table(night: Night, every: bool = False) -> list[str]:
    """What moved, and what could not be judged, as lines of a terminal; ``every``: all that was compared."""
    shown = [f for f in night["findings"] if every or f["verdict"] != "same"]
    if not shown:
        return []
    percent = f"{100 * (1 - night['test']['alpha']):.3g} % interval"
    head = [percent if cell == _INTERVAL else cell for cell in _HEAD]
    rows = [head, *(_row(finding) for finding in shown)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    left = (0, 1, len(head) - 1)
    return [
        "  ".join(
            c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _row(finding: dict[str, Any]) -> list[str]:
    low, high = finding["low"], finding["high"]
    return [
        finding["method"],
        finding["title"],
        _number(finding.get("usual")),
        _number(finding["before"]),
        _number(finding["now"]),
        _number(finding["change"], "+.3f"),
        "" if low is None else f"[{low:+.3f}, {high:+.3f}]",
        chance(finding["p"]),
        _number(finding["effect"]),
        str(finding["identities"]),
        finding["verdict"],
    ]


def chance(p: float | None) -> str:
    """A p-value; one that would round to nothing is not told as nothing."""
    return "<0.001" if p is not None and p < 0.001 else _number(p)


def _number(value: float | None, form: str = ".3f") -> str:
    return "-" if value is None else format(value, form)


def notes(night: Night) -> list[str]:
    """What each method was compared with, and which of its settings changed since."""
    out = []
    for name, method in night["methods"].items():
        if method["compared_with"]:
            out.append(f"{name}: compared with {method['compared_with']}")
            out += [f"{name}: {line}" for line in method["changes"]]
        else:
            out.append(f"{name}: {method['not_compared']}")
    return out


def message(night: Night) -> str:
    """For a chat; Slack's code block around the table."""
    lines = [f"{_SIGNS[night['status']]} *{night['recipe']}* {night['date']}: {sentence(night)}"]
    if rows := table(night):
        lines += ["```", *rows, "```"]
    lines += [note for note in notes(night) if night["status"] != "good" or "is not compared" in note]
    return "\n".join([*lines, f"report: {night['report']}"])


def failure(recipe: str, date: str, error: BaseException) -> str:
    """For a chat, of a night that did not finish."""
    reason = str(error).splitlines()[0] if str(error) else ""
    return f"\N{WARNING SIGN} *{recipe}* {date} did not finish: {type(error).__name__}: {reason}"


def summary_lines(night: Night) -> Sequence[str]:
    """The night for a terminal."""
    accepted = f" (accepted: {night['accepted']})" if night["accepted"] else ""
    return [*notes(night), *table(night), f"nightly: {night['date']}: {night['status']}: {sentence(night)}{accepted}"]
