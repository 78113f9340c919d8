"""Loading without the libraries' own reports."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import diffusers
import transformers


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' own bars and loading reports: what is wrong is told by our errors."""
    libraries = (diffusers.utils.logging, transformers.utils.logging)
    levels = [library.get_verbosity() for library in libraries]
    bars = [library.is_progress_bar_enabled() for library in libraries]
    for library in libraries:
        library.disable_progress_bar()
        library.set_verbosity(library.CRITICAL)
    try:
        yield
    finally:
        for library, level, bar in zip(libraries, levels, bars, strict=True):
            library.set_verbosity(level)
            if bar:
                library.enable_progress_bar()
