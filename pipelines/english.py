"""English, as far as captions need it."""

from __future__ import annotations


def with_article(noun: str) -> str:
    """``noun`` after its indefinite article: ``an orange mug``, ``an Indian elephant``."""
    return f"{'an' if noun[:1].lower() in tuple('aeiou') else 'a'} {noun}"
