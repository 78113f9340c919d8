"""Numbers and sentences as people write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MINUS, DASH, THIN = "\N{MINUS SIGN}", "\N{EN DASH}", "\N{NARROW NO-BREAK SPACE}"


def number(value: float | None, digits: int = 3) -> str:
    """A score; an en dash for what is not known."""
    return DASH if value is None else f"{value:.{digits}f}".replace("-", MINUS)


def signed(value: float | None, digits: int = 3) -> str:
    """A difference, with its sign."""
    return DASH if value is None else f"{value:+.{digits}f}".replace("-", MINUS)


def count(value: float | None) -> str:
    """A whole or nearly whole number with thin spaces between thousands."""
    if value is None:
        return DASH
    text = f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"
    return text.replace(",", THIN)


def seconds(value: float | None) -> str:
    """Two or three digits that matter."""
    if value is None:
        return DASH
    digits = 2 if value < 1 else 1 if value < 10 else 0
    return f"{value:.{digits}f}{THIN}s" if value < 1e4 else f"{count(round(value))}{THIN}s"


def size(value: float | None) -> str:
    """Bytes in the unit that leaves one to three digits before the point."""
    if value is None:
        return DASH
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{value:.{0 if unit == 'B' or value >= 100 else 1}f}{THIN}{unit}"


def between(low: float | None, high: float | None, digits: int = 3) -> str:
    """``0.271 – 0.305``; empty where nothing can be said."""
    return "" if low is None or high is None else f"{number(low, digits)} {DASH} {number(high, digits)}"


def plural(n: int, one: str, many: str | None = None) -> str:
    """``1 image``, ``48 images``."""
    return f"{count(n)} {one if n == 1 else many or one + 's'}"


def spaced(name: str) -> str:
    """A name of files and recipes as people write it."""
    return name.replace("_", " ")


def prompt(text: str) -> str:
    """A prompt with a sign for the concept where a method leaves its place open."""
    return text.replace("{}", "S*")


def listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def untrained_notice(parts: Sequence[str]) -> str:
    """What to think of figures that random weights gave; empty if all are trained."""
    if not parts:
        return ""
    have = "has weights" if len(parts) == 1 else "have weights"
    return (
        f"{listed(parts)[0].upper()}{listed(parts)[1:]} {have} drawn from a seed and never trained. "
        "The figures below say that the road runs, not that it personalizes."
    )


def title(figures: dict[str, Any], inputs: int) -> str:
    """``232 identities, one photo each``."""
    known = "one photo" if inputs == 1 else f"{inputs} photos"
    return f"{plural(figures['identities'], 'identity', 'identities')}, {known} each"


def summary(figures: dict[str, Any], label: str, confidence: float) -> list[str]:
    """One method's result in a few sentences."""
    out = [
        f"Each identity was learned by {label} and drawn under {plural(figures['prompts'], 'prompt')}: "
        f"{plural(figures['images'], 'picture')}."
    ]
    sentences = (_score_sentence(figures["scores"], column, confidence) for column in ("identity", "clip_t"))
    out += [text for text in sentences if text]
    steps, took = (figures["costs"].get(c, {}).get("mean") for c in ("steps", "seconds_personalize"))
    if steps is not None and took is not None:
        out.append(f"Learning one identity took {count(steps)} steps and {seconds(took)}, model loading apart.")
    if lost := sum(score["failures"] for score in figures["scores"].values()):
        out.append(f"{plural(lost, 'score')} could not be computed; the table counts them.")
    return out


_MEANING = {"identity": "Likeness", "clip_t": "Agreement with the prompt"}


def _score_sentence(scores: dict[str, Any], column: str, confidence: float) -> str:
    score = scores.get(column)
    if not score or score["mean"] is None:
        return ""
    text = f"{_MEANING[column]}, {score['title']}, is {number(score['mean'])}"
    if score["low"] is not None:
        text += f" ({confidence:.0%} interval {between(score['low'], score['high'])})"
    held_out = scores.get(f"{column}_heldout")
    if held_out and held_out["mean"] is not None:
        text += f"; against photos it was not shown, {number(held_out['mean'])}"
    return f"{text}."
