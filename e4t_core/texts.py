"""Small text files that users write: lists of ids, identities, classes."""

from __future__ import annotations

from e4t_core.errors import DataError
from e4t_core.storage import Store


def read_text(uri: str, field: str) -> str:
    """The text at ``uri``; ``field`` is what the recipe or the command calls it (``source.list``, ``--ids``).

    Raises:
        DataError: it is missing, empty, or not UTF-8.
    """
    folder, _, name = uri.rpartition("/")
    try:
        text = Store(folder or ("/" if uri.startswith("/") else ".")).read(name).decode("utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"{field} '{uri}' does not exist") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{field} '{uri}' is not UTF-8 text: {error}") from error
    if not text.strip():
        raise DataError(f"{field} '{uri}' is empty")
    return text
