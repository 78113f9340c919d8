"""Members of tars on any store: found by their headers, read as byte ranges, never unpacked."""

from __future__ import annotations

import errno
import io
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast
from urllib.parse import quote, unquote

from e4t_core.errors import DataError, StorageError
from e4t_core.storage import Store

Kind = Literal["file", "folder", "symlink", "hardlink", "device", "pipe", "sparse", "other", "absolute", "outside"]
REFUSED: Mapping[str, str] = {
    "symlink": "is a symbolic link, and links are never followed; put the file itself into the tar",
    "hardlink": "is a hard link, and links are never followed; put the file itself into the tar (--hard-dereference)",
    "device": "is a device and no file",
    "pipe": "is a named pipe and no file",
    "sparse": "is a sparse file, whose bytes are not in the tar as they are; pack it without --sparse",
    "other": "is of a type that is no file",
    "absolute": "has an absolute name; pack it with names below a folder",
    "outside": "leads out of its folder by '..'; pack it with names below a folder",
}
"""What is never read, and why."""

_KINDS: Mapping[bytes, Kind] = {
    tarfile.DIRTYPE: "folder",
    tarfile.SYMTYPE: "symlink",
    tarfile.LNKTYPE: "hardlink",
    tarfile.CHRTYPE: "device",
    tarfile.BLKTYPE: "device",
    tarfile.FIFOTYPE: "pipe",
    **dict.fromkeys(tarfile.REGULAR_TYPES, "file"),
}
_AHEAD = 1 << 20
"""Bytes of one request to a remote store: about what its latency costs, and the headers of several photographs."""
_MAX_HEADER = 1 << 20
_RANGE = re.compile(r"(\d+)\+(\d+)\.(.+)")


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a tar.

    Attributes:
        name: as it is in the tar.
        offset: where its data starts in the tar, in bytes.
        size: of its data, in bytes.
        kind: ``file``, ``folder``, or one of REFUSED.
    """

    name: str
    offset: int
    size: int
    kind: Kind


def members(store: Store, key: str) -> Iterator[Member]:
    """The tar's members in their order, from the headers alone; memory is that of one.

    Raises:
        DataError: it is gone, gzipped, truncated, damaged or no tar. What was good before is yielded first.
    """
    try:
        with store.open(key) as file:
            ahead = io.DEFAULT_BUFFER_SIZE if store.local else _AHEAD
            yield from _walk(_Headers(cast(Any, file), ahead), store.url(key))
    except FileNotFoundError as error:
        raise DataError(f"{store.url(key)} was listed but is gone; put it back, or list the source again") from error


class _Headers(io.BufferedReader):
    """Read-ahead that gives headers only: a size field that lies must not fetch the rest of the tar."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _MAX_HEADER:
            raise tarfile.ReadError(f"a header claims {size} bytes")
        data = super().read(size)
        if len(data) < size:
            raise _End("the file ends")  # tarfile would take that for the end of the tar, or never stop
        return data


class _End(tarfile.ReadError):
    """A header goes on where the file does not."""


def _walk(file: _Headers, uri: str) -> Iterator[Member]:
    end = file.seek(0, io.SEEK_END)
    file.seek(0)
    if end > 1 and file.read(2) == b"\x1f\x8b":
        raise DataError(f"{uri} is gzipped, so single members cannot be read; unpack it to a plain .tar first")
    file.seek(0)
    at = 0
    try:
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
            while (info := tar.next()) is not None:
                _check(info, at, tar.offset, end, uri)
                at = tar.offset
                cast(Any, tar).members.clear()  # tarfile keeps every member that it ever met
                yield Member(info.name, info.offset_data, info.size, _kind(info))
        file.seek(at)
        if any(file.read(tarfile.BLOCKSIZE)):
            raise tarfile.ReadError("no header is there")
    except (tarfile.TarError, ValueError, RecursionError) as error:
        raise _broken(uri, at, end, error) from error


def _check(info: tarfile.TarInfo, start: int, stop: int, end: int, uri: str) -> None:
    """Whether all of a member is there; ``stop`` is where the next header must start."""
    if info.size < 0 or stop <= start:
        raise tarfile.ReadError(f"a header claims {info.size} bytes")
    if stop > end:
        raise DataError(
            f"{uri} is truncated: its member {info.name!r} needs the bytes up to {stop}, and the file has "
            f"{end}; copy or pack it again"
        )


def _broken(uri: str, at: int, end: int, error: Exception) -> DataError:
    if isinstance(error, _End):
        return DataError(
            f"{uri} is truncated: byte {at} should start a header, or the zeros that end a tar, and the file has "
            f"{end} bytes; copy or pack it again"
        )
    if at == 0:
        return DataError(f"{uri} is no tar ({error}); give plain tars, not compressed")
    return DataError(f"{uri} is damaged: byte {at} should start a header ({error}); copy or pack it again")


def _kind(info: tarfile.TarInfo) -> Kind:
    kind = "sparse" if info.issparse() else _KINDS.get(info.type, "other")
    if kind == "file" and info.name.startswith("/"):
        return "absolute"
    return "outside" if kind == "file" and ".." in info.name.split("/") else kind


def address(uri: str, parts: Mapping[str, Member]) -> str:
    """The tar's URI, and where in it the parts of one sample are: ``a.tar#3072+9.txt&1536+1234.jpg``.

    ``parts`` are by extension; the last one's ends the URI, as a file's would. A part that is never read is there by
    kind and name: ``a.tar#symlink:jpg:photos/1.jpg``.
    """
    return f"{uri}#{'&'.join(_part(ext, member) for ext, member in parts.items())}"


def _part(ext: str, member: Member) -> str:
    if member.kind in REFUSED:
        return f"{member.kind}:{ext}:{quote(member.name, errors='surrogateescape')}"
    return f"{member.offset}+{member.size}.{ext}"


def parse_address(address: str) -> tuple[str, dict[str, Member]]:
    """What :func:`address` was given; the names of files are not kept."""
    uri, _, parts = address.rpartition("#")
    found: dict[str, Member] = {}
    for part in filter(None, parts.split("&")):
        if match := _RANGE.fullmatch(part):
            found[match[3]] = Member("", int(match[1]), int(match[2]), "file")
        else:
            kind, ext, name = part.split(":", 2)
            found[ext] = Member(unquote(name, errors="surrogateescape"), 0, 0, cast(Kind, kind))
    return uri, found


def read_parts(store: Store, key: str, parts: Mapping[str, Member]) -> dict[str, bytes]:
    """The bytes of each part, fetched together.

    Raises:
        OSError: a part is one of REFUSED, or the tar has become shorter. FileNotFoundError: it is gone.
    """
    for member in parts.values():
        if member.kind in REFUSED:
            raise OSError(f"{member.name!r} {REFUSED[member.kind]}")
    fetched = {ext: m for ext, m in parts.items() if m.size}  # stores refuse empty ranges
    try:
        data = store.read_ranges([(key, m.offset, m.offset + m.size) for m in fetched.values()])
    except StorageError as error:
        if getattr(error.__cause__, "errno", None) != errno.EINVAL:
            raise
        data = [b""] * len(fetched)  # S3 says so of a range beyond the end
    for member, got in zip(fetched.values(), data, strict=True):
        if len(got) != member.size:
            raise OSError(
                f"{len(got)} of {member.size} bytes are at byte {member.offset}; the tar was changed, list it again"
            )
    return {**dict.fromkeys(parts, b""), **dict(zip(fetched, data, strict=True))}
