"""English, as far as captions need it."""

from __future__ import annotations

import re


def article(noun: str) -> str:
    """``noun`` after its indefinite article: ``an orange mug``."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def colored(text: str, *words: str, **names: str) -> str:
    """``a {} cap`` with the colour's (or another word's) name in it, and the right article."""
    return re.sub(r"\ba (?=[aeio])", "an ", text.format(*words, **names))
