"""Captions and csv lists as people write them: bounded, and what is broken is named."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator

from e4t_core.errors import DataError

MAX_TEXT = 1 << 20
"""Bytes of a caption or a class; what is longer is something else under that name."""


def check_length(size: int, what: str) -> None:
    """Raises ``OSError``, so that the sample is quarantined, if ``size`` bytes are no caption."""
    if size > MAX_TEXT:
        raise OSError(f"{what} has {size} bytes; a caption or class has at most {MAX_TEXT}")


def csv_rows(lines: Iterable[str], what: str, first: int = 1) -> Iterator[tuple[int, list[str]]]:
    """``(number of its last line, row)``; ``first`` is the number of the first line.

    Raises:
        DataError: a row cannot be read, as after a quote that never ends; ``what`` names the list.
    """
    reader = csv.reader(lines)
    try:
        for row in reader:
            yield reader.line_num + first - 1, row
    except csv.Error as error:
        line = reader.line_num + first - 1
        raise DataError(f"{what}, line {line}: {error}; is a quotation mark left open there or before?") from error
