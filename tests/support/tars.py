"""Tars to list: honest ones and odd ones, and what reading them fetches."""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from e4t_core.storage import Store

LONG = "a folder/" * 30 + "é 1.jpg"
"""A name that no plain header holds."""


def packed(files: Sequence[tuple[str, bytes | tarfile.TarInfo]], format: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of these members: bytes are files, anything else is as its header says."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for name, content in files:
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo()
            info.name = name
            if isinstance(content, bytes):
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return buffer.getvalue()


def odd(type: bytes, target: str = "") -> tarfile.TarInfo:
    """A member that is no file."""
    info = tarfile.TarInfo()
    info.type, info.linkname = type, target
    return info


class Counted(io.RawIOBase):
    """A file that counts what is fetched from it."""

    def __init__(self, file: Any) -> None:
        self.file, self.requests, self.bytes = file, 0, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return int(self.file.seek(offset, whence))

    def tell(self) -> int:
        return int(self.file.tell())

    def readinto(self, buffer: Any, /) -> int:
        count = int(self.file.readinto(buffer))
        self.requests, self.bytes = self.requests + 1, self.bytes + count
        return count


def opening(monkeypatch: pytest.MonkeyPatch) -> list[Counted]:
    """Every file that a store opens from now on."""
    found: list[Counted] = []
    real = Store.open

    @contextlib.contextmanager
    def counting(store: Store, key: str) -> Iterator[Any]:
        with real(store, key) as file:
            found.append(Counted(file))
            yield found[-1]

    monkeypatch.setattr(Store, "open", counting)
    return found
