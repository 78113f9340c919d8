"""Finds a model folder wherever a recipe points: bundled, local, any fsspec URI, or a hub id."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from e4t_core.bundled import SCHEME, bundled_folder
from e4t_core.errors import StorageError, UsageError, UserError
from e4t_core.storage import Store

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_COPY_BYTES = 64 << 20


@contextlib.contextmanager
def model_folder(path: str, patterns: Sequence[str]) -> Iterator[Path]:
    """A local folder with at least the files of ``path`` that match ``patterns`` (``unet/*.json``).

    Remote folders are downloaded for the time of the context, hub ids into the hub's cache.

    Raises:
        UserError: nothing is there, or it cannot be fetched.
    """
    if path.startswith(SCHEME):
        yield bundled_folder(path)
    elif "://" in path:
        with tempfile.TemporaryDirectory(prefix="e4t-model-") as folder:
            _download(Store(path), patterns, Path(folder))
            yield Path(folder)
    elif Path(path).expanduser().is_dir():
        yield Path(path).expanduser()
    elif _HUB_ID.fullmatch(path):
        yield _from_hub(path, patterns)
    else:
        raise UsageError(
            f"there is no model folder '{path}'; "
            f"give a local folder, an s3:// URI, a hub id (owner/name) or {SCHEME}NAME"
        )


def _download(store: Store, patterns: Sequence[str], folder: Path) -> None:
    keys = [e.key for e in store.list() if any(fnmatch(e.key, pattern) for pattern in patterns)]
    if not keys:
        raise StorageError(f"{store.uri} holds none of {', '.join(patterns)}; is it the model's top folder?")
    for key in keys:
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        with store.open(key) as source, (folder / key).open("wb") as target:
            shutil.copyfileobj(source, target, _COPY_BYTES)


def _from_hub(name: str, patterns: Sequence[str]) -> Path:
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(patterns)))
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"'{name}' is no local folder and could not be fetched from the hub: {reason}; "
            "download it once where there is a network and give the folder or its s3:// URI"
        ) from error
