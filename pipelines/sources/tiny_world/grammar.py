"""Words of the tiny world."""

from __future__ import annotations

import re


def colored(text: str, *words: str, **names: str) -> str:
    """``a {} cap`` with the colour's (or another word's) name in it, and the right article."""
    return re.sub(r"\ba (?=[aeio])", "an ", text.format(*words, **names))
