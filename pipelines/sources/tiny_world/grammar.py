"""English, as far as captions need it."""


def article(noun: str) -> str:
    """``noun`` after its indefinite article: ``an orange mug``."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
