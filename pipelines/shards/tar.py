"""Deterministic WebDataset tars: the same samples give the same bytes on every machine.

USTAR, time 0, owner 0, mode 0644, samples sorted by key, members by name. Each sample's members are contiguous, so
one range read fetches a sample: :class:`Span` says where, and its CRC-32 tells when the bytes are not what was written.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from e4t_core.errors import DataError

_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)


class Span(NamedTuple):
    """Where one sample lies in its tar: ``[offset, offset + size)``, and the CRC-32 of those bytes."""

    offset: int
    size: int
    crc32: int


@dataclass(frozen=True)
class Tar:
    """A finished tar.

    Attributes:
        data: its bytes.
        sha256: their hash.
        spans: key -> where that sample is, in key order.
    """

    data: bytes
    sha256: str
    spans: dict[str, Span]


class Writer:
    """Builds one tar in memory, a sample at a time."""

    def __init__(self) -> None:
        self._out = io.BytesIO()
        self._spans: dict[str, Span] = {}
        self._last = ""

    def add(self, key: str, members: Mapping[str, bytes]) -> None:
        """Append one sample; keys must ascend.

        Raises:
            ValueError: a key out of order or twice, no members, or a name that does not fit USTAR.
        """
        if key <= self._last or not members:
            raise ValueError(f"sample '{key}' after '{self._last}': keys must ascend and have members")
        offset, crc = self._out.tell(), 0
        for name in sorted(members):
            for part in _parts(f"{key}.{name}", members[name]):
                crc = zlib.crc32(part, crc)
                self._out.write(part)
        self._spans[key] = Span(offset, self._out.tell() - offset, crc)
        self._last = key

    def finish(self) -> Tar:
        """Close the tar."""
        self._out.write(_END)
        self._out.write(bytes(-self._out.tell() % tarfile.RECORDSIZE))
        data = self._out.getvalue()
        return Tar(data, hashlib.sha256(data).hexdigest(), self._spans)


def footprint(members: Mapping[str, bytes]) -> int:
    """Bytes that a sample takes in a tar."""
    return sum(_BLOCK + len(data) + -len(data) % _BLOCK for data in members.values())


def closed_size(footprints: int) -> int:
    """Bytes of a finished tar whose samples take ``footprints``."""
    size = footprints + len(_END)
    return size + -size % tarfile.RECORDSIZE


def _parts(name: str, data: bytes) -> tuple[bytes, bytes, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mode = 0o644
    header = info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")
    return header, data, bytes(-len(data) % _BLOCK)


def members(data: bytes, span: Span, what: str) -> dict[str, bytes]:
    """Member name -> bytes of the sample whose tar bytes are ``data``.

    Raises:
        DataError: the bytes are not those that were written; ``what`` names them.
    """
    if len(data) != span.size or zlib.crc32(data) != span.crc32:
        raise DataError(
            f"{what}: the {span.size} bytes at {span.offset} are not what was committed "
            f"({len(data)} bytes read, CRC-32 {zlib.crc32(data):08x} instead of {span.crc32:08x}); "
            "`python -m jobs shards verify STORE` finds everything that is damaged"
        )
    out: dict[str, bytes] = {}
    at = 0
    while at < len(data):
        info = tarfile.TarInfo.frombuf(data[at : at + _BLOCK], "ascii", "strict")
        at += _BLOCK
        out[info.name.rsplit("/", 1)[-1].split(".", 1)[1]] = data[at : at + info.size]
        at += info.size + -info.size % _BLOCK
    return out
