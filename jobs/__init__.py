"""Entry points for ``python -m jobs`` and ``ray job submit``."""
